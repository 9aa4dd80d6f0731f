"""Real encoders over eight devices: what is cached is what they give a run, but for the rounding to float16."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fooddit.caching.command import cache
from fooddit.config import ConfigError
from fooddit.data.data_config import TextInput
from fooddit.data.feature_cache import FeatureStream
from fooddit.data.images import decode_image
from fooddit.data.pipeline import Batches, DataConfig
from fooddit.data.records import open_dataset
from fooddit.data.tokenizer import train_tokenizer
from fooddit.models.dit import DiTConfig
from fooddit.models.eclip import Eclip
from fooddit.models.eclip_config import EclipConfig, ImageTowerConfig, TextTowerConfig
from fooddit.models.eclip_folder import save_eclip
from fooddit.models.latent_statistics import load_statistics, sums_of_moments
from fooddit.models.module import define
from fooddit.models.picture_space import PictureSpace, SpaceConfig
from fooddit.models.towers import Towers, TowersConfig
from fooddit.tasks.autoencode import AutoencodeExperiment
from fooddit.tasks.denoise_step import DenoiseExperiment, DenoiseStep
from fooddit.training.frozen import Frozen
from parity import t5_made
from tests.data.made import dataset, record


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("records") / "made"
    dataset(out, [record(i, 64, 64) for i in range(20)], [record(20, 64, 64)])
    return out


@pytest.fixture(scope="module")
def experiment(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("towers")
    t5_made.write(out / "t5", "umt5")
    captions = [caption.text for caption in open_dataset(folder, "train").captions()]
    small = {"width": 16, "depth": 1, "head_dim": 8}
    config = EclipConfig(
        ImageTowerConfig(**small, patch=16, image_size=32), TextTowerConfig(**small, vocabulary=300, length=40), 12
    )
    params = define(lambda rngs: Eclip(config, rngs=rngs)).init(jax.random.key(0))
    save_eclip(out / "eclip", config, params, train_tokenizer(captions, 300))
    return DenoiseExperiment(
        data=DataConfig(str(folder), 8, grid=8, image_size=64, flip=True),
        space=SpaceConfig("builtin:scenes", 1),
        model=DiTConfig(width=32, depth=1),
        towers=TowersConfig(str(out / "t5"), 24, str(out / "eclip"), dtype="bfloat16"),
    )


@pytest.fixture(scope="module")
def made(folder, experiment, tmp_path_factory):
    out = tmp_path_factory.mktemp("cache") / "out"
    return out, cache(str(folder), str(out), experiment, text=True)


def test_moments_are_those_of_the_space(folder, experiment, made):
    space, data = PictureSpace(experiment.space), open_dataset(folder, "train")
    params, moments = space.load(), jax.jit(space.moments)
    images = np.stack([decode_image(record.image) for record in data])
    expected = np.asarray(moments(params, images))
    stream = FeatureStream(made[0] / "moments", "train")
    found = np.stack(stream.read(range(20), [0] * 20)).astype(np.float32)
    np.testing.assert_allclose(found, expected, atol=2e-3, rtol=1e-3)
    # A mirrored picture's moments, not the mirrored moments.
    mirrored = np.asarray(moments(params, images[:, :, ::-1]))
    found = np.stack(stream.read(range(20), [1] * 20)).astype(np.float32)
    np.testing.assert_allclose(found, mirrored, atol=2e-3, rtol=1e-3)
    assert np.abs(mirrored - expected[:, :, ::-1]).max() > 0.1


def test_statistics_are_kept_with_the_records(folder, experiment, made):
    space, data = PictureSpace(experiment.space), open_dataset(folder, "train")
    kept = load_statistics(folder / "latent_statistics.json", space.description, 64)
    images = np.stack([decode_image(data[i].image) for i in range(20)])
    params = space.load()
    wanted = sums_of_moments(params, jax.jit(space.moments)(params, images)).statistics()
    assert kept.pictures == 20 and f"statistics of 20 pictures' latents kept in {folder}" in str(made[1])
    np.testing.assert_allclose(kept.mean, wanted.mean, atol=1e-4)
    np.testing.assert_allclose(kept.deviation, wanted.deviation, rtol=1e-4)


def test_a_run_hears_the_same_with_and_without_the_cache(folder, experiment, made):
    towers = Towers(experiment.towers, image_prompts=False)
    frozen = Frozen({"space": PictureSpace(experiment.space), **towers.parts})
    texts = {name: TextInput(towers.encodes[name], length) for name, length in towers.lengths.items()}
    params, features = frozen.load(), jax.jit(towers.features)
    heard = []
    for source in ("", str(made[0])):
        config = DataConfig(str(folder), 8, grid=8, image_size=64, flip=True, features=source)
        options = {"seed": 1, "tokenizers": texts, "encoders": frozen.description}
        batches = Batches(open_dataset(folder, "train"), config, **options)
        batch = next(batches)
        batches.close()
        arrays = {name: array for name, array in batch.items() if name.startswith(("t5", "eclip"))}
        heard.append(features(params, {name: jnp.asarray(array) for name, array in arrays.items()}))
        # What the step is compiled for.
        step = DenoiseStep(experiment)
        shapes = step.cached_batch_shapes if source else step.batch_shapes
        assert batch.keys() == shapes.keys() | {"record", "caption"}
        for name, leaf in shapes.items():
            assert (batch[name].shape, batch[name].dtype) == (leaf.shape, leaf.dtype), name
    online, cached = heard
    assert online.keys() == cached.keys() == {"t5", "t5_mask", "eclip", "eclip_mask", "pooled"}
    for name, array in online.items():
        assert array.dtype == cached[name].dtype
        # Other batches, other sums: as near as bfloat16 is.
        found, wanted = (np.asarray(each).astype(np.float32) for each in (cached[name], array))
        np.testing.assert_allclose(found, wanted, atol=0.03, rtol=0.03, err_msg=name)


def test_what_has_nothing_to_cache_is_refused(folder, experiment, tmp_path):
    data = DataConfig(str(folder), 8)
    for config, text, message in (
        (DenoiseExperiment(data=data), False, r"there is nothing to compute, config\.space\.autoencoder is 'pixels'"),
        (DenoiseExperiment(data=data), True, r"--text: config\.towers names no frozen tower"),
        (
            DenoiseExperiment(data=data, towers=TowersConfig("umt5-small")),
            True,
            r"config\.towers\.t5 is the name of a s",
        ),
        (
            DenoiseExperiment(data=data, space=SpaceConfig("flux", 1)),
            False,
            r"config\.space\.autoencoder is the name of a shape",
        ),
        (AutoencodeExperiment(task="autoencode"), False, "the task 'autoencode' has no frozen encoders"),
    ):
        with pytest.raises(ConfigError, match=message):
            cache(str(folder), str(tmp_path / "c"), config, text=text)
    assert not (tmp_path / "c").exists()

"""Contrastive training: any mesh equals one device, any shape of picture, its judgement, its export."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.eclip import get_config
from fooddit.config import ConfigError, build
from fooddit.data.prepare import prepare
from fooddit.models.eclip_folder import open_eclip
from fooddit.parallel import MeshConfig, batch_sharding, make_mesh
from fooddit.tasks.contrastive import Contrastive
from fooddit.tasks.contrastive_step import ContrastiveExperiment, ContrastiveStep, without_reconstruction
from fooddit.tasks.held_out_pairs import read_held_out
from fooddit.training.loop import abstract_state, jit_step
from fooddit.training.optimizer import make_optimizer
from fooddit.training.state import State
from tests.models.eclip_cases import random_weights


def experiment(**values) -> ContrastiveExperiment:
    """Config ':tiny' with heads that a mesh can cut, and other values by their path."""
    config = get_config("tiny")
    config.model.scan_unroll = 1
    config.model.image.head_dim = config.model.text.head_dim = 8
    config.data.batch_size, config.optimizer.warmup = 16, 1
    for path, value in values.items():
        *sections, name = path.split("__")
        node = config
        for section in sections:
            node = node[section]
        node[name] = value
    return build(ContrastiveExperiment, config.to_dict())


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records") / "scenes"
    prepare("scenes:64", folder, size=64, progress=False)
    return Contrastive(experiment(data__source=str(folder)), folder.parent)


@pytest.fixture(scope="module")
def params(task):
    rng, pixels = np.random.default_rng(5), task.shapes["pixels"]
    made = {name: 0.1 * rng.normal(size=leaf.shape).astype(np.float32) for name, leaf in pixels.items()}
    return random_weights(task.experiment.model) | {"pixels": made}


def step_on(task, config: MeshConfig, params, batch):
    """(loss, parameters) after one step of the loop's own program."""
    mesh = make_mesh(config, jax.devices()[: config.data * config.fsdp * config.tensor])
    optimizer = make_optimizer(task.experiment.optimizer, 10, task.axes)
    abstract = abstract_state(task, optimizer, mesh)
    state = State(jnp.zeros((), jnp.int32), params, optimizer.init(params))
    state = jax.device_put(state, jax.tree.map(lambda leaf: leaf.sharding, abstract))
    with jax.set_mesh(mesh):
        placed = jax.jit(task.device_batch)({}, jax.device_put(batch, batch_sharding(mesh)))
        state, metrics = jit_step(task, task.experiment, optimizer, abstract)(state, {}, placed)
    return jax.device_get(metrics), jax.device_get(state.params)


@pytest.fixture(scope="module")
def batch(task):
    batches = task.batches(0)
    found = next(batches)
    batches.close()
    return found


@pytest.fixture(scope="module")
def one_device(task, params, batch):
    return step_on(task, MeshConfig(data=1), params, batch)


@pytest.mark.parametrize("config", [MeshConfig(data=8), MeshConfig(data=2, fsdp=2, tensor=2)], ids=str)
def test_a_mesh_equals_one_device(task, params, batch, one_device, config):
    metrics, found = step_on(task, config, params, batch)
    for name in ("loss", "patch_error", "ignored_pairs", "logit_scale", "logit_bias"):
        np.testing.assert_allclose(metrics[name], one_device[0][name], rtol=1e-5)
    assert metrics["ignored_pairs"] > 0
    for leaf, expected in zip(jax.tree.leaves(found), jax.tree.leaves(one_device[1])):
        np.testing.assert_allclose(leaf, expected, atol=5e-5)


def test_a_batch_in_parts_is_refused_because_it_is_another_loss():
    with pytest.raises(ConfigError, match="train.accumulate is 2, expected 1: each picture is compared with every"):
        experiment(train__accumulate=2)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"data__image_size": 32}, "data.image_size is 32, model.image.image_size 64"),
        ({"model__text__vocabulary": 100}, "model.text.vocabulary is 100"),
        ({"data__max_aspect": 2.0, "model__image__positions": "learned"}, "expected 1 with model.image.positions"),
    ],
)
def test_what_does_not_fit_together_is_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        experiment(**values)


def test_a_shape_is_padded_to_the_length_and_gives_what_the_picture_alone_gives(params):
    step = ContrastiveStep(experiment(data__max_aspect=2.0))
    rng = np.random.default_rng(0)
    given = {name: np.zeros(s.shape, s.dtype) for name, s in step.batch_shapes.items()}
    image = rng.integers(0, 256, size=(16, 40, 96, 3)).astype(np.uint8)
    made = step.device_batch({}, given | {"image": image})
    assert made["patches"].shape == (16, 64, 192) and made["patches"].dtype == jnp.uint8
    assert made["mask"].sum(axis=1).tolist() == [60] * 16
    model = step.definition.bind(params)
    metrics = step.loss(params, {}, made | {"index": jnp.arange(16)}, None)[1]
    pixels = lambda x: x.astype(jnp.float32) / 127.5 - 1
    padded = model.image.encode_patches(pixels(made["patches"]), made["positions"], made["mask"])
    alone = model.encode_image(pixels(jnp.asarray(image)))
    np.testing.assert_allclose(padded.pooled, alone.pooled, atol=1e-5)
    told = alone.tokens @ params["pixels"]["kernel"] + params["pixels"]["bias"]
    error = np.mean((told - pixels(made["patches"])[:, :60]) ** 2)
    assert float(metrics["patch_error"]) == pytest.approx(float(error), rel=1e-4)


def test_without_reconstruction_there_is_no_layer_for_it():
    assert "pixels" not in ContrastiveStep(experiment(reconstruction=0.0)).shapes
    with pytest.raises(ConfigError, match="reconstruction must be at least 0, found -1.0"):
        experiment(reconstruction=-1.0)


def test_evaluation_is_of_held_out_pictures_in_both_languages_beside_colours_and_chance(task, params, capsys):
    evaluation = task.evaluate(params, {}, 7)
    found = evaluation.details["retrieval"]
    assert set(found) == {"E-CLIP", "colours (mean)", "colours (fitted)"}
    for by_language in found.values():
        assert set(by_language) == {"en", "zh"}
        for report in by_language.values():
            assert report["text_to_image"]["queries"] == report["image_to_text"]["items"] == 32
            assert report["zero_shot"]["chance"][1] == pytest.approx(1 / report["zero_shot"]["items"])
    # Colours alone do better than chance.
    fitted = found["colours (fitted)"]["en"]["text_to_image"]
    assert fitted["at"][10] > fitted["chance"][10]
    names = {
        f"{way}/{lang}@{k}" for way in ("text_to_image", "image_to_text") for lang in ("en", "zh") for k in (1, 5, 10)
    }
    assert set(evaluation.scalars) == names | {"zero_shot/en", "zero_shot/zh"}
    assert evaluation.samples.shape == (16, 64, 64, 3) and len(evaluation.prompts) == 16
    assert "held-out pictures, step 7" in capsys.readouterr().out
    json.dumps(evaluation.details)


def test_a_damaged_held_out_picture_is_black_and_says_nothing(task):
    held_out = read_held_out(_Broken(task.holdout_set), 3, 64)
    assert not held_out.pictures[1].any() and held_out.pictures[2].any()
    assert held_out.galleries["en"].texts[1] == "" and held_out.galleries["en"].true[1] == frozenset()


class _Broken:
    """A dataset whose second record is damaged."""

    def __init__(self, dataset):
        self._dataset, self.decode = dataset, dataset.decode

    def __len__(self):
        return len(self._dataset)

    def read_whole(self, numbers):
        return [None if number == 1 else self._dataset[number] for number in numbers]


def test_what_is_exported_encodes_as_what_was_trained(task, params, tmp_path):
    task.export(params, tmp_path / "out")
    encoder = open_eclip(str(tmp_path / "out"))
    assert encoder.config == dataclasses.replace(task.experiment.model, dtype="float32")
    loaded = encoder.load()
    jax.tree.map(np.testing.assert_array_equal, loaded, without_reconstruction(params))
    texts = ["两只饺子", "a pizza on a red plate"]
    ids, masks = (np.stack(arrays) for arrays in zip(*map(encoder.tokenize, texts)))
    found = encoder.bind(loaded).encode_text(jnp.asarray(ids), masks).pooled
    np.testing.assert_allclose(found, task.encode_texts(params, texts), atol=1e-5)


def test_a_resumed_run_keeps_its_tokenizer(task):
    saved = json.loads(json.dumps(task.metadata))
    again = Contrastive(task.experiment, task.train_set.folder.parent, saved)
    assert again.metadata == task.metadata

"""Autoencoders with a critic in one step: on any devices, in any parts, after any stop; and what they export."""

import dataclasses
import functools
import shutil

import jax
import numpy as np
import pytest

from fooddit.aot.operations import flops
from fooddit.config import ConfigError, build
from fooddit.data.prepare import prepare
from fooddit.data.scenes import render_image, sample_spec
from fooddit.models.autoencoder import pixels_from_bytes
from fooddit.models.picture_space import PictureSpace, SpaceConfig
from fooddit.parallel import MeshConfig, batch_sharding, make_mesh
from fooddit.tasks.autoencode import Autoencode, AutoencodeExperiment, AutoencodeKL, AutoencodeKLExperiment
from fooddit.tasks.perceptual import PerceptualConfig
from fooddit.tasks.pictures import Pictures
from fooddit.training import loop
from fooddit.training.checkpoint import FOLDER
from fooddit.training.loop import abstract_state, jit_step
from fooddit.training.optimizer import make_optimizer
from fooddit.training.state import State

VALUES = {
    "task": "autoencode",
    "model": {"channels": 4, "width": 24, "variational": True},
    "adversarial": {"weight": 0.5, "start": 2, "discriminator": {"width": 8, "depth": 1}},
    "optimizer": {"warmup": 1, "discriminator": {"warmup": 1}},
    "data": {"batch_size": 16, "image_size": 16},
    "train": {"steps": 4, "log_every": 1},
    "checkpoint": {"every": 2},
}
KL = {"block_out_channels": [8, 8], "layers_per_block": 1, "latent_channels": 4, "norm_num_groups": 2}


def experiment(**changes) -> AutoencodeExperiment:
    return build(AutoencodeExperiment, VALUES | changes)


@pytest.fixture(scope="module")
def task():
    return Autoencode(experiment())


@pytest.fixture(scope="module")
def batches(task):
    stream = task.batches(0)
    found = [next(stream) for _ in range(4)]
    stream.close()
    return found


@pytest.fixture(scope="module")
def initial(task):
    return jax.device_get(jax.jit(task.init)(jax.random.key(0)))


def train(task, batches, initial, mesh=None, accumulate: int = 1):
    """Losses of the loop's own step for each batch, and the last state, on the mesh (of one device)."""
    mesh = make_mesh(mesh or MeshConfig(data=1), jax.devices()[: 8 if mesh else 1])
    settings = dataclasses.replace(task.experiment.train, accumulate=accumulate)
    changed = dataclasses.replace(task.experiment, train=settings)
    optimizer = make_optimizer(changed.optimizer, 10, task.axes)
    with jax.set_mesh(mesh):
        abstract = abstract_state(task, optimizer, mesh)
        step = jit_step(task, changed, optimizer, abstract)

        def start(params):
            return State(jax.numpy.zeros((), jax.numpy.int32), params, optimizer.init(params))

        shardings, losses = jax.tree.map(lambda leaf: leaf.sharding, abstract), []
        state = jax.jit(start, out_shardings=shardings)(initial)
        for batch in batches:
            state, metrics = step(state, {}, jax.device_put(batch, batch_sharding(mesh)))
            losses.append(float(metrics["loss"]))
    return losses, state


def close(found, expected):
    for (path, a), b in zip(jax.tree.leaves_with_path(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4, err_msg=jax.tree_util.keystr(path))


@pytest.fixture(scope="module")
def one_device(task, batches, initial):
    return train(task, batches, initial)


def test_both_groups_learn(one_device, initial):
    assert sorted(initial) == ["autoencoder", "discriminator"]
    for name, before in initial.items():
        moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), one_device[1].params[name], before)
        assert all(jax.tree.leaves(moved)), name
    average = one_device[1].opt_state["ema"].params
    jax.tree.map(np.testing.assert_array_equal, average["discriminator"], one_device[1].params["discriminator"])
    assert np.any(average["autoencoder"]["stem"]["kernel"] != one_device[1].params["autoencoder"]["stem"]["kernel"])


def test_eight_devices_equal_one(task, batches, initial, one_device):
    losses, state = train(task, batches, initial, MeshConfig(data=2, fsdp=4))
    np.testing.assert_allclose(losses, one_device[0], rtol=1e-5)
    close(state.params, one_device[1].params)


def test_accumulated_gradients_equal_the_big_batch(task, batches, initial, one_device):
    losses, state = train(task, batches, initial, accumulate=4)
    np.testing.assert_allclose(losses, one_device[0], rtol=1e-5)
    close(state.params, one_device[1].params)


@pytest.fixture
def one_of_the_devices(monkeypatch):
    monkeypatch.setattr(loop, "make_mesh", lambda config: make_mesh(config, jax.devices()[:1]))
    monkeypatch.setattr(Autoencode, "evaluate", lambda self, params, frozen, step: loop.Evaluation())


def test_a_resumed_run_equals_the_uninterrupted_one_bit_for_bit(task, tmp_path, one_of_the_devices):
    straight = loop.train(task, task.experiment, tmp_path / "straight")
    shutil.copytree(tmp_path / "straight", tmp_path / "resumed")
    shutil.rmtree(tmp_path / "resumed" / FOLDER / "4")
    (tmp_path / "resumed" / "summary.json").unlink()
    resumed = loop.train(Autoencode(task.experiment), task.experiment, tmp_path / "resumed")
    jax.tree.map(np.testing.assert_array_equal, resumed.params, straight.params)


def test_batches_say_their_step(task, batches):
    late = task.batches(5)
    assert (next(late)["step"] == 5).all() and (batches[1]["step"] == 1).all()
    late.close()
    shapes = {name: (shape.shape, shape.dtype) for name, shape in task.batch_shapes.items()}
    assert {name: (x.shape, x.dtype) for name, x in batches[0].items()} == shapes


def test_the_distance_of_features(task):
    experiment = dataclasses.replace(task.experiment, perceptual=PerceptualConfig("builtin:scene_reader"))
    seeing = Autoencode(experiment)
    assert seeing.metadata["frozen"]["perceptual"]["features"] == "builtin:scene_reader"
    assert len(seeing.metadata["frozen"]["perceptual"]["sha256"]) == 64
    distance, frozen = jax.jit(seeing.perceptual.distance), seeing.frozen.load()["perceptual"]
    images = pixels_from_bytes(task.pictures.first("holdout", 4))
    assert not distance(frozen, images, images).any()
    near, far = distance(frozen, images, 0.98 * images), distance(frozen, images, images[::-1])
    assert (near < far).all() and (far < 12).all()


def test_flops_are_those_of_the_program(task):
    shapes = {name: jax.ShapeDtypeStruct((1, *s.shape[1:]), s.dtype) for name, s in task.batch_shapes.items()}

    def step(params, batch):
        return jax.value_and_grad(lambda p: task.loss(p, {}, batch, jax.random.key(0))[0])(params)

    counted = flops(jax.make_jaxpr(step)(task.shapes, shapes).jaxpr)
    # No gradient with respect to pixels is needed, that is to the first layer's input.
    assert 0.9 * task.flops_per_example < counted <= task.flops_per_example


@pytest.fixture
def few_pictures(monkeypatch):
    monkeypatch.setattr(Pictures, "first", functools.partialmethod(first, 64))


def first(pictures, at_most: int, split: str, count: int):
    return np.stack([render_image(sample_spec(1, i, split), pictures.config.image_size) for i in range(at_most)])


def test_an_exported_variational_autoencoder_is_a_picture_space(task, one_device, tmp_path, few_pictures):
    task.export(one_device[1].params, tmp_path / "ours.safetensors")
    space = PictureSpace(SpaceConfig(str(tmp_path / "ours.safetensors"), patch=1))
    moments = np.asarray(jax.jit(space.moments)(space.load(), task.pictures.first("train", 64)))
    assert space.variational and moments.shape == (64, 2, 2, 8) and space.features == 4
    second = (moments[..., :4] ** 2 + np.exp(moments[..., 4:])).mean(axis=(0, 1, 2))
    np.testing.assert_allclose(second, 1, atol=0.15)


def test_an_exported_kl_is_a_folder_and_a_picture_space(tmp_path, few_pictures):
    values = VALUES | {"task": "autoencode_kl", "model": KL}
    task = AutoencodeKL(build(AutoencodeKLExperiment, values))
    params = jax.jit(task.init)(jax.random.key(0))
    task.export(params, tmp_path / "kl")
    space = PictureSpace(SpaceConfig(str(tmp_path / "kl"), patch=2))
    loaded = space.load()
    jax.tree.map(np.testing.assert_array_equal, loaded["weights"], params["autoencoder"])
    moments = np.asarray(jax.jit(space.moments)(loaded, task.pictures.first("train", 64)))
    assert moments.shape == (64, 8, 8, 8) and space.grid == 4 and space.features == 16
    second = (moments[..., :4] ** 2 + np.exp(moments[..., 4:])).mean(axis=(0, 1, 2))
    np.testing.assert_allclose(second, 1, atol=0.15)


def test_photos_come_from_records(tmp_path):
    prepare("scenes:24", tmp_path / "records", size=32, progress=False)
    task = Autoencode(experiment(data={"source": str(tmp_path / "records"), "batch_size": 4, "image_size": 16}))
    stream = task.batches(3)
    batch = next(stream)
    stream.close()
    assert batch["image"].shape == (4, 16, 16, 3) and sorted(batch) == ["image", "index", "step"]
    assert (batch["step"] == 3).all() and task.pictures.first("holdout", 3).shape[1:] == (16, 16, 3)


def test_configs_that_cannot_work_are_refused():
    with pytest.raises(ConfigError, match="data.image_size is 20: expected a multiple of 8"):
        experiment(data={"image_size": 20})
    with pytest.raises(ConfigError, match="perceptual.weight must be at least 0"):
        experiment(perceptual={"weight": -1.0})
    with pytest.raises(ConfigError, match="config.optimizer.critic: unknown key"):
        experiment(optimizer={"critic": {}})
    with pytest.raises(ConfigError, match="no such folder"):
        Autoencode(experiment(perceptual={"features": "nowhere"}))

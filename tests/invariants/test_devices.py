"""Invariant 2: N devices equal one: the loss to float tolerance and the data order exactly, every mesh axis in turn."""

import dataclasses
import math

import jax
import numpy as np
import pytest

from fooddit.config import build
from fooddit.data.prepare import prepare
from fooddit.parallel import MeshConfig, batch_sharding, make_mesh
from fooddit.tasks.denoise import Denoise, DenoiseExperiment
from fooddit.training.loop import abstract_state, jit_step
from fooddit.training.optimizer import make_optimizer
from fooddit.training.state import State

ONE = MeshConfig(data=1)
MESHES = [
    *(MeshConfig(data=n) for n in (2, 4, 8)),
    *(MeshConfig(data=1, fsdp=n) for n in (2, 4, 8)),
    *(MeshConfig(data=1, tensor=n) for n in (2, 4, 8)),
    *(MeshConfig(data=1, sequence=n) for n in (2, 4, 8)),
    *(MeshConfig(slice=n) for n in (2, 4)),
    MeshConfig(data=2, fsdp=2, tensor=2),
    MeshConfig(slice=2, data=1, fsdp=2, sequence=2),
    MeshConfig(data=1, fsdp=2, tensor=2, sequence=2),
]
# Stage 2 adds frozen towers, which every mesh holds its part of, references and tokens of pictures.
STAGE_2_MESHES = [MeshConfig(data=8), MeshConfig(data=1, fsdp=8), MeshConfig(data=1, fsdp=2, tensor=2, sequence=2)]
STEPS = 3


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records") / "scenes"
    prepare("scenes:32", folder, size=64, progress=False)
    values = {
        "task": "denoise",
        "data": {"source": str(folder), "batch_size": 16},
        "space": {"patch": 8},
        "model": {"width": 64, "depth": 2, "head_dim": 8},
        "text": {"width": 64, "depth": 1, "head_dim": 8, "length": 32, "vocabulary": 512},
        "objective": {"prediction": "x0"},
        # Small steps: where a gradient is next to nothing Adam makes a step of its rounding.
        "optimizer": {"warmup": 1, "learning_rate": 2e-4},
    }
    return Denoise(build(DenoiseExperiment, values), folder.parent)


@pytest.fixture(scope="module")
def stage_2(tmp_path_factory):
    from configs.stage2 import get_config

    config, folder = get_config("tiny"), tmp_path_factory.mktemp("styles")
    prepare("styles:32", folder / "records", size=64, progress=False)
    config.data.source, config.data.batch_size = str(folder / "records"), 16
    config.optimizer.learning_rate, config.optimizer.warmup, config.model.head_dim = 2e-4, 1, 8
    return Denoise(build(DenoiseExperiment, config.to_dict()), folder)


def mesh_of(config: MeshConfig) -> jax.sharding.Mesh:
    """Over as many devices as it asks for; all eight where it leaves the number open."""
    count = math.prod(dataclasses.astuple(dataclasses.replace(config, slice=max(config.slice, 1))))
    return make_mesh(config, jax.devices()[: count if count > 0 else None])


def start(task, config: MeshConfig) -> State:
    """The first state, made in place on the mesh as the loop makes it."""
    mesh = mesh_of(config)
    optimizer = make_optimizer(task.experiment.optimizer, 10, task.axes)

    def make(key):
        params = task.init(key)
        return State(jax.numpy.zeros((), jax.numpy.int32), params, optimizer.init(params))

    return jax.jit(make, out_shardings=shardings_of(abstract_state(task, optimizer, mesh)))(jax.random.key(0))


def shardings_of(tree):
    return jax.tree.map(lambda leaf: leaf.sharding, tree)


def draw(task, hosts: int) -> list[dict[str, np.ndarray]]:
    """The first global batches as `hosts` processes would draw them, each its own rows."""
    streams = [task.batches(0, rows) for rows in np.split(np.arange(task.experiment.data.batch_size), hosts)]
    steps = [[next(stream) for stream in streams] for _ in range(STEPS)]
    for stream in streams:
        stream.close()
    return [{name: np.concatenate([part[name] for part in parts]) for name in parts[0]} for parts in steps]


def train(task, config: MeshConfig, state: State, batches) -> tuple[list[float], State]:
    """Losses of the loop's own step for each batch, and the last state."""
    mesh = mesh_of(config)
    optimizer = make_optimizer(task.experiment.optimizer, 10, task.axes)
    abstract = abstract_state(task, optimizer, mesh)
    encode, step = jax.jit(task.device_batch), jit_step(task, task.experiment, optimizer, abstract)
    state, losses = jax.device_put(state, shardings_of(abstract)), []
    frozen = task.frozen.load(mesh)
    with jax.set_mesh(mesh):
        for batch in batches:
            state, metrics = step(state, frozen, encode(frozen, jax.device_put(batch, batch_sharding(mesh))))
            losses.append(float(metrics["loss"]))
    assert shardings_of(state) == shardings_of(abstract)
    return losses, state


@pytest.fixture(scope="module")
def batches(task):
    return draw(task, hosts=1)


@pytest.fixture(scope="module")
def first(task):
    return jax.device_get(start(task, ONE))


@pytest.fixture(scope="module")
def one_device(task, first, batches):
    return train(task, ONE, first, batches)


@pytest.mark.parametrize("config", MESHES, ids=lambda c: "x".join(map(str, dataclasses.astuple(c))))
def test_a_mesh_equals_one_device(task, first, batches, one_device, config):
    losses, state = train(task, config, first, batches)
    same_course((losses, state), one_device)
    sharded = [leaf for leaf in jax.tree.leaves(state.params) if not leaf.sharding.is_fully_replicated]
    assert bool(sharded) == (max(config.fsdp, config.tensor, config.sequence) > 1)


def same_course(found, expected) -> None:
    """Losses and parameters of two runs, to float tolerance; a run that learns nothing proves nothing."""
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5)
    assert found[0][0] != found[0][-1]
    for a, b in zip(jax.tree.leaves(found[1].params), jax.tree.leaves(expected[1].params), strict=True):
        np.testing.assert_allclose(a, b, atol=5e-5)


@pytest.fixture(scope="module")
def stage_2_on_one_device(stage_2):
    first, batches = jax.device_get(start(stage_2, ONE)), draw(stage_2, hosts=1)
    return first, batches, train(stage_2, ONE, first, batches)


@pytest.mark.parametrize("config", STAGE_2_MESHES, ids=lambda c: "x".join(map(str, dataclasses.astuple(c))))
def test_stage_2_on_a_mesh_equals_one_device(stage_2, stage_2_on_one_device, config):
    first, batches, expected = stage_2_on_one_device
    assert "reference" in batches[0] and set(stage_2.frozen.shapes) >= {"t5", "eclip"}
    same_course(train(stage_2, config, first, batches), expected)


@pytest.mark.parametrize("hosts", [2, 8])
def test_stage_2_draws_the_same_references_for_any_number_of_hosts(stage_2, stage_2_on_one_device, hosts):
    for found, expected in zip(draw(stage_2, hosts), stage_2_on_one_device[1], strict=True):
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.mark.parametrize("hosts", [2, 4, 8])
def test_the_data_order_does_not_depend_on_the_number_of_hosts(task, batches, hosts):
    for found, expected in zip(draw(task, hosts), batches, strict=True):
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value, err_msg=name)
    # Rows lie on the devices in the order of the global batch: device i of n holds the i-th slice, as host i drew it.
    mesh = make_mesh(MeshConfig(data=hosts), jax.devices()[:hosts])
    placed = jax.device_put(batches[0]["record"], batch_sharding(mesh))
    slices = [np.asarray(shard.data) for shard in sorted(placed.addressable_shards, key=lambda s: s.device.id)]
    np.testing.assert_array_equal(np.concatenate(slices), batches[0]["record"])


def test_a_sharded_start_has_the_bits_of_one_device(task, first):
    made = start(task, MeshConfig(data=2, fsdp=2, tensor=2))
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(made), first)


def test_the_average_is_sharded_as_the_parameters_are(task):
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    state = abstract_state(task, make_optimizer(task.experiment.optimizer, 10, task.axes), mesh)
    assert shardings_of(state.params) == shardings_of(state.opt_state["ema"].params)


def test_a_mesh_that_does_not_fit_the_devices_is_refused():
    with pytest.raises(ValueError, match="does not fit; found 8"):
        make_mesh(MeshConfig(data=2, fsdp=3))

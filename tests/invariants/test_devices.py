"""Invariant 2: N devices equal one: the loss to float tolerance and the data order exactly, every mesh axis in turn."""

import dataclasses

import jax
import numpy as np
import pytest

from fooddit.config import build
from fooddit.data.prepare import prepare
from fooddit.parallel import MeshConfig, batch_sharding, make_mesh
from fooddit.tasks.denoise import Denoise, DenoiseExperiment
from fooddit.training.loop import abstract_state
from fooddit.training.optimizer import make_optimizer
from fooddit.training.state import State
from fooddit.training.step import make_step

MESHES = [
    *(MeshConfig(data=n) for n in (2, 4, 8)),
    *(MeshConfig(data=1, fsdp=n) for n in (2, 4, 8)),
    *(MeshConfig(data=1, tensor=n) for n in (2, 4, 8)),
    MeshConfig(data=2, fsdp=2, tensor=2),
]
STEPS = 3


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records") / "scenes"
    prepare("scenes:32", folder, size=64, progress=False)
    values = {
        "task": "denoise",
        "data": {"source": str(folder), "batch_size": 16, "text_length": 32},
        "space": {"patch": 8},
        "model": {"width": 64, "depth": 2, "head_dim": 8},
        "text": {"width": 64, "depth": 1, "head_dim": 8, "length": 32, "vocabulary": 512},
        "objective": {"prediction": "x0"},
        "optimizer": {"warmup": 1},
    }
    return Denoise(build(DenoiseExperiment, values), folder.parent)


def train(task, mesh_config: MeshConfig) -> tuple[list[float], list[list[int]], State]:
    count = int(np.prod([size for size in dataclasses.astuple(mesh_config)]))
    mesh = make_mesh(mesh_config, jax.devices()[:count])
    optimizer = make_optimizer(task.experiment.optimizer, 10, task.axes)
    shardings = jax.tree.map(lambda s: s.sharding, abstract_state(task, optimizer, mesh))

    def start(key):
        params = task.init(key)
        return State(jax.numpy.zeros((), jax.numpy.int32), params, optimizer.init(params))

    state = jax.jit(start, out_shardings=shardings)(jax.random.key(0))
    step = jax.jit(make_step(task.loss, optimizer, seed=0))
    batches = task.batches(0, (0, 1))
    losses, records = [], []
    for _ in range(STEPS):
        batch = next(batches)
        records.append(batch["record"].tolist())
        placed = {name: jax.device_put(value, batch_sharding(mesh)) for name, value in batch.items()}
        state, metrics = step(state, {}, task.device_batch({}, placed))
        losses.append(float(metrics["loss"]))
    batches.close()
    return losses, records, state


@pytest.fixture(scope="module")
def one_device(task):
    return train(task, MeshConfig(data=1))


@pytest.mark.parametrize("config", MESHES, ids=lambda c: "x".join(map(str, dataclasses.astuple(c))))
def test_a_mesh_equals_one_device(task, one_device, config):
    losses, records, state = train(task, config)
    assert records == one_device[1]
    np.testing.assert_allclose(losses, one_device[0], rtol=1e-5)
    assert losses[0] != losses[-1]
    sharded = [leaf for leaf in jax.tree.leaves(state.params) if not leaf.sharding.is_fully_replicated]
    assert bool(sharded) == (config.fsdp > 1 or config.tensor > 1)


def test_the_average_is_sharded_as_the_parameters_are(task):
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    state = abstract_state(task, make_optimizer(task.experiment.optimizer, 10, task.axes), mesh)
    same = jax.tree.map(lambda a, b: a.sharding == b.sharding, state.params, state.opt_state["ema"].params)
    assert all(jax.tree.leaves(same))


def test_a_mesh_that_does_not_fit_the_devices_is_refused():
    with pytest.raises(ValueError, match="needs 6 devices, found 8"):
        make_mesh(MeshConfig(data=2, fsdp=3))

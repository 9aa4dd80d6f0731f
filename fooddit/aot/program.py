"""The program of a run, traced for a topology with shapes alone: the train step, or the sampler."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from fooddit.aot.operations import flops
from fooddit.aot.topology import Topology
from fooddit.config import ConfigError
from fooddit.models.drawing import Artist
from fooddit.parallel import batch_sharding, batch_shares, make_mesh, parameter_shardings
from fooddit.tasks import step_class
from fooddit.training.loop import abstract_state, jit_step
from fooddit.training.optimizer import make_optimizer


class Program(NamedTuple):
    """A traced program: `compile()` makes its executable.

    examples: of one run of it. model_flops: analytic, of one run on all devices, nothing recomputed.
    """

    what: str
    traced: Any
    mesh: jax.sharding.Mesh
    examples: int
    model_flops: float

    def compile(self, dump: Path | None = None):
        """The executable (jax.stages.Compiled); the compiler writes what `read_dump` reads into `dump`, a folder.

        An executable so compiled holds the folder's name.
        """
        options = {"xla_dump_to": str(dump), "xla_dump_hlo_as_text": True} if dump else None
        with jax.set_mesh(self.mesh):
            return self.traced.lower().compile(options)


def train_step(experiment, topology: Topology, *, cached: bool = False) -> Program:
    """The step that `main.py` runs, on the mesh of the config, with the frozen encoders before it where there are any.

    `cached`: latents and features of captions come from a cache, and their encoders are not in memory.

    Raises:
      ConfigError: a mesh or a batch that the topology's devices cannot share; a task that reads no cache.
    """
    mesh = _mesh(experiment, topology)
    task = step_class(experiment.task)(experiment)
    if cached and not hasattr(task, "cached_batch_shapes"):
        raise ConfigError(f"--cached: the task {experiment.task!r} reads no cache of features")
    examples = experiment.data.batch_size
    with jax.set_mesh(mesh):
        optimizer = make_optimizer(experiment.optimizer, experiment.train.steps, task.axes)
        state = abstract_state(task, optimizer, mesh)
        frozen = _placed(task.frozen.shapes, task.frozen.shardings(mesh))
        rows = _rows(mesh, examples)
        step = jit_step(task, experiment, optimizer, state)
        batch = task.cached_batch_shapes if cached else task.batch_shapes
        if jax.tree.leaves(frozen):
            # A run has two programs, that the encoders may take pictures of several shapes. Both share the memory.
            step = jax.jit(_after_encoding(task, step), donate_argnums=0)
        else:
            batch = jax.eval_shape(task.device_batch, frozen, batch)
        traced = step.trace(state, frozen, _shapes(batch, rows))
    return Program("train step", traced, mesh, examples, task.flops_per_example * examples)


def sampler(experiment, topology: Topology, batch_size: int) -> Program:
    """The sampler that draws `batch_size` pictures on all devices, with the config's steps and guidance.

    Raises:
      ConfigError: an experiment that draws nothing, a mesh or a batch that the devices cannot share.
    """
    if not hasattr(experiment, "sampling"):
        raise ConfigError(f"--generate: the task {experiment.task!r} draws no pictures")
    mesh = _mesh(experiment, topology)
    task = step_class(experiment.task)(experiment)
    size = experiment.data.image_size
    with jax.set_mesh(mesh):
        artist = Artist(experiment, task.space, task.reader, (size, size))
        params = _placed(task.shapes, parameter_shardings(mesh, task.shapes, task.axes))
        frozen = _placed(task.frozen.shapes, task.frozen.shardings(mesh))
        rows = _rows(mesh, batch_size)
        traced = artist.trace(params, frozen, _shapes(artist.batch_shapes(batch_size), rows))
    # A forward pass recomputes nothing: all of its FLOPs are the model's.
    return Program("sampler", traced, mesh, batch_size, flops(traced.jaxpr.jaxpr))


def with_attention(experiment, implementation: str):
    """The experiment with another implementation of attention ("xla": plain, for comparison)."""
    if not hasattr(experiment.model, "attention"):
        raise ConfigError(f"--attention: the model of the task {experiment.task!r} has none")
    return dataclasses.replace(experiment, model=dataclasses.replace(experiment.model, attention=implementation))


def _after_encoding(task, step):
    def run(state, frozen, batch):
        return step(state, frozen, task.device_batch(frozen, batch))

    return run


def _mesh(experiment, topology: Topology):
    config = dataclasses.replace(experiment.mesh, slice=experiment.mesh.slice or topology.slices)
    try:
        return make_mesh(config, topology.devices)
    except ValueError as error:
        raise ConfigError(f"{topology}: {error}") from error


def _rows(mesh, examples: int) -> NamedSharding:
    if examples % batch_shares(mesh):
        raise ConfigError(
            f"{examples} examples cannot be shared evenly by {batch_shares(mesh)} devices (config.mesh: slice times "
            "data times fsdp); give a multiple"
        )
    return batch_sharding(mesh)


def _shapes(tree, sharding: NamedSharding):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x), x.dtype, sharding=sharding), tree)


def _placed(shapes, shardings):
    return jax.tree.map(lambda s, d: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=d), shapes, shardings)

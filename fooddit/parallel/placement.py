"""Between host and devices where a run has several processes: which rows a process holds, and arrays from and to it."""

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fooddit.config import ConfigError
from fooddit.parallel.rules import batch_sharding, batch_shares


def local_rows(mesh: Mesh | None, batch_size: int) -> np.ndarray:
    """Numbers of the rows of a global batch that this process's devices hold, in order; all of them without a mesh.

    Processes whose devices differ only along tensor or sequence hold the same rows.

    Raises:
      ConfigError: a batch that the devices cannot share evenly.
    """
    if mesh is None or mesh.empty:
        return np.arange(batch_size)
    if batch_size % batch_shares(mesh):
        raise ConfigError(
            f"config.data.batch_size: {batch_size} examples cannot be shared evenly by {batch_shares(mesh)} devices "
            "(config.mesh: slice times data times fsdp); give a multiple"
        )
    parts = batch_sharding(mesh).addressable_devices_indices_map((batch_size,)).values()
    return np.unique(np.concatenate([np.arange(batch_size)[part] for part in parts]))


def place_rows(
    mesh: Mesh | None, batch_size: int, rows: np.ndarray, batch: dict[str, np.ndarray]
) -> dict[str, jax.Array]:
    """A global batch on the devices, from the `local_rows` of each array that this process has."""
    if mesh is None or mesh.empty:
        return batch
    sharding = batch_sharding(mesh)

    def place(array: np.ndarray) -> jax.Array:
        # A device's rows are a run of the global batch, and so of this process's sorted ones.
        def of_device(index):
            numbers = range(*index[0].indices(batch_size))
            first = int(np.searchsorted(rows, numbers[0]))
            return array[first : first + len(numbers)]

        return jax.make_array_from_callback((batch_size, *array.shape[1:]), sharding, of_device)

    return {name: place(array) for name, array in batch.items()}


def place_whole(array: jax.Array | np.ndarray, sharding: NamedSharding) -> jax.Array:
    """An array that every process has whole, laid out: each puts what its devices hold. (jax.device_put would gather
    all processes' copies of it, to compare them.)"""
    if isinstance(array, jax.Array):
        return jax.device_put(array, sharding)
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def replicate(x):
    """Under jit: a tree of arrays whole on every device of the mesh in context, so that any process can read it."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return x
    return jax.tree.map(lambda leaf: jax.lax.with_sharding_constraint(leaf, PartitionSpec()), x)


def whole(tree):
    """A tree of arrays on the host, all of each; with several processes all of them call it, with the same tree.

    One array at a time is gathered on the devices.
    """
    return jax.tree.map(_whole, tree)


def _whole(leaf) -> np.ndarray:
    if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
        leaf = jax.jit(lambda x: x, out_shardings=NamedSharding(leaf.sharding.mesh, PartitionSpec()))(leaf)
    return np.asarray(leaf)

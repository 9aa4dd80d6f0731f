"""A Pallas TPU kernel on a mesh: XLA cannot split it, so that each device runs it on its examples and heads."""

import math
from collections.abc import Callable

import jax
from jax.sharding import PartitionSpec
from jaxtyping import Array

from fooddit.kernels.dispatch import Target, Unsupported
from fooddit.kernels.tpu_layout import BLOCKS
from fooddit.parallel.hardware import accelerator


def on_each_device(
    kernel: Callable[..., Array],
    *,
    queries: dict[str, Array],
    keys: dict[str, Array],
    batched: dict[str, Array | None],
    whole: dict[str, Array],
    num_heads: int,
    partition: PartitionSpec | None,
) -> Array:
    """kernel(**arrays, num_heads=) -> (batch, tokens, width), under shard_map where the mesh in context has several
    devices.

    queries: (batch, tokens, width) arrays, laid out as `partition` says. keys: others that each query needs all tokens
    of, so that only the batch and the width are cut. batched: arrays whose first dimension is the
    batch, the rest whole; None stays None. whole: the same on all devices.

    Raises:
      Unsupported: a mesh of several devices without a `partition`.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1 or mesh.are_all_axes_manual:
        return kernel(**queries, **keys, **batched, **whole, num_heads=num_heads)
    if partition is None:
        raise Unsupported(f"the mesh in context has {mesh.size} devices: `partition` must say how the arrays lie on it")
    rows, tokens, lanes = (*partition, None, None, None)[:3]
    query_spec, key_spec = PartitionSpec(rows, tokens, lanes), PartitionSpec(rows, None, lanes)
    shares = math.prod(mesh.shape[axis] for axis in ((lanes,) if isinstance(lanes, str) else lanes or ()))
    given = {name: array for name, array in batched.items() if array is not None}
    arrays = (queries, keys, given, whole)
    specs = map(dict.fromkeys, arrays, (query_spec, key_spec, PartitionSpec(rows), PartitionSpec()))

    def local(queries, keys, batched, whole):
        return kernel(**queries, **keys, **batched, **whole, num_heads=num_heads // shares)

    # Pallas does not say which mesh axes its results vary over, so that shard_map cannot check it.
    return jax.shard_map(local, in_specs=tuple(specs), out_specs=query_spec, check_vma=False)(*arrays)


def tpu_generation(where: Target) -> str:
    """The name in the table of block sizes. Unsupported for what is no TPU, or has no entry."""
    if where.platform != "tpu":
        raise Unsupported(f"needs a TPU, the computation is for {where.kind}")
    known = accelerator(where.kind)
    if known is None or known.name not in BLOCKS:
        raise Unsupported(f"{where.kind} has no block sizes; known are {', '.join(BLOCKS)}")
    return known.name

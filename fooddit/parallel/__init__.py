"""Meshes and the table from logical axes to mesh axes."""

from fooddit.parallel.mesh import MeshConfig, make_mesh
from fooddit.parallel.rules import (
    batch_sharding,
    batch_shares,
    parameter_shardings,
    shard_batch,
    shard_tokens,
    state_shardings,
)

__all__ = [
    "MeshConfig",
    "batch_sharding",
    "batch_shares",
    "make_mesh",
    "parameter_shardings",
    "shard_batch",
    "shard_tokens",
    "state_shardings",
]

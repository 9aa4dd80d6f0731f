"""From logical axis names to mesh axes: one table for parameters, state and batches."""

import math

import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from fooddit.config import ConfigError
from fooddit.parallel.mesh import AXES

# What is laid out by name, and the mesh axes that cut it. The residual stream's width goes over fsdp; what a matrix
# product can split without a reduction, over tensor. Parameters are cut over sequence, too: all devices share them.
RULES = {
    "batch": ("slice", "data", "fsdp"),
    "tokens": ("sequence",),
    "embed": ("fsdp", "sequence"),
    "mlp": ("tensor",),
    "heads": ("tensor",),
    # Self-attention's, whose tokens are whole: an all-to-all exchanges one for the other.
    "heads_of_all_tokens": ("tensor", "sequence"),
    "vocab": ("tensor",),
    "layers": (),
    "head_dim": (),
    "features": (),
    # The width of what a text tower gives: one that grows, unlike "features", and is whole on every device.
    "context": (),
}
# Below this many values a parameter that names no axes is cheaper replicated than gathered.
FSDP_MINIMUM = 2**16


def parameter_sharding(mesh: Mesh, shape: tuple[int, ...], axes: tuple[str, ...] | None) -> NamedSharding:
    """The sharding of one parameter: by its logical axes, or the largest divisible dimension as "embed".

    A dimension is cut by as many of its mesh axes as divide it, the first ones first. `axes` names the trailing
    dimensions; leading ones (the stack of scanned blocks) are "layers".
    """
    if axes is None:
        return NamedSharding(mesh, _largest_dimension(mesh, shape))
    unknown = set(axes) - set(RULES)
    if unknown:
        raise ValueError(f"logical axes {sorted(unknown)} are not in the table; known: {sorted(RULES)}")
    names = ("layers",) * (len(shape) - len(axes)) + tuple(axes)
    return NamedSharding(mesh, _partition(mesh, shape, names))


def parameter_shardings(mesh: Mesh, shapes, axes):
    """A tree of shardings for a tree of ShapeDtypeStructs and the same tree of logical axes (tuples or None)."""
    flat, treedef = jax.tree.flatten(shapes)
    return treedef.unflatten(parameter_sharding(mesh, s.shape, a) for s, a in zip(flat, treedef.flatten_up_to(axes)))


def state_shardings(mesh: Mesh, state_shapes, params_shardings):
    """Shardings of a training state: an optimizer's leaf that mirrors a parameter (same path tail) follows it."""
    by_path = {_names(path): s for path, s in jax.tree.leaves_with_path(params_shardings)}
    longest = max(len(path) for path in by_path)

    def follow(path, leaf):
        names = _names(path)
        for length in range(min(longest, len(names)), 0, -1):
            match = by_path.get(names[-length:])
            if match is not None and len(match.spec) <= len(leaf.shape):
                return match
        return NamedSharding(mesh, PartitionSpec())

    return jax.tree.map_with_path(follow, state_shapes)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The leading dimension over every data-parallel axis, the rest whole."""
    return NamedSharding(mesh, PartitionSpec(RULES["batch"]))


def batch_shares(mesh: Mesh | AbstractMesh) -> int:
    """How many parts `batch_sharding` cuts a batch into."""
    return math.prod(mesh.shape[axis] for axis in RULES["batch"])


def shard_batch(x: jax.Array) -> jax.Array:
    """x with its first dimension over every data-parallel axis of the mesh in context (`jax.set_mesh`), if they divide
    it. Without being told, XLA lets activations follow the parameters' fsdp sharding and sums them over it."""
    return _constrain(x, ("batch", *("features",) * (x.ndim - 1)))


def shard_tokens(x: jax.Array) -> jax.Array:
    """(batch, tokens, ...) as `shard_batch` lays it out, and the tokens over the sequence axis."""
    return _constrain(x, ("batch", "tokens", *("features",) * (x.ndim - 2)))


def shard_heads(x: jax.Array, num_heads: int) -> jax.Array:
    """(batch, tokens, heads * head_dim) with all tokens on each device and the heads cut instead, for self-attention.

    `shard_tokens_of_heads` leads back; each is an all-to-all (Jacobs et al. 2023, DeepSpeed Ulysses, arXiv:2309.14509).
    """
    return _lay(x, self_attention_partition(x.shape[0], num_heads))


def shard_tokens_of_heads(x: jax.Array, num_heads: int) -> jax.Array:
    """(batch, tokens, heads * head_dim) with the tokens over the sequence axis and the heads over tensor."""
    return _lay(x, cross_attention_partition(*x.shape[:2], num_heads))


def self_attention_partition(batch: int, num_heads: int) -> PartitionSpec | None:
    """How self-attention's (batch, tokens, heads * head_dim) lies on the mesh in context; None without one.

    Raises:
      ConfigError: a sequence axis that does not divide the heads.
    """
    mesh = _mesh_in_context()
    if mesh is None:
        return None
    ways = mesh.shape["tensor"] * mesh.shape["sequence"]
    if mesh.shape["sequence"] > 1 and num_heads % ways:
        raise ConfigError(
            f"config.mesh.sequence: found {mesh.shape['sequence']} (times tensor {mesh.shape['tensor']}), expected a "
            f"divisor of the {num_heads} heads: self-attention exchanges tokens for heads"
        )
    return _partition(mesh, (batch, 1, num_heads), ("batch", "features", "heads_of_all_tokens"))


def cross_attention_partition(batch: int, tokens: int, num_heads: int) -> PartitionSpec | None:
    """How cross-attention's queries, (batch, tokens, heads * head_dim), lie on the mesh in context; None without one.
    Keys and values lie so too, but with all their tokens."""
    mesh = _mesh_in_context()
    return None if mesh is None else _partition(mesh, (batch, tokens, num_heads), ("batch", "tokens", "heads"))


def _mesh_in_context() -> AbstractMesh | None:
    mesh = jax.sharding.get_abstract_mesh()
    return None if mesh.empty or not set(mesh.axis_names) >= set(AXES) else mesh


def _constrain(x: jax.Array, names: tuple[str, ...]) -> jax.Array:
    mesh = _mesh_in_context()
    return x if mesh is None else _lay(x, _partition(mesh, x.shape, names))


def _lay(x: jax.Array, partition: PartitionSpec | None) -> jax.Array:
    alone = partition is None or jax.sharding.get_abstract_mesh().size == 1
    return x if alone else jax.lax.with_sharding_constraint(x, partition)


def _partition(mesh: Mesh | AbstractMesh, shape, names) -> PartitionSpec:
    used: set[str] = set()
    spec = [_axes_that_divide(mesh, size, RULES[name], used) for size, name in zip(shape, names)]
    return PartitionSpec(*spec)


def _axes_that_divide(mesh, size: int, axes, used: set[str]) -> tuple[str, ...] | str | None:
    """The first of `axes` that together divide `size`, as a PartitionSpec has them; they are then `used`."""
    taken: tuple[str, ...] = ()
    for axis in axes:
        if axis in used or mesh.shape[axis] == 1:
            continue
        if size % math.prod(mesh.shape[a] for a in (*taken, axis)):
            break
        taken += (axis,)
    used.update(taken)
    return taken if len(taken) > 1 else taken[0] if taken else None


def _largest_dimension(mesh: Mesh, shape) -> PartitionSpec:
    if math.prod(shape) < FSDP_MINIMUM:
        return PartitionSpec()
    for i in sorted(range(len(shape)), key=lambda i: -shape[i]):
        if axes := _axes_that_divide(mesh, shape[i], RULES["embed"], set()):
            return PartitionSpec(*(axes if j == i else None for j in range(len(shape))))
    return PartitionSpec()


def _names(path) -> tuple[str, ...]:
    return tuple(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path)

"""From logical axis names to mesh axes: one table for parameters, state and batches."""

import math

import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from fooddit.parallel.mesh import AXES

# The residual stream's width goes over fsdp; what a matrix product can split without a reduction, over tensor.
RULES = {
    "batch": ("data", "fsdp"),
    "embed": ("fsdp",),
    "mlp": ("tensor",),
    "heads": ("tensor",),
    "vocab": ("tensor",),
    "layers": (),
    "head_dim": (),
    "features": (),
}
# Below this many values a parameter that names no axes is cheaper replicated than gathered.
FSDP_MINIMUM = 2**16


def parameter_sharding(mesh: Mesh, shape: tuple[int, ...], axes: tuple[str, ...] | None) -> NamedSharding:
    """The sharding of one parameter: by its logical axes, or the largest divisible dimension over fsdp.

    A dimension that its mesh axes do not divide stays whole. `axes` names the trailing dimensions; leading ones (the
    stack of scanned blocks) are "layers".
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


def shard_batch(x: jax.Array) -> jax.Array:
    """x with its first dimension over every data-parallel axis of the mesh in context (`jax.set_mesh`), if they divide
    it. Without being told, XLA lets activations follow the parameters' fsdp sharding and sums them over it."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1 or not set(mesh.axis_names) >= set(AXES):
        return x
    rows = _partition(mesh, x.shape[:1], ("batch",))
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*rows, *(None,) * (x.ndim - 1)))


def activation_partition(batch: int, num_heads: int) -> PartitionSpec | None:
    """How (batch, tokens, heads * head_dim) arrays lie on the mesh in context (`jax.set_mesh`); None without one."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or not set(mesh.axis_names) >= set(AXES):
        return None
    return _partition(mesh, (batch, 1, num_heads), ("batch", "features", "heads"))


def _partition(mesh: Mesh | AbstractMesh, shape, names) -> PartitionSpec:
    used, spec = set(), []
    for size, name in zip(shape, names):
        wanted = tuple(a for a in RULES[name] if a not in used and mesh.shape[a] > 1)
        if wanted and size % math.prod(mesh.shape[a] for a in wanted) == 0:
            used.update(wanted)
            spec.append(wanted if len(wanted) > 1 else wanted[0])
        else:
            spec.append(None)
    return PartitionSpec(*spec)


def _largest_dimension(mesh: Mesh, shape) -> PartitionSpec:
    count = mesh.shape["fsdp"]
    divisible = [i for i, size in enumerate(shape) if size % count == 0]
    if count == 1 or math.prod(shape) < FSDP_MINIMUM or not divisible:
        return PartitionSpec()
    largest = max(divisible, key=lambda i: shape[i])
    return PartitionSpec(*("fsdp" if i == largest else None for i in range(len(shape))))


def _names(path) -> tuple[str, ...]:
    return tuple(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path)

"""Between NNX modules and the plain trees of arrays that the rest of the code moves about."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from flax import nnx


class Definition(NamedTuple):
    """A model without its arrays.

    Attributes:
      init: key -> nested dict of arrays (jit it with out_shardings: nothing is then made on one device).
      shapes: the same tree of ShapeDtypeStructs.
      axes: the same tree of logical axis names, a tuple for each parameter (`parallel.rules` maps them to the mesh).
      bind: nested dict of arrays -> the module, ready to call.
    """

    init: Callable[[jax.Array], dict]
    shapes: dict
    axes: dict
    bind: Callable[[dict], Any]


def define(make: Callable[[nnx.Rngs], nnx.Module]) -> Definition:
    """Splits a module's constructor into a pure init function and a static graph."""
    graph, state = nnx.split(nnx.eval_shape(lambda: make(nnx.Rngs(0))))
    axes: dict = {}
    for path, variable in nnx.to_flat_state(state):
        node = axes
        for name in path[:-1]:
            node = node.setdefault(name, {})
        node[path[-1]] = variable.get_metadata().get("axes")
    return Definition(
        init=lambda key: nnx.to_pure_dict(nnx.state(make(nnx.Rngs(key)))),
        shapes=nnx.to_pure_dict(state),
        axes=axes,
        bind=lambda params: nnx.merge(graph, params),
    )


def stack(make: Callable[[nnx.Rngs], nnx.Module], depth: int, rngs: nnx.Rngs) -> nnx.Module:
    """`depth` copies of a block with their parameters stacked along a leading axis, for `jax.lax.scan`."""
    graph = nnx.graphdef(nnx.eval_shape(lambda: make(nnx.Rngs(0))))
    keys = jax.random.split(rngs.params(), depth)
    return nnx.merge(graph, jax.vmap(lambda key: nnx.state(make(nnx.Rngs(key))))(keys))


def count(params) -> int:
    """Number of values in a tree of arrays or shapes."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))

"""How cross-attention is cut for a TPU: which blocks, and where they lie in the arrays."""

from typing import Any, NamedTuple

import jax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array

from fooddit.kernels.tpu_common import LANES, MOST_GROUPED, largest_divisor

# What a grid step is cut into: a step's queries, its logits, and the (keys, queries) weights held at once, which the
# backward pass has more of. Few large steps are best: each begins and ends with work the matrix unit has no part in.
BLOCK, BLOCK_LOGITS, FORWARD_WEIGHTS, BACKWARD_WEIGHTS = 4096, 4 << 20, 2 << 20, 1 << 20
# A grid step takes several times 128 lanes while its logits are no more than these.
GROUPED_LOGITS = 2 << 20


class Layout(NamedTuple):
    """The static half of a call. block: queries a grid step; keys: of each branch; group: how many times 128 lanes a
    grid step takes, one after another in the kernel's text, so that the compiler fills the waits of one with others;
    learned_scale: image_scale gets a gradient; interpret runs on a CPU."""

    num_heads: int
    head_dim: int
    block: int
    keys: tuple[int, ...]
    group: int
    learned_scale: bool
    interpret: bool | pltpu.InterpretParams

    @property
    def heads(self) -> int:
        """In a block of lanes."""
        return LANES // self.head_dim

    def chunks(self, weights: int) -> list[pl.Slice]:
        """A block's queries in pieces of at most `weights` weights."""
        size = even(self.block, weights // sum(self.keys))
        return [pl.ds(first, min(size, self.block - first)) for first in range(0, self.block, size)]

    def rows(self, branch: int) -> pl.Slice:
        """The keys of a branch among those of all."""
        return pl.ds(sum(self.keys[:branch]), self.keys[branch])

    def groups(self, scratch: list[list]) -> list[tuple[int, pl.Slice, list[list]]]:
        """(number, lanes, its part of the scratch memories) of each 128 lanes of a grid step."""
        return [
            (n, pl.ds(n * LANES, LANES), [[memory.at[n] for memory in branch] for branch in scratch])
            for n in range(self.group)
        ]

    def scratch(self, shapes_and_dtypes) -> list[list]:
        """VMEM for each branch; shapes_and_dtypes(keys) are those of 128 lanes."""
        return [
            [pltpu.VMEM((self.group, *shape), dtype) for shape, dtype in shapes_and_dtypes(keys)] for keys in self.keys
        ]

    def name(self, suffix: str) -> str:
        return ("" if len(self.keys) == 1 else "decoupled_") + "cross_attention" + suffix


def layout_for(tokens: int, num_heads: int, head_dim: int, keys: tuple[int, ...], **rest: Any) -> Layout:
    """The blocks for so many queries and keys, the latter multiples of 128; rest: the other fields of `Layout`."""
    block, lanes = even(tokens, min(BLOCK, BLOCK_LOGITS // sum(keys))), num_heads * head_dim // LANES
    group = largest_divisor(lanes, min(GROUPED_LOGITS // (block * sum(keys)), MOST_GROUPED))
    return Layout(num_heads, head_dim, block, keys, group, **rest)


def even(total: int, most: int) -> int:
    """The size of equal pieces of `total` that are multiples of 128, of at most `most` where that allows one."""
    most = max(most // LANES, 1) * LANES
    return pl.cdiv(pl.cdiv(total, pl.cdiv(total, most)), LANES) * LANES


class Specs:
    """The blocks of a (batch, blocks of lanes, blocks of queries) grid."""

    def __init__(self, layout: Layout, scale: Array | None, bias: Array | None):
        gains, keys = (1 + len(layout.keys), LANES), sum(layout.keys)
        group, lanes = layout.group, layout.group * LANES
        self.shared = (
            None if scale is None else pl.BlockSpec(memory_space=pltpu.SMEM),
            pl.BlockSpec(gains, lambda b, h, i: (0, 0)),
            None if bias is None else pl.BlockSpec((1, keys, 1), lambda b, h, i: (b, 0, 0)),
        )
        self.query = pl.BlockSpec((1, layout.block, lanes), lambda b, h, i: (b, i, h))
        self.pairs = tuple((pl.BlockSpec((1, n, lanes), lambda b, h, i: (b, 0, h)),) * 2 for n in layout.keys)
        self.rows = lambda rows: pl.BlockSpec((1, group, rows, layout.block), lambda b, h, i: (b, h, 0, i))
        self.query_gain = pl.BlockSpec((1, group, 1, 1, LANES), lambda b, h, i: (b, h, i, 0, 0))
        self.key_gains = pl.BlockSpec((1, group, len(layout.keys), LANES), lambda b, h, i: (b, h, 0, 0))


def grid(layout: Layout, q: Array) -> tuple[int, int, int]:
    return q.shape[0], q.shape[2] // (layout.group * LANES), q.shape[1] // layout.block


def cost(layout: Layout, q: Array, products: int, arrays) -> pl.CostEstimate:
    """Of `products` matrix products of all queries with all keys, and one pass over a tree of `arrays`."""
    logits = q.shape[0] * q.shape[1] * sum(layout.keys) * layout.num_heads
    return pl.CostEstimate(
        flops=2 * products * logits * layout.head_dim,
        transcendentals=logits,
        bytes_accessed=sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(arrays)),
    )

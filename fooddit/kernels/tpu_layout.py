"""How attention is cut for a TPU: which blocks, for which generation, and where they lie in the arrays."""

from typing import NamedTuple

import jax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from fooddit.kernels.dispatch import Unsupported
from fooddit.kernels.tpu_common import LANES, MOST_GROUPED, largest_divisor

HEAD_DIMS = (LANES, LANES // 2)
# Blocks below this make several times the cycles; more tokens than this are padded so that they have such blocks.
SMALLEST_BLOCK = 512
# Of vector memory, 128 lanes of each token (keys, values, their gradients and the angles twice, and what is gathered)
# and all else. 85 MB were measured for 16,384 tokens.
BYTES_A_TOKEN, BYTES_BESIDES = 4608, 12 << 20
# Of tokens that are normalised and rotated, or led back, at once: smaller pieces wait for one another (v5e's backward
# pass at 4096 tokens: 11.65 million cycles in pieces of 256, 11.39 of 1024, 11.35 of 2048, 11.30 at once).
MOST_PREPARED = 4096
# A grid step takes several times 128 lanes while their tokens are no more than these.
GROUPED_TOKENS = 4096
# By generation: the most queries a grid step and keys a product, forward and backward, and what the kernel may take of
# the vector memory (128 MiB, tpu7x: 64 MiB); and how many channels a matrix unit sums at once.
BLOCKS = {
    "v5e": {"forward": (2048, 2048), "backward": (2048, 2048), "vmem_bytes": 110 << 20, "depth": 128},
    "v5p": {"forward": (2048, 2048), "backward": (2048, 2048), "vmem_bytes": 110 << 20, "depth": 128},
    "v6e": {"forward": (2048, 2048), "backward": (2048, 2048), "vmem_bytes": 110 << 20, "depth": 256},
    "tpu7x": {"forward": (2048, 1024), "backward": (2048, 1024), "vmem_bytes": 60 << 20, "depth": 256},
}


class Blocks(NamedTuple):
    """queries: a grid step's. keys: a product's."""

    queries: int
    keys: int


class Layout(NamedTuple):
    """tokens: with padding. group: how many times 128 lanes a grid step takes, one after another in the kernel's text,
    so that the compiler fills the waits of one with others. interpret runs on a CPU: True, or pltpu.InterpretParams
    for simulated memories."""

    tokens: int
    head_dim: int
    forward: Blocks
    backward: Blocks
    vmem_bytes: int
    depth: int
    group: int
    interpret: bool | pltpu.InterpretParams = False

    @property
    def heads(self) -> int:
        """That share a register's lanes."""
        return LANES // self.head_dim

    @property
    def prepared(self) -> int:
        """Tokens whose keys the backward pass normalises at once."""
        return _largest(self.tokens, MOST_PREPARED)

    def groups(self) -> list[tuple[int, pl.Slice]]:
        """(number, lanes) of each 128 lanes of a grid step."""
        return [(number, pl.ds(number * LANES, LANES)) for number in range(self.group)]


def layout_for(tokens: int, width: int, head_dim: int, generation: str) -> Layout:
    """The blocks for a generation of `BLOCKS`. Unsupported for heads that the kernel is not for."""
    if head_dim not in HEAD_DIMS:
        raise Unsupported(
            f"head_dim {head_dim}: the TPU kernel is for {LANES}, a register's lanes, and {LANES // 2}, "
            "two heads in them"
        )
    if width % LANES:
        raise Unsupported(
            f"{width // head_dim} heads of head_dim {head_dim}: the TPU kernel takes two at once, "
            "so that it needs an even number of them"
        )
    given = BLOCKS[generation]
    limits = given["forward"], given["backward"]
    tokens += -tokens % LANES
    while any(_largest(tokens, limit) < min(tokens, SMALLEST_BLOCK) for pair in limits for limit in pair):
        tokens += LANES
    needed = tokens * BYTES_A_TOKEN + BYTES_BESIDES
    if needed > given["vmem_bytes"]:
        raise Unsupported(
            f"{tokens} tokens: the TPU kernel keeps a head's keys and values in vector memory, which would take "
            f"{needed >> 20} of {generation}'s {given['vmem_bytes'] >> 20} MiB"
        )
    group = largest_divisor(width // LANES, min(GROUPED_TOKENS // tokens, MOST_GROUPED))
    forward, backward = (Blocks(*(_largest(tokens, limit) for limit in pair)) for pair in limits)
    return Layout(tokens, head_dim, forward, backward, given["vmem_bytes"], given["depth"], group)


def _largest(tokens: int, limit: int) -> int:
    """The largest multiple of 128 that divides tokens and is at most `limit`."""
    return max(size for size in range(LANES, limit + 1, LANES) if tokens % size == 0)


class Specs:
    """The blocks of a (batch, 128 lanes of the width, block of queries) grid."""

    def __init__(self, layout: Layout, block: int, positions_differ: bool):
        tokens, half = layout.tokens, layout.head_dim // 2
        row = (lambda b: b) if positions_differ else (lambda b: 0)
        group, lanes = layout.group, layout.group * LANES
        self.query = pl.BlockSpec((1, block, lanes), lambda b, h, i: (b, i, h))
        self.key = pl.BlockSpec((1, tokens, lanes), lambda b, h, i: (b, 0, h))
        self.gain = pl.BlockSpec((layout.head_dim, 1), lambda b, h, i: (0, 0))
        self.query_table = pl.BlockSpec((1, half, block), lambda b, h, i: (row(b), 0, i))
        self.key_table = pl.BlockSpec((1, half, tokens), lambda b, h, i: (row(b), 0, 0))
        self.norm = pl.BlockSpec((1, group, layout.heads, block), lambda b, h, i: (b, h, 0, i))
        self.bias = pl.BlockSpec((1, tokens, 1), lambda b, h, i: (b, 0, 0))
        self.query_gain = pl.BlockSpec((1, group, 1, 1, LANES), lambda b, h, i: (b, h, i, 0, 0))
        self.key_gain = pl.BlockSpec((1, group, 1, LANES), lambda b, h, i: (b, h, 0, 0))

    @property
    def prepared(self) -> list[pl.BlockSpec]:
        """Of q, k, v, the gains of q and k, and cosines and sines of the queries and of the keys."""
        return [self.query, self.key, self.key, self.gain, self.gain, *[self.query_table] * 2, *[self.key_table] * 2]


def call_options(layout: Layout, width: int, batch: int, itemsize: int, *, products: int, arrays: int) -> dict:
    """Of a `pallas_call` that makes `products` products of all queries with all keys, and passes over `arrays` arrays
    of (batch, tokens, width)."""
    size = batch * layout.tokens * width
    return {
        "compiler_params": pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "arbitrary"), vmem_limit_bytes=layout.vmem_bytes
        ),
        "cost_estimate": pl.CostEstimate(
            flops=2 * products * size * layout.tokens,
            transcendentals=size * layout.tokens // layout.head_dim,
            bytes_accessed=arrays * size * itemsize,
        ),
        "interpret": layout.interpret,
    }


def for_chunks(count: int, step, carry):
    """carry = step(i, carry) for i < count, four at a time: unrolled the compiler overlaps them, but its time grows."""
    return jax.lax.fori_loop(0, count, step, carry, unroll=min(count, 4))

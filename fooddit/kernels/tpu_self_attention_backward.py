"""The backward pass of `tpu_self_attention`, one kernel: d_q by blocks of queries, d_k and d_v gathered in VMEM.

The weights are made again from the log-sum that the forward pass kept. Gradients are made transposed, (channels,
tokens): the (keys, queries) array is then what the matrix unit holds, and the norm's and the rotation's way back needs
no lane moved. Flash attention: Dao et al. 2022, arXiv:2205.14135.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float

from fooddit.kernels.tpu_common import LANES, dot
from fooddit.kernels.tpu_heads import only, prepare, prepare_back
from fooddit.kernels.tpu_layout import Layout, Specs, call_options, for_chunks

# Of bfloat16 that hold a float32.
PARTS = 3


def backward(q, k, v, q_gain, k_gain, cos, sin, bias, out, norm, d_out, layout: Layout) -> list[Array]:
    """Gradients of q, k, v and of the gains, each like its array."""
    batch, tokens, width = q.shape
    block, group = layout.backward.queries, layout.group
    specs = Specs(layout, block, cos.shape[0] > 1)
    gains = lambda *blocks: jax.ShapeDtypeStruct((batch, width // LANES, *blocks, 1, LANES), jnp.float32)  # noqa: E731
    d_q, d_k, d_v, *d_gains = pl.pallas_call(
        functools.partial(_backward_kernel, layout=layout, masked=bias is not None),
        grid=(batch, width // (group * LANES), tokens // block),
        in_specs=[*specs.prepared, specs.query, specs.norm, specs.query] + ([] if bias is None else [specs.bias]),
        out_specs=[specs.query, specs.key, specs.key, specs.query_gain, specs.key_gain],
        out_shape=[*(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (q, k, v)), gains(tokens // block), gains()],
        scratch_shapes=[
            pltpu.VMEM((group, tokens, LANES), k.dtype),
            pltpu.VMEM((group, LANES, tokens), k.dtype),
            *[pltpu.VMEM((group, LANES, tokens), jnp.float32)] * 2,
        ],
        name="self_attention_backward",
        **call_options(layout, width, batch, q.dtype.itemsize, products=5, arrays=8),
    )(q, k, v, q_gain, k_gain, cos, sin, cos, sin, out, norm, d_out, *(() if bias is None else (bias,)))
    return d_q, d_k, d_v, *(x.reshape(-1, layout.head_dim).sum(axis=0)[:, None] for x in d_gains)


def _backward_kernel(
    q, k, v, q_gain, k_gain, q_cos, q_sin, k_cos, k_sin, out, norm, d_out, *rest, layout: Layout, masked: bool
):
    bias, rest = (rest[0], rest[1:]) if masked else (None, rest)
    d_q, d_k, d_v, d_q_gain, d_k_gain, *scratch = rest
    q_tables = q_gain[...], q_cos[0], q_sin[0]
    k_tables = k_gain, k_cos.at[0], k_sin.at[0]
    first, last = pl.program_id(2) == 0, pl.program_id(2) == pl.num_programs(2) - 1
    groups = [(group, lanes, _Gathered(*(x.at[group] for x in scratch))) for group, lanes in layout.groups()]

    @pl.when(first)
    def _():
        for _, lanes, gathered in groups:
            _prepare_keys(k.at[0, :, lanes], k_tables, gathered, layout)

    for group, lanes, gathered in groups:
        query, d_value = jnp.transpose(q[0, :, lanes]), jnp.transpose(d_out[0, :, lanes])
        queries = prepare(query, *q_tables)
        products = d_value.astype(jnp.float32) * jnp.transpose(out[0, :, lanes]).astype(jnp.float32)
        inner = products.reshape(layout.heads, layout.head_dim, -1).sum(axis=1)
        of_group = v.at[0, :, lanes], bias.at[0] if masked else None, gathered, layout
        d_query = [
            _head(head, queries, d_value, norm[0, group, head : head + 1], inner[head : head + 1], *of_group)
            for head in range(layout.heads)
        ]
        d_q[0, :, lanes], d_q_gain[0, group, 0] = prepare_back(jnp.concatenate(d_query), query, *q_tables)

    @pl.when(last)
    def _():
        for group, lanes, gathered in groups:
            k_refs = k.at[0, :, lanes], d_k.at[0, :, lanes], d_v.at[0, :, lanes]
            d_k_gain[0, group] = _finish_keys(*k_refs, k_tables, gathered, layout)


class _Gathered(NamedTuple):
    """In VMEM, of 128 lanes: keys as they are multiplied, (tokens, lanes) and (lanes, tokens), and what all queries add
    to the gradients of keys and values, (lanes, tokens)."""

    keys: Any
    keys_t: Any
    d_keys: Any
    d_values: Any


def _prepare_keys(k, tables, gathered: _Gathered, layout: Layout) -> None:
    gain, cos, sin = tables
    chunk = layout.prepared

    def step(i, _):
        rows = pl.ds(i * chunk, chunk)
        gathered.keys_t[:, rows] = prepare(jnp.transpose(k[rows]), gain[...], cos[:, rows], sin[:, rows])
        gathered.keys[rows] = jnp.transpose(gathered.keys_t[:, rows])
        gathered.d_keys[:, rows] = gathered.d_values[:, rows] = jnp.zeros((LANES, chunk), jnp.float32)

    for_chunks(layout.tokens // chunk, step, None)


def _head(head: int, queries, d_value, norm, inner, v, bias, gathered: _Gathered, layout: Layout) -> Array:
    """The gradient of a head's queries, (head_dim, queries); adds to those of its keys and values."""
    head_dim, (block, chunk) = layout.head_dim, layout.backward
    lanes = slice(head * head_dim, (head + 1) * head_dim)
    of_keys = _Less(only(queries, head, head_dim), norm, layout.depth)
    of_values = _Less(only(d_value, head, head_dim), inner, layout.depth)

    def step(i, d_query):
        rows = pl.ds(i * chunk, chunk)
        logits = of_keys(gathered.keys[rows])
        if bias is not None:
            logits += bias[rows]
        weights = jnp.exp2(logits)
        d_logits = (weights * of_values(v[rows])).astype(queries.dtype)
        gathered.d_values[lanes, rows] += dot(d_value[lanes], weights.astype(d_value.dtype), (1, 1))
        gathered.d_keys[lanes, rows] += dot(queries[lanes], d_logits, (1, 1))
        return d_query + dot(gathered.keys_t[lanes, rows], d_logits, (1, 0))

    return for_chunks(layout.tokens // chunk, step, jnp.zeros((head_dim, block), jnp.float32))


def _finish_keys(k, d_k, d_v, tables, gathered: _Gathered, layout: Layout) -> Array:
    """Writes the gradients of keys and values; returns that of the keys' gain, (1, lanes)."""
    gain, cos, sin = tables
    chunk = layout.prepared

    def step(i, d_gain):
        rows = pl.ds(i * chunk, chunk)
        back = jnp.transpose(k[rows]), gain[...], cos[:, rows], sin[:, rows]
        d_k[rows], more = prepare_back(gathered.d_keys[:, rows], *back)
        d_v[rows] = jnp.transpose(gathered.d_values[:, rows].astype(d_v.dtype))
        return d_gain + more

    return for_chunks(layout.tokens // chunk, step, jnp.zeros((1, LANES), jnp.float32))


class _Less:
    """y -> y x - row, for y (tokens, lanes), x (lanes, queries) and row (1, queries).

    A matrix unit that is 256 deep has room for the row below x, and for ones beside y: the subtraction costs nothing.
    bfloat16 takes three parts, which hold float32's 24 bits. At a depth of 128 it would double the product.
    """

    def __init__(self, x: Array, row: Array, depth: int):
        self.deep, self.x, self.row = depth > LANES, x, row
        if self.deep:
            self.x = jnp.concatenate([x, _parts(-row, x.dtype)])

    def __call__(self, y: Array) -> Array:
        if not self.deep:
            return dot(y, self.x, (1, 0)) - self.row
        lane = jax.lax.broadcasted_iota(jnp.int32, y.shape, 1)
        return dot(jnp.concatenate([y, (lane < PARTS).astype(y.dtype)], axis=1), self.x, (1, 0))


def _parts(row: Float[Array, "1 queries"], dtype) -> Float[Array, "lanes queries"]:
    """Rows of `dtype`, all but the first `PARTS` zero, that add up to `row`."""
    place = jax.lax.broadcasted_iota(jnp.int32, (16, row.shape[1]), 0)
    parts = jnp.zeros(place.shape, jnp.float32)
    for number in range(PARTS):
        part = row.astype(dtype).astype(jnp.float32)
        parts, row = jnp.where(place == number, part, parts), row - part
    return jnp.concatenate([parts.astype(dtype), jnp.zeros((LANES - 16, row.shape[1]), dtype)])

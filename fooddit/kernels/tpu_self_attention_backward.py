"""The backward pass of `tpu_self_attention`, one kernel: d_q by blocks of queries, d_k and d_v gathered in VMEM.

The weights are made again from the log-sum that the forward pass kept. Gradients are made transposed, (channels,
tokens): the (keys, queries) array is then what the matrix unit holds, and the norm's and the rotation's way back needs
no lane moved. Flash attention: Dao et al. 2022, arXiv:2205.14135.
"""

import functools

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
    block = layout.backward.queries
    specs = Specs(layout, block, cos.shape[0] > 1)
    gains = lambda *blocks: jax.ShapeDtypeStruct((batch, width // LANES, *blocks, 1, LANES), jnp.float32)  # noqa: E731
    d_q, d_k, d_v, *d_gains = pl.pallas_call(
        functools.partial(_backward_kernel, layout=layout, masked=bias is not None),
        grid=(batch, width // LANES, tokens // block),
        in_specs=[*specs.prepared, specs.query, specs.norm, specs.query] + ([] if bias is None else [specs.bias]),
        out_specs=[specs.query, specs.key, specs.key, specs.query_gain, specs.key_gain],
        out_shape=[*(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (q, k, v)), gains(tokens // block), gains()],
        scratch_shapes=[
            pltpu.VMEM((tokens, LANES), k.dtype),
            pltpu.VMEM((LANES, tokens), k.dtype),
            *[pltpu.VMEM((LANES, tokens), jnp.float32)] * 2,
        ],
        name="self_attention_backward",
        **call_options(layout, width, batch, q.dtype.itemsize, products=5, arrays=8),
    )(q, k, v, q_gain, k_gain, cos, sin, cos, sin, out, norm, d_out, *(() if bias is None else (bias,)))
    return d_q, d_k, d_v, *(x.reshape(-1, layout.head_dim).sum(axis=0)[:, None] for x in d_gains)


def _backward_kernel(
    q, k, v, q_gain, k_gain, q_cos, q_sin, k_cos, k_sin, out, norm, d_out, *rest, layout: Layout, masked: bool
):
    bias, rest = (rest[0], rest[1:]) if masked else (None, rest)
    d_q, d_k, d_v, d_q_gain, d_k_gain, keys, keys_t, d_keys, d_values = rest
    head_dim, (block, chunk) = layout.head_dim, layout.backward
    chunks = layout.tokens // chunk
    q_tables = q_gain[...], q_cos[0], q_sin[0]
    k_tables = lambda rows: (k_gain[...], k_cos[0, :, rows], k_sin[0, :, rows])  # noqa: E731

    @pl.when(pl.program_id(2) == 0)
    def _():
        def prepare_keys(i, _):
            rows = pl.ds(i * chunk, chunk)
            keys_t[:, rows] = prepare(jnp.transpose(k[0, rows]), *k_tables(rows))
            keys[rows] = jnp.transpose(keys_t[:, rows])
            d_keys[:, rows] = d_values[:, rows] = jnp.zeros((LANES, chunk), jnp.float32)

        for_chunks(chunks, prepare_keys, None)

    query, d_value = jnp.transpose(q[0]), jnp.transpose(d_out[0])
    queries = prepare(query, *q_tables)
    products = d_value.astype(jnp.float32) * jnp.transpose(out[0]).astype(jnp.float32)
    inner = products.reshape(layout.heads, head_dim, block).sum(axis=1)
    d_query = []
    for head in range(layout.heads):
        lanes, one = slice(head * head_dim, (head + 1) * head_dim), slice(head, head + 1)
        of_keys = _Less(only(queries, head, head_dim), norm[0, 0, one], layout.depth)
        of_values = _Less(only(d_value, head, head_dim), inner[one], layout.depth)

        def step(i, d_query, lanes=lanes, of_keys=of_keys, of_values=of_values):
            rows = pl.ds(i * chunk, chunk)
            logits = of_keys(keys[rows])
            if masked:
                logits += bias[0, rows]
            weights = jnp.exp2(logits)
            d_logits = (weights * of_values(v[0, rows])).astype(queries.dtype)
            d_values[lanes, rows] += dot(d_value[lanes], weights.astype(d_value.dtype), (1, 1))
            d_keys[lanes, rows] += dot(queries[lanes], d_logits, (1, 1))
            return d_query + dot(keys_t[lanes, rows], d_logits, (1, 0))

        d_query.append(for_chunks(chunks, step, jnp.zeros((head_dim, block), jnp.float32)))
    d_q[0], d_q_gain[0, 0, 0] = prepare_back(jnp.concatenate(d_query), query, *q_tables)

    @pl.when(pl.program_id(2) == pl.num_programs(2) - 1)
    def _():
        def finish(i, d_gain):
            rows = pl.ds(i * chunk, chunk)
            d_k[0, rows], more = prepare_back(d_keys[:, rows], jnp.transpose(k[0, rows]), *k_tables(rows))
            d_v[0, rows] = jnp.transpose(d_values[:, rows].astype(d_v.dtype))
            return d_gain + more

        d_k_gain[0, 0] = for_chunks(chunks, finish, jnp.zeros((1, LANES), jnp.float32))


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

"""Self-attention with QK-norm and axial RoPE in one Pallas kernel for TPUs, forward and backward.

A head is a block of 128 lanes of (batch, tokens, heads * 128) arrays, so nothing is transposed or copied around the
kernel. All keys and values of a head stay in VMEM; k is normalised and rotated once a head, q once a block, and neither
goes back to HBM. QK-norm bounds every logit by head_dim times the largest gains, so within `LARGEST_LOGIT` the softmax
needs no running maximum (exp2 of a logit can neither overflow nor vanish); larger gains take the row's maximum first.
The backward pass keeps the row's log-sum, recomputes the weights, and holds them with keys as rows: what belongs to a
query then lies along lanes, and no (keys, queries) array is transposed. Flash attention: Dao et al. 2022, arXiv
2205.14135.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Bool, Float

from fooddit.kernels.reference import EPSILON, check_heads, resolve_scale
from fooddit.kernels.rope import axial_angles

LANES = 128
LOG2_E = 1.4426950408889634
# In powers of two: a sum of a million of exp2(100) is a normal float32, and exp2(-100) a normal bfloat16.
LARGEST_LOGIT = 100.0
NEVER = -1e30
VMEM_BYTES = 100 << 20


class Layout(NamedTuple):
    """How the work is cut: queries a grid step, keys a product; interpret runs on a CPU."""

    heads: int
    block: int
    chunk: int
    interpret: bool = False


def tpu_self_attention(
    q: Float[Array, "batch tokens width"],
    k: Float[Array, "batch tokens width"],
    v: Float[Array, "batch tokens width"],
    *,
    num_heads: int,
    q_scale: Float[Array, "head_dim"],
    k_scale: Float[Array, "head_dim"],
    positions: Float[Array, "*positions_batch tokens 2"],
    kv_mask: Bool[Array, "batch tokens"] | None = None,
    softmax_scale: float | None = None,
    interpret: bool = False,
) -> Float[Array, "batch tokens width"]:
    """`fooddit.kernels.self_attention` for head_dim 128; positions get no gradient.

    A number of tokens that is not a multiple of 128 is padded, which copies the arrays; the padding is masked.
    """
    head_dim = check_heads(q, num_heads, q_scale=q_scale, k_scale=k_scale)
    if head_dim != LANES:
        raise NotImplementedError(f"head_dim {head_dim}: the TPU kernel is for {LANES}, a register's lanes")
    tokens = q.shape[1]
    if padding := -tokens % LANES:
        mask = jnp.ones(k.shape[:2], bool) if kv_mask is None else kv_mask
        kv_mask = jnp.pad(mask, ((0, 0), (0, padding)))
        q, k, v = (jnp.pad(x, ((0, 0), (0, padding), (0, 0))) for x in (q, k, v))
        positions = jnp.pad(positions, ((0, 0),) * (positions.ndim - 2) + ((0, padding), (0, 0)))
    q_gain = q_scale.astype(jnp.float32) * (resolve_scale(softmax_scale, head_dim) * LOG2_E)
    k_gain = k_scale.astype(jnp.float32)
    bias = None if kv_mask is None else jnp.where(kv_mask, 0.0, NEVER)
    out = _attend(q, k, v, q_gain[None], k_gain[None], *_tables(positions), bias, _layout(q, num_heads, interpret))
    return out[:, :tokens]


def _layout(q: Array, num_heads: int, interpret: bool) -> Layout:
    tokens = q.shape[1]
    block = next(size for size in (1024, 512, 256, 128) if tokens % size == 0)
    return Layout(num_heads, block, next(size for size in (2048, 1024, 512, 256, 128) if tokens % size == 0), interpret)


def _tables(positions: Array) -> tuple[Array, Array]:
    """(1 or batch, tokens, 128) factors of a head and of the head with its halves exchanged, signs in the second."""
    angles = axial_angles(positions, LANES)
    angles = angles[None] if angles.ndim == 2 else angles
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    return jnp.concatenate([cos, cos], axis=-1), jnp.concatenate([-sin, sin], axis=-1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(8,))
def _attend(q, k, v, q_gain, k_gain, cos, sin, bias, layout: Layout):
    return _forward(q, k, v, q_gain, k_gain, cos, sin, bias, layout, keep=False)[0]


def _attend_forward(q, k, v, q_gain, k_gain, cos, sin, bias, layout: Layout):
    out, norm = _forward(q, k, v, q_gain, k_gain, cos, sin, bias, layout, keep=True)
    return out, (q, k, v, q_gain, k_gain, cos, sin, bias, out, norm)


def _attend_backward(layout: Layout, kept, d_out):
    d_q, d_k, d_v, d_q_gain, d_k_gain = _backward(*kept, d_out, layout)
    return d_q, d_k, d_v, d_q_gain.sum((0, 1, 2)), d_k_gain.sum((0, 1)), None, None, None


_attend.defvjp(_attend_forward, _attend_backward)


def _forward(q, k, v, q_gain, k_gain, cos, sin, bias, layout: Layout, keep: bool) -> list[Array]:
    """[out] and, to `keep` for the backward pass, log2 of each query's sum of weights, (batch, heads, 1, tokens)."""
    batch, tokens, _ = q.shape
    specs = _Specs(layout, tokens, cos.shape[0] > 1)
    # The gains ride on the tables: an exchange of halves exchanges them too.
    tables = [t * g for x in (q_gain, k_gain) for t, g in ((cos, x), (sin, jnp.roll(x, LANES // 2, axis=-1)))]
    call = lambda bounded: pl.pallas_call(  # noqa: E731
        functools.partial(_forward_kernel, chunk=layout.chunk, bounded=bounded, masked=bias is not None),
        grid=(batch, layout.heads, tokens // layout.block),
        in_specs=[specs.query, specs.key, specs.key, *[specs.query_table] * 2, *[specs.key_table] * 2]
        + ([] if bias is None else [specs.bias_row]),
        out_specs=[specs.query] + [specs.norm] * keep,
        out_shape=[jax.ShapeDtypeStruct(q.shape, q.dtype)]
        + [jax.ShapeDtypeStruct((batch, layout.heads, 1, tokens), jnp.float32)] * keep,
        scratch_shapes=[pltpu.VMEM((tokens, LANES), k.dtype)],
        cost_estimate=_cost(q, products=2, arrays=4),
        name="self_attention" if bounded else "self_attention_large_gains",
        **_options(layout),
    )
    arrays = (q, k, v, *tables) + (() if bias is None else (bias[:, None],))
    largest = LANES * jnp.abs(q_gain).max() * jnp.abs(k_gain).max()
    return jax.lax.cond(largest <= LARGEST_LOGIT, call(True), call(False), *arrays)


def _forward_kernel(q, k, v, q_cos, q_sin, k_cos, k_sin, *rest, chunk: int, bounded: bool, masked: bool):
    bias, (out, *norms, keys) = (rest[0], rest[1:]) if masked else (None, rest)

    @pl.when(pl.program_id(2) == 0)
    def _():
        keys[...] = _prepare(k[0], k_cos[0], k_sin[0])

    query = _prepare(q[0], q_cos[0], q_sin[0])
    total = jnp.zeros((query.shape[0], 1), jnp.float32)
    most = jnp.full_like(total, NEVER)
    value = jnp.zeros((query.shape[0], LANES), jnp.float32)
    for first in range(0, keys.shape[0], chunk):
        rows = pl.ds(first, chunk)
        logits = _dot(query, keys[rows], (1, 1))
        if masked:
            logits += bias[0, :, rows]
        if not bounded:
            before, most = most, jnp.maximum(most, logits.max(axis=1, keepdims=True))
            logits -= most
            total, value = total * jnp.exp2(before - most), value * jnp.exp2(before - most)
        weights = jnp.exp2(logits)
        total += weights.sum(axis=1, keepdims=True)
        value += _dot(weights.astype(v.dtype), v[0, rows], (1, 0))
    if masked:
        # A query without any key gets zero, not NaN.
        some = total > 0 if bounded else most > NEVER / 2
        value, total, most = (jnp.where(some, x, y) for x, y in ((value, 0.0), (total, 1.0), (most, 0.0)))
    out[0] = (value / total).astype(out.dtype)
    if norms:
        norm = jnp.log2(total) if bounded else jnp.log2(total) + most
        norms[0][0, 0] = jnp.transpose(jnp.broadcast_to(norm, (norm.shape[0], LANES)))[:1]


def _backward(q, k, v, q_gain, k_gain, cos, sin, bias, out, norm, d_out, layout: Layout) -> list[Array]:
    """Gradients of q, k, v, and of the gains by (batch, head, block) and (batch, head)."""
    batch, tokens, _ = q.shape
    specs, blocks = _Specs(layout, tokens, cos.shape[0] > 1), tokens // layout.block
    gains = lambda *shape: jax.ShapeDtypeStruct((batch, layout.heads, *shape, 1, LANES), jnp.float32)  # noqa: E731
    column = None if bias is None else bias[..., None]
    return pl.pallas_call(
        functools.partial(_backward_kernel, chunk=layout.chunk, masked=bias is not None),
        grid=(batch, layout.heads, blocks),
        in_specs=[specs.query, specs.key, specs.key, specs.gain, specs.gain]
        + [*[specs.query_table] * 2, *[specs.key_table] * 2, specs.query, specs.norm, specs.query]
        + ([] if bias is None else [specs.bias_column]),
        out_specs=[specs.query, specs.key, specs.key, specs.query_gain, specs.key_gain],
        out_shape=[*(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (q, k, v)), gains(blocks), gains()],
        scratch_shapes=[pltpu.VMEM((tokens, LANES), k.dtype), *[pltpu.VMEM((tokens, LANES), jnp.float32)] * 2],
        cost_estimate=_cost(q, products=5, arrays=8),
        name="self_attention_backward",
        **_options(layout),
    )(q, k, v, q_gain, k_gain, cos, sin, cos, sin, out, norm, d_out, *(() if column is None else (column,)))


def _backward_kernel(
    q, k, v, q_gain, k_gain, q_cos, q_sin, k_cos, k_sin, out, norm, d_out, *rest, chunk: int, masked: bool
):
    bias, rest = (rest[0], rest[1:]) if masked else (None, rest)
    d_q, d_k, d_v, d_q_gain, d_k_gain, keys, d_keys, d_values = rest
    q_tables, k_tables = ((x[...], c[0], s[0]) for x, c, s in ((q_gain, q_cos, q_sin), (k_gain, k_cos, k_sin)))

    @pl.when(pl.program_id(2) == 0)
    def _():
        keys[...] = _prepare(k[0], *_gained(*k_tables))
        d_keys[...] = jnp.zeros_like(d_keys)
        d_values[...] = jnp.zeros_like(d_values)

    query, d_value = _prepare(q[0], *_gained(*q_tables)), d_out[0]
    products = d_value.astype(jnp.float32) * out[0].astype(jnp.float32)
    inner = _dot(jnp.ones((8, LANES), jnp.float32), products, (1, 1))[:1]
    d_query = jnp.zeros((LANES, query.shape[0]), jnp.float32)
    for first in range(0, keys.shape[0], chunk):
        rows = pl.ds(first, chunk)
        logits = _dot(keys[rows], query, (1, 1))
        if masked:
            logits += bias[0, rows]
        weights = jnp.exp2(logits - norm[0, 0])
        d_logits = (weights * (_dot(v[0, rows], d_value, (1, 1)) - inner)).astype(query.dtype)
        d_values[rows] += _dot(weights.astype(d_value.dtype), d_value, (1, 0))
        d_keys[rows] += _dot(d_logits, query, (1, 0))
        d_query += _dot(keys[rows], d_logits, (0, 0))
    d_q[0], d_q_gain[0, 0, 0] = _through(jnp.transpose(d_query), q[0], *q_tables)

    @pl.when(pl.program_id(2) == pl.num_programs(2) - 1)
    def _():
        d_k[0], d_k_gain[0, 0] = _through(d_keys[...], k[0], *k_tables)
        d_v[0] = d_values[...].astype(d_v.dtype)


def _prepare(x: Array, cos: Array, sin: Array) -> Array:
    """A key or query as it is multiplied: normalised, gained and rotated, in x's dtype; the tables hold the gain."""
    y = x.astype(jnp.float32)
    scale = jax.lax.rsqrt(jnp.mean(y * y, axis=1, keepdims=True) + EPSILON)
    return ((y * cos + _exchanged(x) * sin) * scale).astype(x.dtype)


def _gained(gain: Array, cos: Array, sin: Array) -> tuple[Array, Array]:
    return cos * gain, sin * pltpu.roll(gain, LANES // 2, 1)


def _exchanged(x: Array) -> Array:
    """x, float32, with the halves of its lanes exchanged: exact, by a product with a permutation. A TPU's matrix unit
    has time for it; a roll of lanes is waited for (1.5 times the cycles at 1024 tokens)."""
    row, column = (jax.lax.broadcasted_iota(jnp.int32, (LANES, LANES), axis) for axis in (0, 1))
    return _dot(x, (jnp.abs(row - column) == LANES // 2).astype(x.dtype), (1, 0))


def _through(gradient: Array, x: Array, gain: Array, cos: Array, sin: Array) -> tuple[Array, Array]:
    """Back through `_prepare`: the gradients of x, in its dtype, and of the gain, (1, lanes). Logits are in powers of
    two, hence LOG2_E."""
    gradient = gradient * (1 / LOG2_E)
    turned = gradient * cos - pltpu.roll(gradient, LANES // 2, 1) * sin
    y = x.astype(jnp.float32)
    scale = jax.lax.rsqrt(jnp.mean(y * y, axis=1, keepdims=True) + EPSILON)
    unit, inner = y * scale, turned * gain
    d_x = scale * (inner - unit * jnp.mean(inner * unit, axis=1, keepdims=True))
    return d_x.astype(x.dtype), jnp.sum(turned * unit, axis=0, keepdims=True)


def _dot(a: Array, b: Array, contract: tuple[int, int]) -> Array:
    return jax.lax.dot_general(a, b, (((contract[0],), (contract[1],)), ((), ())), preferred_element_type=jnp.float32)


class _Specs:
    """The blocks of a (batch, head, block of queries) grid."""

    def __init__(self, layout: Layout, tokens: int, positions_differ: bool):
        block, row = layout.block, (lambda b: b) if positions_differ else (lambda b: 0)
        self.query = pl.BlockSpec((1, block, LANES), lambda b, h, i: (b, i, h))
        self.key = pl.BlockSpec((1, tokens, LANES), lambda b, h, i: (b, 0, h))
        self.query_table = pl.BlockSpec((1, block, LANES), lambda b, h, i: (row(b), i, 0))
        self.key_table = pl.BlockSpec((1, tokens, LANES), lambda b, h, i: (row(b), 0, 0))
        self.gain = pl.BlockSpec((1, LANES), lambda b, h, i: (0, 0))
        self.norm = pl.BlockSpec((1, 1, 1, block), lambda b, h, i: (b, h, 0, i))
        self.bias_row = pl.BlockSpec((1, 1, tokens), lambda b, h, i: (b, 0, 0))
        self.bias_column = pl.BlockSpec((1, tokens, 1), lambda b, h, i: (b, 0, 0))
        self.query_gain = pl.BlockSpec((1, 1, 1, 1, LANES), lambda b, h, i: (b, h, i, 0, 0))
        self.key_gain = pl.BlockSpec((1, 1, 1, LANES), lambda b, h, i: (b, h, 0, 0))


def _options(layout: Layout) -> dict:
    semantics = ("parallel", "parallel", "arbitrary")
    params = pltpu.CompilerParams(dimension_semantics=semantics, vmem_limit_bytes=VMEM_BYTES)
    return {"compiler_params": params, "interpret": layout.interpret}


def _cost(q: Array, *, products: int, arrays: int) -> pl.CostEstimate:
    """Of `products` matrix products of all queries with all keys, and `arrays` passes over arrays like q."""
    batch, tokens, width = q.shape
    return pl.CostEstimate(
        flops=2 * products * batch * tokens * tokens * width,
        transcendentals=batch * tokens * tokens * (width // LANES),
        bytes_accessed=arrays * q.size * q.dtype.itemsize,
    )

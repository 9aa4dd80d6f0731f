"""Self-attention with QK-norm and axial RoPE in one Pallas kernel for TPUs: the function, and the forward pass.

A head is a block of lanes of (batch, tokens, heads * head_dim) arrays, so nothing is transposed or copied around the
kernel. All keys and values of 128 lanes stay in VMEM; k is normalised and rotated once a head, q once a block, and
neither goes back to HBM. Weights have keys as rows: what belongs to a query then lies along lanes, and the product with
the values, transposed, holds the weights still in the matrix unit and streams 128 rows past them, half the time of
streaming the weights. A row of ones below the values makes it sum the weights too, where it is not the bottleneck.

QK-norm bounds every logit by head_dim times the largest gains, so within `LARGEST_LOGIT` the softmax needs no running
maximum (exp2 of a logit can neither overflow nor vanish); larger gains take the maximum first. Flash attention: Dao et
al. 2022, arXiv:2205.14135.
"""

import functools

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Bool, Float

from fooddit.kernels.dispatch import KERNEL_RESULT
from fooddit.kernels.reference import check_heads, resolve_scale
from fooddit.kernels.rope import axial_angles
from fooddit.kernels.tpu_common import LANES, LARGEST_LOGIT, LOG2_E, NEVER, dot
from fooddit.kernels.tpu_heads import only, prepare
from fooddit.kernels.tpu_layout import Layout, Specs, call_options, for_chunks, layout_for
from fooddit.kernels.tpu_self_attention_backward import backward

# Of ones, below a head's values: bfloat16 fills registers by 16 rows.
SUM_ROWS = 16


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
    generation: str = "v6e",
    interpret: bool | pltpu.InterpretParams = False,
) -> Float[Array, "batch tokens width"]:
    """`fooddit.kernels.self_attention` for head_dim 128, and 64 with an even number of heads.

    Positions get no gradient.

    generation: a key of `fooddit.kernels.tpu_layout.BLOCKS`. A number of tokens that has no block of 128 lanes or more
    is padded, which copies the arrays; the padding is masked. Unsupported for other heads.
    """
    head_dim = check_heads(q, num_heads, q_scale=q_scale, k_scale=k_scale)
    tokens = q.shape[1]
    layout = layout_for(tokens, q.shape[2], head_dim, generation)._replace(interpret=interpret)
    if padding := layout.tokens - tokens:
        mask = jnp.ones(k.shape[:2], bool) if kv_mask is None else kv_mask
        kv_mask = jnp.pad(mask, ((0, 0), (0, padding)))
        q, k, v = (jnp.pad(x, ((0, 0), (0, padding), (0, 0))) for x in (q, k, v))
        positions = jnp.pad(positions, ((0, 0),) * (positions.ndim - 2) + ((0, padding), (0, 0)))
    q_gain = q_scale.astype(jnp.float32) * (resolve_scale(softmax_scale, head_dim) * LOG2_E)
    k_gain = k_scale.astype(jnp.float32)
    angles = jnp.swapaxes(axial_angles(positions, head_dim), -1, -2)
    angles = angles[None] if angles.ndim == 2 else angles
    bias = None if kv_mask is None else jnp.where(kv_mask, 0.0, NEVER)[..., None]
    arrays = q, k, v, q_gain[:, None], k_gain[:, None], jnp.cos(angles), jnp.sin(angles), bias
    return _attend(*arrays, layout)[:, :tokens]


@functools.partial(jax.custom_vjp, nondiff_argnums=(8,))
def _attend(q, k, v, q_gain, k_gain, cos, sin, bias, layout: Layout):
    return _forward(q, k, v, q_gain, k_gain, cos, sin, bias, layout, keep=False)[0]


def _attend_forward(q, k, v, q_gain, k_gain, cos, sin, bias, layout: Layout):
    kept = _forward(q, k, v, q_gain, k_gain, cos, sin, bias, layout, keep=True)
    out, norm = (checkpoint_name(x, KERNEL_RESULT) for x in kept)
    return out, (q, k, v, q_gain, k_gain, cos, sin, bias, out, norm)


def _attend_backward(layout: Layout, kept, d_out):
    return *backward(*kept, d_out, layout), None, None, None


_attend.defvjp(_attend_forward, _attend_backward)


def _forward(q, k, v, q_gain, k_gain, cos, sin, bias, layout: Layout, keep: bool) -> list[Array]:
    """[out] and, to `keep` for the backward pass, log2 of each query's sum of weights, (batch, blocks of lanes, heads
    in them, tokens)."""
    batch, tokens, width = q.shape
    specs = Specs(layout, layout.forward.queries, cos.shape[0] > 1)
    norm = jax.ShapeDtypeStruct((batch, width // LANES, layout.heads, tokens), jnp.float32)
    group = layout.group
    values = (group, layout.heads, layout.head_dim + _sum_rows(layout), tokens)
    # The compiler makes more of the kernel for large gains if it keeps its sums, too (v5e at 1024 tokens: 395 k cycles
    # without, 351 k with them).
    call = lambda bounded, keep: pl.pallas_call(  # noqa: E731
        functools.partial(_forward_kernel, layout=layout, bounded=bounded, masked=bias is not None),
        grid=(batch, width // (group * LANES), tokens // layout.forward.queries),
        in_specs=specs.prepared + ([] if bias is None else [specs.bias]),
        out_specs=[specs.query] + [specs.norm] * keep,
        out_shape=[jax.ShapeDtypeStruct(q.shape, q.dtype)] + [norm] * keep,
        scratch_shapes=[pltpu.VMEM((group, tokens, LANES), k.dtype), pltpu.VMEM(values, v.dtype)],
        name="self_attention" if bounded else "self_attention_large_gains",
        **call_options(layout, width, batch, q.dtype.itemsize, products=2, arrays=4),
    )
    arrays = (q, k, v, q_gain, k_gain, cos, sin, cos, sin) + (() if bias is None else (bias,))
    largest = layout.head_dim * jnp.abs(q_gain).max() * jnp.abs(k_gain).max()
    large = lambda *arrays: call(False, True)(*arrays)[: 1 + keep]  # noqa: E731
    return jax.lax.cond(largest <= LARGEST_LOGIT, call(True, keep), large, *arrays)


def _forward_kernel(
    q, k, v, q_gain, k_gain, q_cos, q_sin, k_cos, k_sin, *rest, layout: Layout, bounded: bool, masked: bool
):
    bias, (out, *norms, keys, values) = (rest[0], rest[1:]) if masked else (None, rest)
    key_tables = k_gain, k_cos.at[0], k_sin.at[0]

    @pl.when(pl.program_id(2) == 0)
    def _():
        for group, lanes in layout.groups():
            _prepare_keys(k.at[0, :, lanes], v.at[0, :, lanes], *key_tables, keys.at[group], values.at[group], layout)

    for group, lanes in layout.groups():
        queries = prepare(jnp.transpose(q[0, :, lanes]), q_gain[...], q_cos[0], q_sin[0])
        found = []
        for head in range(layout.heads):
            value, norm = _attend_head(
                only(queries, head, layout.head_dim),
                keys.at[group],
                values.at[group, head],
                bias.at[0] if masked else None,
                layout,
                bounded,
            )
            found.append(value)
            if norms:
                norms[0][0, group, head : head + 1] = norm
        out[0, :, lanes] = jnp.transpose(jnp.concatenate(found).astype(out.dtype))


def _prepare_keys(k, v, gain, cos, sin, keys, values, layout: Layout) -> None:
    """Writes what the products take: keys normalised and rotated, values as rows of heads, and ones below them."""
    head_dim, chunk, sum_rows = layout.head_dim, layout.forward.keys, _sum_rows(layout)

    def step(i, _):
        rows = pl.ds(i * chunk, chunk)
        keys[rows] = jnp.transpose(prepare(jnp.transpose(k[rows]), gain[...], cos[:, rows], sin[:, rows]))
        values[:, :head_dim, rows] = jnp.transpose(v[rows]).reshape(layout.heads, head_dim, chunk)
        if sum_rows:
            values[:, head_dim:, rows] = jnp.ones((layout.heads, sum_rows, chunk), values.dtype)

    for_chunks(layout.tokens // chunk, step, None)


def _attend_head(query, keys, values, bias, layout: Layout, bounded: bool) -> tuple[Array, Array]:
    """Of a head's queries, (lanes, queries): the result, (head_dim, queries), and log2 of the sums of weights."""
    head_dim, chunk, sum_rows = layout.head_dim, layout.forward.keys, _sum_rows(layout)

    def step(i, carry):
        rows = pl.ds(i * chunk, chunk)
        most, total, value = carry
        logits = dot(keys[rows], query, (1, 0))
        if bias is not None:
            logits += bias[rows]
        if not bounded:
            before, most = most, jnp.maximum(most, logits.max(axis=0, keepdims=True))
            logits -= most
            total, value = (x * jnp.exp2(before - most) for x in (total, value))
        weights = jnp.exp2(logits)
        if not sum_rows:
            total += weights.sum(axis=0, keepdims=True)
        return most, total, value + dot(values[:, rows], weights.astype(values.dtype), (1, 0))

    start = (
        jnp.full((1, query.shape[1]), NEVER),
        jnp.zeros((1, query.shape[1])),
        jnp.zeros((values.shape[0], query.shape[1])),
    )
    most, total, value = for_chunks(layout.tokens // chunk, step, start)
    if sum_rows:
        value, total = value[:head_dim], value[head_dim : head_dim + 1]
    if bias is not None:
        # A query without any key gets zero, not NaN.
        some = total > 0 if bounded else most > NEVER / 2
        value, total, most = (jnp.where(some, x, y) for x, y in ((value, 0.0), (total, 1.0), (most, 0.0)))
    return value * (1 / total), jnp.log2(total) if bounded else jnp.log2(total) + most


def _sum_rows(layout: Layout) -> int:
    """Rows of ones below the values, by which the product sums the weights. None where the matrix unit is 128 deep, for
    there all wait for it: the vector units sum."""
    return SUM_ROWS if layout.depth > LANES else 0

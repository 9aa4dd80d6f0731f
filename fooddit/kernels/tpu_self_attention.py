"""Self-attention with QK-norm and axial RoPE in one Pallas kernel for TPUs: the function, and the forward pass.

A head is a block of lanes of (batch, tokens, heads * head_dim) arrays, so nothing is transposed or copied around the
kernel. All keys and values of 128 lanes stay in VMEM; k is normalised and rotated once a head, q once a block, and
neither goes back to HBM. Weights have keys as rows: what belongs to a query then lies along lanes, and the product with
the values, transposed, holds the weights still in the matrix unit and streams 128 rows past them, half the time of
streaming the weights. A row of ones below the values makes it sum the weights too.

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

from fooddit.kernels.dispatch import KERNEL_RESULT, Unsupported
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
    layout = layout_for(tokens, head_dim, generation)._replace(interpret=interpret)
    if num_heads % layout.heads:
        raise Unsupported(
            f"{num_heads} heads of head_dim {head_dim}: the TPU kernel takes two at once, "
            "so that it needs an even number of them"
        )
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
    values = (layout.heads, layout.head_dim + SUM_ROWS, tokens)
    call = lambda bounded: pl.pallas_call(  # noqa: E731
        functools.partial(_forward_kernel, layout=layout, bounded=bounded, masked=bias is not None),
        grid=(batch, width // LANES, tokens // layout.forward.queries),
        in_specs=specs.prepared + ([] if bias is None else [specs.bias]),
        out_specs=[specs.query] + [specs.norm] * keep,
        out_shape=[jax.ShapeDtypeStruct(q.shape, q.dtype)] + [norm] * keep,
        scratch_shapes=[pltpu.VMEM((tokens, LANES), k.dtype), pltpu.VMEM(values, v.dtype)],
        name="self_attention" if bounded else "self_attention_large_gains",
        **call_options(layout, width, batch, q.dtype.itemsize, products=2, arrays=4),
    )
    arrays = (q, k, v, q_gain, k_gain, cos, sin, cos, sin) + (() if bias is None else (bias,))
    largest = layout.head_dim * jnp.abs(q_gain).max() * jnp.abs(k_gain).max()
    return jax.lax.cond(largest <= LARGEST_LOGIT, call(True), call(False), *arrays)


def _forward_kernel(
    q, k, v, q_gain, k_gain, q_cos, q_sin, k_cos, k_sin, *rest, layout: Layout, bounded: bool, masked: bool
):
    bias, (out, *norms, keys, values) = (rest[0], rest[1:]) if masked else (None, rest)
    head_dim, chunk = layout.head_dim, layout.forward.keys
    chunks = layout.tokens // chunk

    @pl.when(pl.program_id(2) == 0)
    def _():
        def prepare_keys(i, _):
            rows = pl.ds(i * chunk, chunk)
            tables = k_gain[...], k_cos[0, :, rows], k_sin[0, :, rows]
            keys[rows] = jnp.transpose(prepare(jnp.transpose(k[0, rows]), *tables))
            values[:, :head_dim, rows] = jnp.transpose(v[0, rows]).reshape(layout.heads, head_dim, chunk)
            values[:, head_dim:, rows] = jnp.ones((layout.heads, SUM_ROWS, chunk), values.dtype)

        for_chunks(chunks, prepare_keys, None)

    queries = prepare(jnp.transpose(q[0]), q_gain[...], q_cos[0], q_sin[0])
    found = []
    for head in range(layout.heads):
        query = only(queries, head, head_dim)

        def step(i, carry, query=query, head=head):
            rows = pl.ds(i * chunk, chunk)
            most, value = carry
            logits = dot(keys[rows], query, (1, 0))
            if masked:
                logits += bias[0, rows]
            if not bounded:
                before, most = most, jnp.maximum(most, logits.max(axis=0, keepdims=True))
                logits -= most
                value *= jnp.exp2(before - most)
            return most, value + dot(values[head, :, rows], jnp.exp2(logits).astype(v.dtype), (1, 0))

        start = jnp.full((1, query.shape[1]), NEVER), jnp.zeros((values.shape[1], query.shape[1]), jnp.float32)
        most, value = for_chunks(chunks, step, start)
        value, total = value[:head_dim], value[head_dim : head_dim + 1]
        if masked:
            # A query without any key gets zero, not NaN.
            some = total > 0 if bounded else most > NEVER / 2
            value, total, most = (jnp.where(some, x, y) for x, y in ((value, 0.0), (total, 1.0), (most, 0.0)))
        found.append(value * (1 / total))
        if norms:
            norms[0][0, 0, head : head + 1] = jnp.log2(total) if bounded else jnp.log2(total) + most
    out[0] = jnp.transpose(jnp.concatenate(found).astype(out.dtype))

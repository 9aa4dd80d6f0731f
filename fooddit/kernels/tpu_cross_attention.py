"""Cross-attention with QK-norm in one Pallas kernel for TPUs, to one set of keys or to text and image keys at once.

A head is a block of 128 lanes of (batch, tokens, heads * 128) arrays (two heads of 64 share a block), so nothing is
transposed or copied around the kernel. All keys and values of a head stay in VMEM; k is normalised once a head, q once
a block, and neither goes back to HBM; q is read once for both softmaxes.

Weights are held with keys as rows and queries along lanes, in both directions: what belongs to a query is then a row of
lanes. The values are kept transposed, with the mask as a further row, so that the product with the weights also gives
their sum, and a mask costs nothing on the (keys, queries) logits. That sum is float32 and of the weights as they are
multiplied, in the values' dtype. QK-norm bounds every logit by head_dim times the largest gains: within
`LARGEST_LOGIT` the softmax needs no maximum, larger gains take the query's maximum first. The backward pass keeps each
branch's log-sum and recomputes the weights. Flash attention: Dao et al. 2022, arXiv 2205.14135; decoupled
cross-attention: Ye et al. 2023 (IP-Adapter), arXiv 2308.06721.
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
from fooddit.kernels.tpu_common import LANES, LARGEST_LOGIT, LOG2_E, NEVER, dot, options
from fooddit.kernels.tpu_cross_attention_backward import backward
from fooddit.kernels.tpu_cross_layout import FORWARD_WEIGHTS, Layout, Specs, cost, grid, layout_for
from fooddit.kernels.tpu_lane_heads import only, unit

# Rows added to the transposed values, the smallest tile of bfloat16. The sum of weights is the first of them.
SUM_ROWS = 16


def tpu_cross_attention(
    q: Float[Array, "batch tokens width"],
    k: Float[Array, "batch keys width"],
    v: Float[Array, "batch keys width"],
    *,
    num_heads: int,
    q_scale: Float[Array, "head_dim"],
    k_scale: Float[Array, "head_dim"],
    kv_mask: Bool[Array, "batch keys"] | None = None,
    softmax_scale: float | None = None,
    interpret: bool | pltpu.InterpretParams = False,
) -> Float[Array, "batch tokens width"]:
    """`fooddit.kernels.cross_attention` for head_dim 128, or an even number of heads of 64, in bfloat16 or float32.

    Numbers of tokens or keys that are not multiples of 128 are padded, which copies the arrays; padding is masked.
    """
    check_heads(q, num_heads, k_scale=k_scale)
    branch = k, v, k_scale, kv_mask
    return _cross_attention(q, [branch], None, False, num_heads, q_scale, softmax_scale, interpret)


def tpu_decoupled_cross_attention(
    q: Float[Array, "batch tokens width"],
    text_k: Float[Array, "batch text width"],
    text_v: Float[Array, "batch text width"],
    image_k: Float[Array, "batch image width"],
    image_v: Float[Array, "batch image width"],
    *,
    num_heads: int,
    q_scale: Float[Array, "head_dim"],
    text_k_scale: Float[Array, "head_dim"],
    image_k_scale: Float[Array, "head_dim"],
    text_mask: Bool[Array, "batch text"] | None = None,
    image_mask: Bool[Array, "batch image"] | None = None,
    image_scale: float | Float[Array, ""] | Float[Array, "batch"] = 1.0,
    softmax_scale: float | None = None,
    interpret: bool | pltpu.InterpretParams = False,
) -> Float[Array, "batch tokens width"]:
    """`fooddit.kernels.decoupled_cross_attention`, within the limits of `tpu_cross_attention`.

    An image_scale of 0 equals `tpu_cross_attention` to the text bit for bit, unless image_k_scale alone is so large
    that the softmaxes need their maximum: one variant of the kernel serves both branches. As in the reference, an
    image_scale of exactly 0 gets no gradient.
    """
    check_heads(q, num_heads, text_k_scale=text_k_scale, image_k_scale=image_k_scale)
    branches = [(text_k, text_v, text_k_scale, text_mask), (image_k, image_v, image_k_scale, image_mask)]
    scale = jnp.broadcast_to(jnp.asarray(image_scale, jnp.float32), q.shape[:1])
    learned = isinstance(image_scale, jax.Array)
    return _cross_attention(q, branches, scale, learned, num_heads, q_scale, softmax_scale, interpret)


def _cross_attention(q, branches, scale, learned, num_heads, q_scale, softmax_scale, interpret) -> Array:
    """Pads, masks the padding, and stacks the gains, the query's first. branches: (k, v, gain, mask or None)."""
    head_dim = check_heads(q, num_heads, q_scale=q_scale)
    if head_dim not in (LANES, LANES // 2) or q.shape[-1] % LANES:
        found = f"{num_heads} heads of head_dim {head_dim}"
        raise Unsupported(f"{found}: the TPU kernel is for head_dim 128, or for head_dim 64 and an even number")
    dtypes = {x.dtype.name for x in (q, *(x for k, v, *_ in branches for x in (k, v)))}
    if dtypes not in ({"bfloat16"}, {"float32"}):
        raise Unsupported(f"q, k and v of {sorted(dtypes)}: the TPU kernel is for bfloat16 or float32 throughout")
    keys = tuple(k.shape[1] + -k.shape[1] % LANES for k, *_ in branches)
    layout = layout_for(q.shape[1], num_heads, head_dim, keys, learned_scale=learned, interpret=interpret)
    gains = jnp.stack(
        [q_scale * (resolve_scale(softmax_scale, head_dim) * LOG2_E), *(gain for *_, gain, _ in branches)]
    )
    gains = jnp.tile(gains.astype(jnp.float32), layout.heads)
    pairs = tuple((_padded(k, to), _padded(v, to)) for (k, v, *_), to in zip(branches, keys))
    bias = None
    if any(mask is not None or k.shape[1] % LANES for k, *_, mask in branches):
        masks = [jnp.ones(k.shape[:2], bool) if mask is None else mask for k, *_, mask in branches]
        mask = jnp.concatenate([_padded(mask, to) for mask, to in zip(masks, keys)], axis=1)
        bias = jnp.where(mask, 0.0, NEVER)[..., None]
    blocks = pl.cdiv(q.shape[1], layout.block)
    return _attend(scale, gains, bias, _padded(q, blocks * layout.block), pairs, layout)[:, : q.shape[1]]


def _padded(x: Array, to: int) -> Array:
    """x with axis 1 filled with zeros; x itself if there is nothing to fill."""
    return x if x.shape[1] == to else jnp.pad(x, [(0, to - n if axis == 1 else 0) for axis, n in enumerate(x.shape)])


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _attend(scale, gains, bias, q, pairs, layout: Layout):
    return _forward(scale, gains, bias, q, pairs, layout, keep=False)[0]


def _attend_forward(scale, gains, bias, q, pairs, layout: Layout):
    kept = _forward(scale, gains, bias, q, pairs, layout, keep=True)
    out, norms = (checkpoint_name(x, KERNEL_RESULT) for x in kept)
    return out, (scale, gains, bias, q, pairs, norms)


def _attend_backward(layout: Layout, kept, d_out):
    d_q, d_pairs, d_q_gain, d_k_gains, d_scale = backward(*kept, d_out, layout)
    d_gains = jnp.concatenate([d_q_gain.sum((0, 1, 2)), d_k_gains.sum((0, 1))])
    if d_scale is not None:
        d_scale = jnp.where(kept[0] == 0, 0.0, d_scale.sum((1, 2, 3)))
    return d_scale, d_gains, None, d_q, d_pairs


_attend.defvjp(_attend_forward, _attend_backward)


def _forward(scale, gains, bias, q, pairs, layout: Layout, keep: bool) -> tuple[Array, Array | None]:
    """The result and, to `keep` for the backward pass, log2 of the sums of weights, (batch, lane blocks, branches *
    heads, tokens)."""
    specs, arrays = Specs(layout, scale, bias), (scale, gains, bias, q, pairs)
    (batch, tokens, width), rows = q.shape, len(pairs) * layout.heads
    norms = jax.ShapeDtypeStruct((batch, width // LANES, rows, tokens), jnp.float32)
    results = jax.ShapeDtypeStruct(q.shape, q.dtype), norms if keep else None
    memories = lambda keys: [((keys, LANES), q.dtype), ((layout.heads, layout.head_dim + SUM_ROWS, keys), q.dtype)]
    call = lambda bounded: pl.pallas_call(
        functools.partial(_kernel, layout=layout, bounded=bounded),
        grid=grid(layout, q),
        in_specs=[*specs.shared, specs.query, specs.pairs],
        out_specs=(specs.query, specs.rows(rows) if keep else None),
        out_shape=results,
        scratch_shapes=[layout.scratch(memories)],
        cost_estimate=cost(layout, q, 2, (arrays, results)),
        name=layout.name("" if bounded else "_large_gains"),
        **options(layout.interpret),
    )
    largest = layout.head_dim * jnp.abs(gains[0]).max() * jnp.abs(gains[1:]).max()
    return jax.lax.cond(largest <= LARGEST_LOGIT, call(True), call(False), *arrays)


def _kernel(scale, gains, bias, q, pairs, out, norms, scratch, *, layout: Layout, bounded: bool):
    groups = layout.groups(scratch)
    biases = [None if bias is None else bias.at[0, layout.rows(n)] for n in range(len(pairs))]

    @pl.when(pl.program_id(2) == 0)
    def _():
        for _, lanes, memories in groups:
            for n, ((k, v), (keys, values)) in enumerate(zip(pairs, memories)):
                keys[...] = (unit(k[0, :, lanes], layout.heads)[0] * gains[n + 1 : n + 2]).astype(keys.dtype)
                _store_values(values, v[0, :, lanes], None if bias is None else biases[n][...])

    for group, lanes, memories in groups:
        for queries in layout.chunks(FORWARD_WEIGHTS):
            query, branches = unit(q[0, queries, lanes], layout.heads)[0] * gains[:1], []
            for n, (keys, values) in enumerate(memories):
                heads = []
                for head in range(layout.heads):
                    one = only(query, head, layout.heads).astype(q.dtype)
                    value, factor, norm = _attend_head(one, keys, values.at[head], biases[n], layout, bounded)
                    heads.append((value, factor))
                    if norms is not None:
                        row = n * layout.heads + head
                        norms[0, group, row : row + 1, queries] = norm
                branches.append(heads)
            out[0, queries, lanes] = jnp.transpose(_sum(branches, scale)).astype(out.dtype)


def _attend_head(query, keys, values, bias, layout: Layout, bounded: bool) -> tuple[Array, Array, Array]:
    """A head's sum of weighted values, (head_dim, queries), and of (1, queries): one over its weights' sum, log2 of it.

    A query without any key gets zeros, not NaN.
    """
    logits, most = dot(keys[...], query, (1, 1)), 0.0
    if not bounded:
        logits = logits if bias is None else logits + bias[...]
        most = logits.max(axis=0, keepdims=True)
        logits -= most
    sums = dot(values[...], jnp.exp2(logits).astype(query.dtype), (1, 0))
    value, total = sums[: layout.head_dim], sums[layout.head_dim : layout.head_dim + 1]
    some = total > 0
    return value, jnp.where(some, 1 / total, 0.0), jnp.where(some, jnp.log2(total) + most, 0.0)


def _store_values(values, v: Array, bias: Array | None):
    """Transposed values, those of masked keys 0, and below them 1 for each key that is not masked, a head at a time."""
    v, heads = v.astype(jnp.float32), values.shape[0]
    ones = jnp.ones_like(v)
    if bias is not None:
        v, ones = (jnp.where(bias == 0, x, 0.0) for x in (v, ones))
    v, ones = jnp.transpose(v), jnp.transpose(ones)
    for head, rows in enumerate(jnp.split(v, heads)):
        values[head] = jnp.concatenate([rows, ones[:SUM_ROWS]]).astype(values.dtype)


def _sum(branches: list, scale) -> Array:
    """(128, queries): text, or text + scale * image. branches: for each head of each its values' sum and its factor."""
    text = jnp.concatenate([value * factor for value, factor in branches[0]])
    if len(branches) == 1:
        return text
    scale = scale[pl.program_id(0)]
    image = jnp.concatenate([value * (factor * scale) for value, factor in branches[1]])
    # Not text + 0 * image: that would turn a -0 of the text into a 0.
    return jnp.where(scale == 0, text, text + image)

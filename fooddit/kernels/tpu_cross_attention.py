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
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Bool, Float

from fooddit.kernels.dispatch import KERNEL_RESULT, Unsupported
from fooddit.kernels.reference import EPSILON, check_heads, resolve_scale
from fooddit.kernels.tpu_common import LANES, LARGEST_LOGIT, LOG2_E, NEVER, dot, options

# Rows added to the transposed values, the smallest tile of bfloat16. The sum of weights is the first of them.
SUM_ROWS = 16
# What a grid step is cut into: a step's queries, its logits, and the (keys, queries) weights held at once, which the
# backward pass has more of. Few large steps are best: each begins and ends with work the matrix unit has no part in.
BLOCK, BLOCK_LOGITS, FORWARD_WEIGHTS, BACKWARD_WEIGHTS = 4096, 4 << 20, 2 << 20, 1 << 20


class Layout(NamedTuple):
    """The static half of a call. block: queries a grid step; keys: of each branch; learned_scale: image_scale gets a
    gradient; interpret runs on a CPU."""

    num_heads: int
    head_dim: int
    block: int
    keys: tuple[int, ...]
    learned_scale: bool
    interpret: bool | pltpu.InterpretParams

    @property
    def heads(self) -> int:
        """In a block of lanes."""
        return LANES // self.head_dim

    def chunks(self, weights: int) -> list[pl.Slice]:
        """A block's queries in pieces of at most `weights` weights."""
        size = _even(self.block, weights // sum(self.keys))
        return [pl.ds(first, min(size, self.block - first)) for first in range(0, self.block, size)]

    def rows(self, branch: int) -> pl.Slice:
        """The keys of a branch among those of all."""
        return pl.ds(sum(self.keys[:branch]), self.keys[branch])

    def name(self, suffix: str) -> str:
        return ("" if len(self.keys) == 1 else "decoupled_") + "cross_attention" + suffix


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
    block = _even(q.shape[1], min(BLOCK, BLOCK_LOGITS // sum(keys)))
    layout = Layout(num_heads, head_dim, block, keys, learned, interpret)
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
    blocks = pl.cdiv(q.shape[1], block)
    return _attend(scale, gains, bias, _padded(q, blocks * block), pairs, layout)[:, : q.shape[1]]


def _even(total: int, most: int) -> int:
    """The size of equal pieces of `total` that are multiples of 128, of at most `most` where that allows one."""
    most = max(most // LANES, 1) * LANES
    return pl.cdiv(pl.cdiv(total, pl.cdiv(total, most)), LANES) * LANES


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
    d_q, d_pairs, d_q_gain, d_k_gains, d_scale = _backward(*kept, d_out, layout)
    d_gains = jnp.concatenate([d_q_gain.sum((0, 1, 2)), d_k_gains.sum((0, 1))])
    if d_scale is not None:
        d_scale = jnp.where(kept[0] == 0, 0.0, d_scale.sum((1, 2, 3)))
    return d_scale, d_gains, None, d_q, d_pairs


_attend.defvjp(_attend_forward, _attend_backward)


def _forward(scale, gains, bias, q, pairs, layout: Layout, keep: bool) -> tuple[Array, Array | None]:
    """The result and, to `keep` for the backward pass, log2 of the sums of weights, (batch, lane blocks, branches *
    heads, tokens)."""
    specs, arrays = _Specs(layout, scale, bias), (scale, gains, bias, q, pairs)
    (batch, tokens, width), rows = q.shape, len(pairs) * layout.heads
    norms = jax.ShapeDtypeStruct((batch, width // LANES, rows, tokens), jnp.float32)
    results = jax.ShapeDtypeStruct(q.shape, q.dtype), norms if keep else None
    shapes = lambda keys: ((keys, LANES), (layout.heads, layout.head_dim + SUM_ROWS, keys))
    call = lambda bounded: pl.pallas_call(
        functools.partial(_forward_kernel, layout=layout, bounded=bounded),
        grid=(batch, width // LANES, tokens // layout.block),
        in_specs=[*specs.shared, specs.query, specs.pairs],
        out_specs=(specs.query, specs.rows(rows) if keep else None),
        out_shape=results,
        scratch_shapes=[[[pltpu.VMEM(shape, q.dtype) for shape in shapes(keys)] for keys in layout.keys]],
        cost_estimate=_cost(layout, q, 2, (arrays, results)),
        name=layout.name("" if bounded else "_large_gains"),
        **options(layout.interpret),
    )
    largest = layout.head_dim * jnp.abs(gains[0]).max() * jnp.abs(gains[1:]).max()
    return jax.lax.cond(largest <= LARGEST_LOGIT, call(True), call(False), *arrays)


def _forward_kernel(scale, gains, bias, q, pairs, out, norms, scratch, *, layout: Layout, bounded: bool):
    @pl.when(pl.program_id(2) == 0)
    def _():
        for n, ((k, v), (keys, values)) in enumerate(zip(pairs, scratch)):
            keys[...] = (_unit(k[0], layout)[0] * gains[n + 1 : n + 2]).astype(keys.dtype)
            _store_values(values, v[0], None if bias is None else bias[0, layout.rows(n)])

    for queries in layout.chunks(FORWARD_WEIGHTS):
        query, branches = _unit(q[0, queries], layout)[0] * gains[:1], []
        for n, (keys, values) in enumerate(scratch):
            heads = []
            for head in range(layout.heads):
                logits, most = dot(keys[...], _only(query, head, layout).astype(q.dtype), (1, 1)), 0.0
                if not bounded:
                    logits = logits if bias is None else logits + bias[0, layout.rows(n)]
                    most = logits.max(axis=0, keepdims=True)
                    logits -= most
                sums = dot(values[head], jnp.exp2(logits).astype(q.dtype), (1, 0))
                value, total = sums[: layout.head_dim], sums[layout.head_dim : layout.head_dim + 1]
                # A query without any key gets zero, not NaN.
                some = total > 0
                heads.append((value, jnp.where(some, 1 / total, 0.0)))
                if norms is not None:
                    row = n * layout.heads + head
                    norms[0, 0, row : row + 1, queries] = jnp.where(some, jnp.log2(total) + most, 0.0)
            branches.append(heads)
        out[0, queries] = jnp.transpose(_sum(branches, scale)).astype(out.dtype)


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


def _backward(scale, gains, bias, q, pairs, norms, d_out, layout: Layout):
    """Gradients of q, of the pairs, of the gains by (batch, lane block, block) and (batch, lane block), and of the
    scale by (batch, lane block, head, query), or None."""
    specs, arrays = _Specs(layout, scale, bias), (scale, gains, bias, q, pairs, norms, d_out)
    batch, tokens, width = q.shape
    grid = batch, width // LANES, tokens // layout.block
    float32 = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)
    d_scale = float32(*grid[:2], layout.heads, tokens) if layout.learned_scale else None
    like = lambda tree: jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)
    results = like(q), like(pairs), float32(*grid, 1, LANES), float32(*grid[:2], len(pairs), LANES), d_scale
    dtypes = q.dtype, jnp.float32, jnp.float32
    return pl.pallas_call(
        functools.partial(_backward_kernel, layout=layout),
        grid=grid,
        in_specs=[*specs.shared, specs.query, specs.pairs, specs.rows(norms.shape[2]), specs.query],
        out_specs=(
            *(specs.query, specs.pairs, specs.query_gain, specs.key_gains),
            specs.rows(layout.heads) if layout.learned_scale else None,
        ),
        out_shape=results,
        scratch_shapes=[[[pltpu.VMEM((keys, LANES), dtype) for dtype in dtypes] for keys in layout.keys]],
        cost_estimate=_cost(layout, q, 5, (arrays, results)),
        name=layout.name("_backward"),
        **options(layout.interpret),
    )(*arrays)


def _backward_kernel(scale, gains, bias, q, pairs, norms, d_out, *refs, layout: Layout):
    d_q, d_pairs, d_q_gain, d_k_gains, d_scale, scratch = refs
    factors = [1.0] + ([] if scale is None else [scale[pl.program_id(0)]])

    @pl.when(pl.program_id(2) == 0)
    def _():
        for n, ((k, _), (keys, d_keys, d_values)) in enumerate(zip(pairs, scratch)):
            keys[...] = (_unit(k[0], layout)[0] * gains[n + 1 : n + 2]).astype(keys.dtype)
            d_keys[...] = jnp.zeros_like(d_keys)
            d_values[...] = jnp.zeros_like(d_values)

    d_gain = jnp.zeros((1, LANES), jnp.float32)
    for queries in layout.chunks(BACKWARD_WEIGHTS):
        unit, root = _unit(q[0, queries], layout)
        query, d_value = unit * gains[:1], d_out[0, queries].astype(jnp.float32)
        d_query = 0.0
        for n, ((_, v), stores) in enumerate(zip(pairs, scratch)):
            d_heads = []
            for head in range(layout.heads):
                sides = (_only(x, head, layout).astype(q.dtype) for x in (query, d_value))
                row = n * layout.heads + head
                column = None if bias is None else bias[0, layout.rows(n)]
                d_head, inner = _through_softmax(*sides, v[0], norms[0, 0, row : row + 1, queries], column, *stores)
                d_heads.append(d_head[layout.head_dim * head : layout.head_dim * (head + 1)])
                if n == 1 and d_scale is not None:
                    d_scale[0, 0, head : head + 1, queries] = inner
            d_query += jnp.concatenate(d_heads) * factors[n]
        d_q_chunk, d_gain_chunk = _through_norm(jnp.transpose(d_query), unit, root, gains[:1], layout)
        d_q[0, queries] = d_q_chunk.astype(d_q.dtype)
        d_gain += d_gain_chunk
    d_q_gain[0, 0, 0] = d_gain

    @pl.when(pl.program_id(2) == pl.num_programs(2) - 1)
    def _():
        for n, ((k, _), (d_k, d_v), (_, d_keys, d_values)) in enumerate(zip(pairs, d_pairs, scratch)):
            gain = gains[n + 1 : n + 2]
            d_k_whole, d_k_gains[0, 0, n : n + 1] = _through_norm(
                d_keys[...] * factors[n], *_unit(k[0], layout), gain, layout
            )
            d_k[0] = d_k_whole.astype(d_k.dtype)
            d_v[0] = (d_values[...] * factors[n]).astype(d_v.dtype)


def _through_softmax(query, d_value, v, norm, bias, keys, d_keys, d_values) -> tuple[Array, Array]:
    """Adds to d_keys and d_values. The query's gradient, (lanes, queries), and the value's product with its own, (1,
    queries): summed here over the keys, as the result holds both branches."""
    logits = dot(keys[...], query, (1, 1))
    weights = jnp.exp2((logits if bias is None else logits + bias) - norm)
    products = weights * dot(v, d_value, (1, 1))
    inner = products.sum(axis=0, keepdims=True)
    d_logits = (products - weights * inner).astype(query.dtype)
    d_values[...] += dot(weights.astype(query.dtype), d_value, (1, 0))
    d_keys[...] += dot(d_logits, query, (1, 0))
    return dot(keys[...], d_logits, (0, 0)), inner


def _unit(x: Array, layout: Layout) -> tuple[Array, Array]:
    """x, float32, divided by its heads' root mean squares; and one over those."""
    x = x.astype(jnp.float32)
    root = jax.lax.rsqrt(_mean(x * x, layout) + EPSILON)
    return x * root, root


def _through_norm(gradient: Array, unit: Array, root: Array, gain: Array, layout: Layout) -> tuple[Array, Array]:
    """The gradients of what `_unit` was given and of the gain, (1, lanes). Logits are in powers of two: LOG2_E."""
    gradient = gradient * (1 / LOG2_E)
    inner = gradient * gain
    return root * (inner - unit * _mean(inner * unit, layout)), jnp.sum(gradient * unit, axis=0, keepdims=True)


def _mean(x: Array, layout: Layout) -> Array:
    """Over the lanes of each head, (rows, 1 or lanes)."""
    if layout.heads == 1:
        return jnp.mean(x, axis=1, keepdims=True)
    sums = (jnp.sum(_only(x, head, layout), axis=1, keepdims=True) for head in range(layout.heads))
    return jnp.where(_of_first_head(x.shape, layout), *sums) / layout.head_dim


def _only(x: Array, head: int, layout: Layout) -> Array:
    """x, float32, with the lanes of the block's other head 0."""
    if layout.heads == 1:
        return x
    return jnp.where(_of_first_head(x.shape, layout), *((x, 0.0) if head == 0 else (0.0, x)))


def _of_first_head(shape: tuple[int, ...], layout: Layout) -> Array:
    return jax.lax.broadcasted_iota(jnp.int32, shape, 1) < layout.head_dim


class _Specs:
    """The blocks of a (batch, block of lanes, block of queries) grid."""

    def __init__(self, layout: Layout, scale: Array | None, bias: Array | None):
        gains, keys = (1 + len(layout.keys), LANES), sum(layout.keys)
        self.shared = (
            None if scale is None else pl.BlockSpec(memory_space=pltpu.SMEM),
            pl.BlockSpec(gains, lambda b, h, i: (0, 0)),
            None if bias is None else pl.BlockSpec((1, keys, 1), lambda b, h, i: (b, 0, 0)),
        )
        self.query = pl.BlockSpec((1, layout.block, LANES), lambda b, h, i: (b, i, h))
        self.pairs = tuple((pl.BlockSpec((1, n, LANES), lambda b, h, i: (b, 0, h)),) * 2 for n in layout.keys)
        self.rows = lambda rows: pl.BlockSpec((1, 1, rows, layout.block), lambda b, h, i: (b, h, 0, i))
        self.query_gain = pl.BlockSpec((1, 1, 1, 1, LANES), lambda b, h, i: (b, h, i, 0, 0))
        self.key_gains = pl.BlockSpec((1, 1, len(layout.keys), LANES), lambda b, h, i: (b, h, 0, 0))


def _cost(layout: Layout, q: Array, products: int, arrays) -> pl.CostEstimate:
    """Of `products` matrix products of all queries with all keys, and one pass over a tree of `arrays`."""
    logits = q.shape[0] * q.shape[1] * sum(layout.keys) * layout.num_heads
    return pl.CostEstimate(
        flops=2 * products * logits * layout.head_dim,
        transcendentals=logits,
        bytes_accessed=sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(arrays)),
    )

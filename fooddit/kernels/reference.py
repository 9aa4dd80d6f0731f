"""Attention with per-head QK-norm in plain jnp: what XLA compiles anywhere, and what every fused kernel must equal.

Public arrays are (batch, tokens, heads * head_dim): a head is a block of lanes, and projections are 2-D weights. A mask
is True where a key may be attended to; a masked key has no influence, and a query without any key gets exactly 0.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from fooddit.kernels.rope import axial_angles, rotate

# Added to the mean square under QK-norm's root.
EPSILON = 1e-6
# (query, key, value, kv_mask) -> out: the products and the softmax, once queries and keys are normalised.
Attend = Callable[[Array, Array, Array, Array | None], Array]


def attend(
    query: Float[Array, "batch tokens heads head_dim"],
    key: Float[Array, "batch keys heads head_dim"],
    value: Float[Array, "batch keys heads head_dim"],
    kv_mask: Bool[Array, "batch keys"] | None,
) -> Float[Array, "batch tokens heads head_dim"]:
    """softmax(query key^T) value in float32, nothing scaled; zero for a query without any key."""
    logits = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=jnp.float32)
    if kv_mask is not None:
        # A finite fill: with -inf a row without keys would be NaN in the softmax and in its gradient.
        logits = jnp.where(kv_mask[:, None, None, :], logits, jnp.finfo(logits.dtype).min)
    weights = jax.nn.softmax(logits, axis=-1).astype(value.dtype)
    out = jnp.einsum("bhqk,bkhd->bqhd", weights, value, preferred_element_type=jnp.float32)
    if kv_mask is not None:
        out = jnp.where(jnp.any(kv_mask, axis=-1)[:, None, None, None], out, 0.0)
    return out


def self_attention(
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
    attend: Attend = attend,
) -> Float[Array, "batch tokens width"]:
    """Multi-head self-attention with RMS QK-norm and axial 2-D RoPE.

    q_scale and k_scale are the gains of the per-head RMS norms. positions are (row, column) of each token in patch
    units, (tokens, 2) for the whole batch or (batch, tokens, 2). softmax_scale is head_dim ** -0.5 if None. The result
    has q's dtype; norms, logits and softmax are float32. QK-norm: Henry et al. 2020, arXiv:2010.04245.
    """
    head_dim = check_heads(q, num_heads, q_scale=q_scale, k_scale=k_scale)
    angles = axial_angles(positions, head_dim)
    # The softmax scale rides on q's gain, so that it costs nothing on the (tokens, tokens) logits.
    query = rotate(_normalize(_heads(q, num_heads), q_scale * resolve_scale(softmax_scale, head_dim)), angles)
    key = rotate(_normalize(_heads(k, num_heads), k_scale), angles)
    out = attend(query.astype(q.dtype), key.astype(k.dtype), _heads(v, num_heads), kv_mask)
    return _merged(out.astype(q.dtype))


def cross_attention(
    q: Float[Array, "batch tokens width"],
    k: Float[Array, "batch keys width"],
    v: Float[Array, "batch keys width"],
    *,
    num_heads: int,
    q_scale: Float[Array, "head_dim"],
    k_scale: Float[Array, "head_dim"],
    kv_mask: Bool[Array, "batch keys"] | None = None,
    softmax_scale: float | None = None,
    attend: Attend = attend,
) -> Float[Array, "batch tokens width"]:
    """Multi-head cross-attention with RMS QK-norm and no positions; arguments as in `self_attention`."""
    head_dim = check_heads(q, num_heads, q_scale=q_scale, k_scale=k_scale)
    query = _normalize(_heads(q, num_heads), q_scale * resolve_scale(softmax_scale, head_dim))
    key = _normalize(_heads(k, num_heads), k_scale)
    out = attend(query.astype(q.dtype), key.astype(k.dtype), _heads(v, num_heads), kv_mask)
    return _merged(out.astype(q.dtype))


def decoupled_cross_attention(
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
    attend: Attend = attend,
) -> Float[Array, "batch tokens width"]:
    """Cross-attention to text plus `image_scale` times cross-attention to image tokens, each with a softmax of its own.

    image_scale is one number, or one per example; 0 equals text alone bit for bit. The sum is float32. Other arguments
    as in `self_attention`. Decoupled cross-attention: Ye et al. 2023 (IP-Adapter), arXiv:2308.06721.
    """
    head_dim = check_heads(q, num_heads, q_scale=q_scale, text_k_scale=text_k_scale, image_k_scale=image_k_scale)
    query = _normalize(_heads(q, num_heads), q_scale * resolve_scale(softmax_scale, head_dim)).astype(q.dtype)
    branches = (text_k, text_v, text_k_scale, text_mask), (image_k, image_v, image_k_scale, image_mask)
    text, image = (
        _merged(attend(query, _normalize(_heads(k, num_heads), gain).astype(k.dtype), _heads(v, num_heads), mask))
        for k, v, gain, mask in branches
    )
    scale = jnp.asarray(image_scale, jnp.float32).reshape(-1, 1, 1)
    # Not text + 0 * image: that would turn a -0 of the text into a 0.
    return jnp.where(scale == 0, text, text + scale * image).astype(q.dtype)


def check_heads(q: Array, num_heads: int, **gains: Array) -> int:
    """head_dim. ValueError if the width is no multiple of num_heads, or a gain is not (head_dim,)."""
    head_dim, rest = divmod(q.shape[-1], num_heads)
    if rest:
        raise ValueError(f"width {q.shape[-1]} of q is not a multiple of num_heads={num_heads}; change one of them")
    for name, gain in gains.items():
        if gain.shape != (head_dim,):
            raise ValueError(f"{name} has shape {gain.shape}, expected one gain per channel of a head: ({head_dim},)")
    return head_dim


def resolve_scale(softmax_scale: float | None, head_dim: int) -> float:
    """head_dim ** -0.5 for None."""
    return head_dim**-0.5 if softmax_scale is None else softmax_scale


def _heads(x: Array, num_heads: int) -> Array:
    return x.reshape(*x.shape[:-1], num_heads, x.shape[-1] // num_heads)


def _normalize(x: Array, gain: Array) -> Array:
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + EPSILON) * gain


def _merged(x: Array) -> Array:
    return x.reshape(*x.shape[:2], -1)

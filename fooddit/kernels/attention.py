"""Attention with per-head QK-norm: one public function each, by the fused kernel that fits what is compiled for.

Public arrays are (batch, tokens, heads * head_dim): a head is a block of lanes, and projections are 2-D weights. A mask
is True where a key may be attended to; a masked key has no influence, and a query without any key gets exactly 0.

`implementation` is "pallas_tpu" (our kernels), "cudnn" (through jax.nn), "xla" (plain jnp), or a sequence of which the
first that works is taken; "auto" is the backend's fused kernel where it works, else "xla". The reasons why none works
are in the error.

`partition` is how (batch, tokens, width) lies on the mesh in context (`jax.set_mesh`): XLA cannot split a Pallas kernel
by itself, so that on several devices each runs it on its part: of the batch, of the heads, and in cross-attention of
the queries.
"""

from functools import partial

import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float

from fooddit.kernels import reference
from fooddit.kernels.arguments import Branch, check_arguments, check_shape
from fooddit.kernels.cudnn import cudnn_attend
from fooddit.kernels.dispatch import Implementation, Target, first_that_works


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
    implementation: Implementation = "auto",
    partition: PartitionSpec | None = None,
) -> Float[Array, "batch tokens width"]:
    """Multi-head self-attention with RMS QK-norm and axial 2-D RoPE.

    q_scale and k_scale are the gains of the per-head RMS norms. positions are (row, column) of each token in patch
    units, (tokens, 2) for the whole batch or (batch, tokens, 2). softmax_scale is head_dim ** -0.5 if None. The result
    has q's dtype; norms, logits and softmax are float32. QK-norm: Henry et al. 2020, arXiv:2010.04245.

    Raises:
      ValueError: shapes that do not fit, an unknown implementation.
      Unsupported: no implementation that was asked for works.
    """
    check_arguments(q, num_heads, q_scale, {"": Branch(k, v, k_scale, kv_mask)})
    check_shape("k", k, q.shape)
    check_shape("positions", positions, (q.shape[1], 2), (*q.shape[:2], 2))
    queries, keys = {"q": q}, {"k": k, "v": v}
    batched, whole = {"kv_mask": kv_mask}, {"q_scale": q_scale, "k_scale": k_scale}
    (batched if positions.ndim == 3 else whole)["positions"] = positions
    options = {"num_heads": num_heads, "softmax_scale": softmax_scale}
    return _first_that_works("self_attention", implementation, partition, queries, keys, batched, whole, options)


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
    implementation: Implementation = "auto",
    partition: PartitionSpec | None = None,
) -> Float[Array, "batch tokens width"]:
    """Multi-head cross-attention with RMS QK-norm and no positions; arguments and errors as in `self_attention`."""
    check_arguments(q, num_heads, q_scale, {"": Branch(k, v, k_scale, kv_mask)})
    queries, keys = {"q": q}, {"k": k, "v": v}
    batched, whole = {"kv_mask": kv_mask}, {"q_scale": q_scale, "k_scale": k_scale}
    options = {"num_heads": num_heads, "softmax_scale": softmax_scale}
    return _first_that_works("cross_attention", implementation, partition, queries, keys, batched, whole, options)


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
    implementation: Implementation = "auto",
    partition: PartitionSpec | None = None,
) -> Float[Array, "batch tokens width"]:
    """Cross-attention to text plus `image_scale` times cross-attention to image tokens, each with a softmax of its own.

    image_scale is one number, or one per example; 0 equals text alone bit for bit. The sum is float32. Other arguments
    and errors as in `self_attention`. Decoupled cross-attention: Ye et al. 2023 (IP-Adapter), arXiv:2308.06721.
    """
    gains = {"q_scale": q_scale, "text_k_scale": text_k_scale, "image_k_scale": image_k_scale}
    text, image = Branch(text_k, text_v, text_k_scale, text_mask), Branch(image_k, image_v, image_k_scale, image_mask)
    check_arguments(q, num_heads, q_scale, {"text_": text, "image_": image})
    queries, keys = {"q": q}, {"text_k": text_k, "text_v": text_v, "image_k": image_k, "image_v": image_v}
    batched, whole = {"text_mask": text_mask, "image_mask": image_mask}, dict(gains)
    options = {"num_heads": num_heads, "softmax_scale": softmax_scale}
    if isinstance(image_scale, (int, float)):
        options["image_scale"] = image_scale  # A number needs no gradient.
    else:
        scale = jnp.asarray(image_scale, jnp.float32)
        check_shape("image_scale", scale, (), q.shape[:1])
        (batched if scale.ndim else whole)["image_scale"] = scale
    return _first_that_works(
        "decoupled_cross_attention", implementation, partition, queries, keys, batched, whole, options
    )


def _first_that_works(name, implementation, partition, queries, keys, batched, whole, options) -> Array:
    """Arrays by how they lie on a mesh: see `tpu_sharding.on_each_device`."""
    plain = partial(getattr(reference, name), **queries, **keys, **batched, **whole, **options)

    def pallas_tpu(where: Target) -> Array:
        # Imported where it is needed: Pallas takes half a second.
        from fooddit.kernels.tpu_sharding import on_each_device, tpu_generation

        rest = {key: value for key, value in options.items() if key != "num_heads"}
        generation = tpu_generation(where)
        if name == "self_attention":
            from fooddit.kernels.tpu_self_attention import tpu_self_attention

            kernel = partial(tpu_self_attention, generation=generation, **rest)
        else:
            from fooddit.kernels import tpu_cross_attention

            kernel = partial(getattr(tpu_cross_attention, f"tpu_{name}"), **rest)
        arrays = {"queries": queries, "keys": keys, "batched": batched, "whole": whole}
        return on_each_device(kernel, **arrays, num_heads=options["num_heads"], partition=partition)

    candidates = {
        "pallas_tpu": pallas_tpu,
        "cudnn": lambda where: plain(attend=partial(cudnn_attend, where=where, partition=partition)),
        "xla": lambda where: plain(),
    }
    return first_that_works(name, implementation, candidates)

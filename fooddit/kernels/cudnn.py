"""Attention by cuDNN's fused kernels (NVIDIA GPUs), through jax.nn; QK-norm and RoPE are left to XLA's fusions."""

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float

from fooddit.kernels.dispatch import Target, Unsupported


def cudnn_attend(
    query: Float[Array, "batch tokens heads head_dim"],
    key: Float[Array, "batch keys heads head_dim"],
    value: Float[Array, "batch keys heads head_dim"],
    kv_mask: Bool[Array, "batch keys"] | None,
    where: Target,
    partition: PartitionSpec | None = None,
) -> Float[Array, "batch tokens heads head_dim"]:
    """softmax(query key^T) value, nothing scaled; zero for a query without any key.

    partition: how the queries lie on the mesh; cuDNN's are not cut along the tokens, and JAX says so only when it
    compiles.

    Raises:
      Unsupported: not a GPU, a dtype, head_dim or partition that cuDNN's flash attention does not take, or no cuDNN.
    """
    head_dim = query.shape[-1]
    if where.platform != "gpu":
        raise Unsupported(f"needs an NVIDIA GPU, the computation is for {where.kind}")
    if query.dtype not in (jnp.bfloat16, jnp.float16):
        raise Unsupported(f"takes bfloat16 and float16, found {query.dtype}")
    if head_dim % 8 or head_dim > 128:
        raise Unsupported(f"takes a head_dim that is a multiple of 8 up to 128, found {head_dim}")
    if partition is not None and (*partition, None, None)[1] is not None:
        raise Unsupported(f"takes whole sequences, found queries cut over {partition[1]!r} (config.mesh.sequence)")
    mask = None if kv_mask is None else kv_mask[:, None, None, :]
    if mask is not None:
        mask = jnp.broadcast_to(mask, (*mask.shape[:2], query.shape[1], mask.shape[3]))
    try:
        out = jax.nn.dot_product_attention(query, key, value, mask=mask, scale=1.0, implementation="cudnn")
    except (RuntimeError, NotImplementedError) as error:  # No cuDNN, one too old, or a case that it has no kernel for.
        raise Unsupported(f"cuDNN refuses it: {error}") from error
    if kv_mask is None:
        return out
    return jnp.where(jnp.any(kv_mask, axis=-1)[:, None, None, None], out, 0)

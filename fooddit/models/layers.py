"""The few layers that every network here is made of: 2-D weights, float32 norms, no biases unless asked for."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from fooddit.kernels import cross_attention, decoupled_cross_attention, self_attention
from fooddit.parallel.rules import (
    cross_attention_partition,
    self_attention_partition,
    shard_heads,
    shard_tokens_of_heads,
)

# What activations may be computed in.
DTYPES = ("float32", "bfloat16", "float16")


class Linear(nnx.Module):
    """y = x W (+ b), W of shape (in_features, out_features).

    `scale` is the standard deviation of a unit-variance input's output; 0 starts at zero. Variance 1 / fan_in at every
    width is what muP asks of input and hidden weights (Yang et al. 2021, arXiv 2203.03466, table 8).
    """

    def __init__(self, in_features: int, out_features: int, *, axes, rngs: nnx.Rngs, scale=1.0, bias=False):
        self.kernel = nnx.Param(
            jax.random.normal(rngs.params(), (in_features, out_features)) * (scale * in_features**-0.5), axes=axes
        )
        self.bias = nnx.Param(jnp.zeros((out_features,)), axes=axes[1:]) if bias else None

    def __call__(self, x: Float[Array, "... inner"]) -> Float[Array, "... outer"]:
        kernel = self.kernel[...].astype(x.dtype)
        # As a product of two matrices: with batch and tokens apart, the gradient of W sums over two axes, and XLA on a
        # CPU first writes a transposed copy of every input of every layer.
        y = (x.reshape(-1, x.shape[-1]) @ kernel).reshape(*x.shape[:-1], kernel.shape[-1])
        return y if self.bias is None else y + self.bias[...].astype(x.dtype)


class RMSNorm(nnx.Module):
    """Root-mean-square norm with a gain, computed in float32 (Zhang & Sennrich 2019, arXiv 1910.07467)."""

    def __init__(self, features: int, *, axis: str = "embed"):
        self.gain = nnx.Param(jnp.ones((features,)), axes=(axis,))

    def __call__(self, x: Float[Array, "... features"]) -> Float[Array, "... features"]:
        return rms_normalise(x) * self.gain[...].astype(x.dtype)


def rms_normalise(x: Float[Array, "... features"], epsilon: float = 1e-6) -> Float[Array, "... features"]:
    """x / rms(x) along the last axis, in float32, back in x's dtype."""
    y = x.astype(jnp.float32)
    return (y * jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + epsilon)).astype(x.dtype)


class SwiGLU(nnx.Module):
    """down(silu(gate(x)) * up(x)) (Shazeer 2020, arXiv 2002.05202); `down` starts at zero."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        inner = swiglu_width(width)
        self.gate = Linear(width, inner, axes=("embed", "mlp"), rngs=rngs)
        self.up = Linear(width, inner, axes=("embed", "mlp"), rngs=rngs)
        self.down = Linear(inner, width, axes=("mlp", "embed"), rngs=rngs, scale=0.0)

    def __call__(self, x: Float[Array, "... width"]) -> Float[Array, "... width"]:
        return self.down(jax.nn.silu(self.gate(x)) * self.up(x))


def swiglu_width(width: int) -> int:
    """8/3 of the model's width, rounded up to full TPU lanes (128), or to 16 in models too narrow for a TPU."""
    multiple = 128 if width >= 384 else 16
    return -(-8 * width // (3 * multiple)) * multiple


class SelfAttention(nnx.Module):
    """Multi-head self-attention with QK-norm and axial 2-D RoPE; the output projection starts at zero."""

    def __init__(self, width: int, head_dim: int, *, rngs: nnx.Rngs, implementation: str = "auto"):
        self.num_heads, self.implementation = width // head_dim, implementation
        self.query = Linear(width, width, axes=("embed", "heads"), rngs=rngs)
        self.key = Linear(width, width, axes=("embed", "heads"), rngs=rngs)
        self.value = Linear(width, width, axes=("embed", "heads"), rngs=rngs)
        self.out = Linear(width, width, axes=("heads", "embed"), rngs=rngs, scale=0.0)
        self.query_norm = nnx.Param(jnp.ones((head_dim,)), axes=("head_dim",))
        self.key_norm = nnx.Param(jnp.ones((head_dim,)), axes=("head_dim",))

    def __call__(self, x: Float[Array, "batch tokens width"], *, positions, mask=None):
        query, key, value = (shard_heads(layer(x), self.num_heads) for layer in (self.query, self.key, self.value))
        attended = self_attention(
            query,
            key,
            value,
            num_heads=self.num_heads,
            q_scale=self.query_norm[...],
            k_scale=self.key_norm[...],
            positions=positions,
            kv_mask=mask,
            implementation=self.implementation,
            partition=self_attention_partition(x.shape[0], self.num_heads),
        )
        return self.out(shard_tokens_of_heads(attended, self.num_heads))


class CrossAttention(nnx.Module):
    """Queries from x, keys and values from a context; an empty (fully masked) context adds exactly nothing.

    With `image_width`, image tokens have keys and values of their own and a softmax of their own, whose result is added
    `image_scale` times (Ye et al. 2023, arXiv:2308.06721); 0 equals no image tokens bit for bit.
    """

    def __init__(
        self,
        width: int,
        context_width: int,
        head_dim: int,
        *,
        rngs: nnx.Rngs,
        image_width: int = 0,
        out_scale: float = 0.0,
        implementation: str = "auto",
    ):
        self.num_heads, self.implementation = width // head_dim, implementation
        self.query = Linear(width, width, axes=("embed", "heads"), rngs=rngs)
        self.key = Linear(context_width, width, axes=("embed", "heads"), rngs=rngs)
        self.value = Linear(context_width, width, axes=("embed", "heads"), rngs=rngs)
        self.out = Linear(width, width, axes=("heads", "embed"), rngs=rngs, scale=out_scale)
        self.query_norm = nnx.Param(jnp.ones((head_dim,)), axes=("head_dim",))
        self.key_norm = nnx.Param(jnp.ones((head_dim,)), axes=("head_dim",))
        if image_width:
            self.image_key = Linear(image_width, width, axes=("embed", "heads"), rngs=rngs)
            # From zero: a model of text that learns to see goes on from what it was.
            self.image_value = Linear(image_width, width, axes=("embed", "heads"), rngs=rngs, scale=0.0)
            self.image_key_norm = nnx.Param(jnp.ones((head_dim,)), axes=("head_dim",))

    def __call__(
        self, x: Float[Array, "batch tokens width"], context, mask, image=None, image_mask=None, image_scale=1.0
    ) -> Float[Array, "batch tokens width"]:
        shared = {
            "num_heads": self.num_heads,
            "q_scale": self.query_norm[...],
            "implementation": self.implementation,
            "partition": cross_attention_partition(*x.shape[:2], self.num_heads),
        }
        query, key, value, key_norm = self.query(x), self.key(context), self.value(context), self.key_norm[...]
        if image is None:
            return self.out(cross_attention(query, key, value, k_scale=key_norm, kv_mask=mask, **shared))
        attended = decoupled_cross_attention(
            query,
            key,
            value,
            self.image_key(image),
            self.image_value(image),
            text_k_scale=key_norm,
            image_k_scale=self.image_key_norm[...],
            text_mask=mask,
            image_mask=image_mask,
            image_scale=image_scale,
            **shared,
        )
        return self.out(attended)

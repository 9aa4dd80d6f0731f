"""What the towers of the CLIP family are made of: norms, attention, MLPs, pooling, tables of positions."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float

from fooddit.models.eclip_config import TowerConfig
from fooddit.models.layers import Linear, SelfAttention, SwiGLU, rms_normalise
from fooddit.parallel.rules import shard_heads, shard_tokens_of_heads

_ACTIVATIONS = {
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
}


class Norm(nnx.Module):
    """RMS norm with a gain, or layer norm with a gain and a bias, in float32."""

    def __init__(self, config: TowerConfig):
        self.kind, self.epsilon = config.norm, config.epsilon
        self.gain = nnx.Param(jnp.ones((config.width,)), axes=("embed",))
        self.bias = nnx.Param(jnp.zeros((config.width,)), axes=("embed",)) if self.kind == "layer" else None

    def __call__(self, x: Float[Array, "... width"]) -> Float[Array, "... width"]:
        if self.bias is None:
            return rms_normalise(x, self.epsilon) * self.gain[...].astype(x.dtype)
        y = x.astype(jnp.float32)
        y = y - y.mean(axis=-1, keepdims=True)
        y = y * jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + self.epsilon)
        return (y * self.gain[...].astype(jnp.float32) + self.bias[...].astype(jnp.float32)).astype(x.dtype)


class Block(nnx.Module):
    """One pre-norm transformer block."""

    def __init__(self, config: TowerConfig, *, rngs: nnx.Rngs, causal: bool = False, attention: str = "auto"):
        self.attention_norm = Norm(config)
        if config.positions == "rope":
            self.attention = SelfAttention(config.width, config.head_dim, rngs=rngs, implementation=attention)
        else:
            self.attention = PlainAttention(config, rngs=rngs, causal=causal)
        self.mlp_norm = Norm(config)
        self.mlp = make_mlp(config, rngs)

    def __call__(self, x: Float[Array, "batch tokens width"], *, positions, mask) -> Float[Array, "batch tokens width"]:
        x = x + self.attention(self.attention_norm(x), positions=positions, mask=mask)
        return x + self.mlp(self.mlp_norm(x))


class PlainAttention(nnx.Module):
    """Multi-head self-attention without positions or QK-norm, bidirectional or causal, as published models have it."""

    def __init__(self, config: TowerConfig, *, rngs: nnx.Rngs, causal: bool):
        width, bias = config.width, config.bias
        self.num_heads, self.causal = width // config.head_dim, causal
        self.query = Linear(width, width, axes=("embed", "heads"), rngs=rngs, bias=bias)
        self.key = Linear(width, width, axes=("embed", "heads"), rngs=rngs, bias=bias)
        self.value = Linear(width, width, axes=("embed", "heads"), rngs=rngs, bias=bias)
        self.out = Linear(width, width, axes=("heads", "embed"), rngs=rngs, scale=0.0, bias=bias)

    def __call__(self, x: Float[Array, "batch tokens width"], *, positions, mask) -> Float[Array, "batch tokens width"]:
        projected = (shard_heads(layer(x), self.num_heads) for layer in (self.query, self.key, self.value))
        attended = attend(*projected, num_heads=self.num_heads, mask=mask, causal=self.causal)
        return self.out(shard_tokens_of_heads(attended, self.num_heads))


def make_mlp(config: TowerConfig, rngs: nnx.Rngs) -> nnx.Module:
    activation, inner, bias = config.activation, config.mlp_width, config.bias
    if activation == "swiglu":
        return SwiGLU(config.width, rngs=rngs)
    return Mlp(config.width, inner, activation, bias=bias, rngs=rngs)


class Mlp(nnx.Module):
    """down(activation(up(x)))."""

    def __init__(self, width: int, inner: int, activation: str, *, bias: bool, rngs: nnx.Rngs):
        self.activation = activation
        self.up = Linear(width, inner, axes=("embed", "mlp"), rngs=rngs, bias=bias)
        self.down = Linear(inner, width, axes=("mlp", "embed"), rngs=rngs, scale=0.0, bias=bias)

    def __call__(self, x: Float[Array, "... width"]) -> Float[Array, "... width"]:
        return self.down(_ACTIVATIONS[self.activation](self.up(x)))


class AttentionPool(nnx.Module):
    """One learned query attends to all tokens, then an MLP (Lee et al. 2019, arXiv 1810.00825; as in SigLIP)."""

    def __init__(self, config: TowerConfig, *, rngs: nnx.Rngs):
        width, bias = config.width, config.bias
        self.num_heads = width // config.head_dim
        self.probe = nnx.Param(jax.random.normal(rngs.params(), (width,)), axes=("embed",))
        self.query = Linear(width, width, axes=("embed", "heads"), rngs=rngs, bias=bias)
        self.key = Linear(width, width, axes=("embed", "heads"), rngs=rngs, bias=bias)
        self.value = Linear(width, width, axes=("embed", "heads"), rngs=rngs, bias=bias)
        self.out = Linear(width, width, axes=("heads", "embed"), rngs=rngs, bias=bias)
        self.norm = Norm(config)
        self.mlp = make_mlp(config, rngs)

    def __call__(self, x: Float[Array, "batch tokens width"], mask) -> Float[Array, "batch width"]:
        probe = jnp.broadcast_to(self.probe[...].astype(x.dtype), (x.shape[0], 1, x.shape[2]))
        x = self.out(attend(self.query(probe), self.key(x), self.value(x), num_heads=self.num_heads, mask=mask))
        return (x + self.mlp(self.norm(x)))[:, 0]


def attend(
    query: Float[Array, "batch tokens width"],
    key: Float[Array, "batch keys width"],
    value: Float[Array, "batch keys width"],
    *,
    num_heads: int,
    mask: Bool[Array, "batch keys"] | None,
    causal: bool = False,
) -> Float[Array, "batch tokens width"]:
    """softmax(query key^T / sqrt(head_dim)) value, head by head; a mask is True where a key may be attended to."""
    heads = (x.reshape(*x.shape[:2], num_heads, -1) for x in (query, key, value))
    seen = None if mask is None else mask[:, None, None, :]
    return jax.nn.dot_product_attention(*heads, mask=seen, is_causal=causal).reshape(query.shape)


def mean_over(x: Float[Array, "batch tokens width"], mask: Bool[Array, "batch tokens"] | None):
    """The mean over the tokens that the mask has, in float32; zero of none."""
    x = x.astype(jnp.float32)
    if mask is None:
        return x.mean(axis=1)
    weight = mask.astype(jnp.float32)[..., None]
    return (x * weight).sum(axis=1) / jnp.maximum(weight.sum(axis=1), 1)


def resize_table(table: Float[Array, "rows*columns width"], shape: tuple[int, int], method: str) -> Array:
    """A square table of positions, resized to a grid of (rows, columns): (rows * columns, width), in float32.

    method: "bicubic" (a = -0.75, edges repeated, not antialiased), as CLIP and SigLIP are used at other sizes, or
    "bilinear" (antialiased), as SigLIP 2 was trained.
    """
    side = round(table.shape[0] ** 0.5)
    if shape == (side, side):
        return table.astype(jnp.float32)
    rows, columns = (_RESIZE[method](side, size) for size in shape)
    grid = table.astype(jnp.float32).reshape(side, side, -1)
    resized = jnp.einsum("rs,ct,stw->rcw", rows, columns, grid, precision="highest")
    return resized.reshape(shape[0] * shape[1], -1)


def _bicubic(source: int, target: int) -> np.ndarray:
    """(target, source) weights of Keys' cubic (1981), a = -0.75, at pixel centres."""
    a = -0.75
    where = (np.arange(target) + 0.5) * source / target - 0.5
    weights = np.zeros((target, source))
    for tap in range(-1, 3):
        index = np.floor(where).astype(int) + tap
        x = np.abs(where - index)
        near = ((a + 2) * x - (a + 3)) * x * x + 1
        far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
        np.add.at(weights, (np.arange(target), index.clip(0, source - 1)), np.where(x <= 1, near, far))
    return weights.astype(np.float32)


def _bilinear(source: int, target: int) -> np.ndarray:
    """(target, source) weights of a triangle that is as wide as a pixel of the coarser grid."""
    scale = source / target
    centre = (np.arange(target) + 0.5) * scale - 0.5
    weights = 1 - np.abs(np.arange(source) - centre[:, None]) / max(scale, 1)
    weights = weights.clip(min=0)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


_RESIZE = {"bicubic": _bicubic, "bilinear": _bilinear}

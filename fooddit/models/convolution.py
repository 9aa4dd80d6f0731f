"""Convolutional parts shared by the autoencoders, the discriminator and the scene reader: NHWC."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from fooddit.models.layers import rms_normalise


class Conv(nnx.Module):
    """A 2-D convolution; `scale` as in `layers.Linear`.

    `padding`: zeros on every side; None is "SAME" (with stride 2 and sides that are even, one row below and one column
    to the right).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        rngs: nnx.Rngs,
        stride: int = 1,
        scale: float = 1.0,
        bias: bool = True,
        padding: int | None = None,
    ):
        shape = (kernel, kernel, inputs, outputs)
        deviation = scale * (kernel * kernel * inputs) ** -0.5
        self.stride, self.padding = stride, "SAME" if padding is None else ((padding, padding),) * 2
        self.kernel = nnx.Param(jax.random.normal(rngs.params(), shape) * deviation)
        self.bias = nnx.Param(jnp.zeros((outputs,))) if bias else None

    def __call__(self, x: Float[Array, "batch height width inputs"]) -> Float[Array, "batch h w outputs"]:
        y = jax.lax.conv_general_dilated(
            x,
            self.kernel[...].astype(x.dtype),
            (self.stride, self.stride),
            self.padding,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return y if self.bias is None else y + self.bias[...].astype(x.dtype)


class GroupNorm(nnx.Module):
    """Norm over a picture's positions and each of `groups` runs of channels, with gain and bias, computed in float32.

    Wu and He 2018, arXiv:1803.08494.
    """

    def __init__(self, channels: int, groups: int, *, epsilon: float = 1e-6):
        if channels % groups:
            raise ValueError(f"{channels} channels cannot be cut into {groups} groups; expected a divisor")
        self.groups, self.epsilon = groups, epsilon
        self.gain = nnx.Param(jnp.ones((channels,)))
        self.bias = nnx.Param(jnp.zeros((channels,)))

    def __call__(self, x: Float[Array, "batch *positions channels"]) -> Float[Array, "batch *positions channels"]:
        centred = x.astype(jnp.float32) - self._mean(x)
        y = centred * jax.lax.rsqrt(self._mean(centred * centred) + self.epsilon)
        return (y * self.gain[...] + self.bias[...]).astype(x.dtype)

    def _mean(self, x):
        """(batch, 1..., channels): of each channel that of its group, in float32.

        Over positions first: x itself with its channels in groups would waste a TPU's lanes.
        """
        channels = x.mean(axis=tuple(range(1, x.ndim - 1)), keepdims=True, dtype=jnp.float32)
        grouped = channels.reshape(*channels.shape[:-1], self.groups, -1).mean(axis=-1, keepdims=True)
        return jnp.repeat(grouped, x.shape[-1] // self.groups, axis=-1).reshape(channels.shape)


class ResidualBlock(nnx.Module):
    """x + conv(silu(conv(silu(norm x)))), the last convolution starting at zero; the norm is over channels."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        self.first = Conv(channels, channels, 3, rngs=rngs, scale=1.5)
        self.second = Conv(channels, channels, 3, rngs=rngs, scale=0.0)

    def __call__(self, x: Float[Array, "batch height width channels"]) -> Float[Array, "batch height width channels"]:
        return x + self.second(jax.nn.silu(self.first(jax.nn.silu(rms_normalise(x)))))


def space_to_depth(x: Float[Array, "batch height width channels"], factor: int) -> Float[Array, "batch h w c"]:
    """Each factor x factor square of pixels becomes one position's channels (row, column, channel)."""
    b, h, w, c = x.shape
    x = x.reshape(b, h // factor, factor, w // factor, factor, c).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, h // factor, w // factor, factor * factor * c)


def depth_to_space(x: Float[Array, "batch h w c"], factor: int) -> Float[Array, "batch height width channels"]:
    """The inverse of `space_to_depth`."""
    b, h, w, c = x.shape
    x = x.reshape(b, h, w, factor, factor, c // factor**2).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, h * factor, w * factor, c // factor**2)


def upsample(x: Float[Array, "batch height width channels"]) -> Float[Array, "batch h w channels"]:
    """Twice the size, every position repeated (nearest)."""
    b, h, w, c = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None, :], (b, h, 2, w, 2, c))
    return x.reshape(b, 2 * h, 2 * w, c)


def numbered(layers: Sequence[nnx.Module]) -> nnx.Dict:
    """Layers in a row whose parameters go by their numbers, "0", "1", ..., as torch's ModuleList has them."""
    return nnx.Dict({str(i): layer for i, layer in enumerate(layers)})


def run(layers: nnx.Dict, x: jax.Array) -> jax.Array:
    """x through layers of `numbered`, one after the other."""
    for i in range(len(layers)):
        x = layers[str(i)](x)
    return x

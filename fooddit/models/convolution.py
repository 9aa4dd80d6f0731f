"""Convolutional parts shared by the autoencoder and the scene reader: NHWC, same padding."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from fooddit.models.layers import rms_normalise


class Conv(nnx.Module):
    """A 2-D convolution with bias; `scale` as in `layers.Linear`."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, rngs: nnx.Rngs, stride: int = 1, scale: float = 1.0):
        shape = (kernel, kernel, inputs, outputs)
        deviation = scale * (kernel * kernel * inputs) ** -0.5
        self.stride = stride
        self.kernel = nnx.Param(jax.random.normal(rngs.params(), shape) * deviation)
        self.bias = nnx.Param(jnp.zeros((outputs,)))

    def __call__(self, x: Float[Array, "batch height width inputs"]) -> Float[Array, "batch h w outputs"]:
        y = jax.lax.conv_general_dilated(
            x,
            self.kernel[...].astype(x.dtype),
            (self.stride, self.stride),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return y + self.bias[...].astype(x.dtype)


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

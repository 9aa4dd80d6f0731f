"""A small convolutional network with one head for each thing that is read from a scene."""

from collections.abc import Sequence

import jax
from flax import nnx
from jaxtyping import Array, Float

from fooddit.models.convolution import Conv, ResidualBlock
from fooddit.models.layers import Linear


class SceneClassifier(nnx.Module):
    """64 x 64 pixels in [-1, 1] -> the outputs of all heads, side by side: an attribute's logits, a hue's direction.

    No global pooling: a garnish is read at the vessel's rim, a light in the shadow. `widths` are the channels at a
    half, a quarter and an eighth of the resolution, `squeezed` those that the hidden layer of width `hidden` sees.
    """

    size = 64

    def __init__(
        self,
        heads: Sequence[int],
        *,
        rngs: nnx.Rngs,
        widths: tuple[int, int, int] = (32, 64, 128),
        squeezed: int = 32,
        hidden: int = 128,
    ):
        self.heads = tuple(heads)
        half, quarter, eighth = widths
        self.stem = Conv(3, half, 5, rngs=rngs, stride=2)
        self.down_1 = Conv(half, quarter, 3, rngs=rngs, stride=2, scale=1.5)
        self.block_1 = ResidualBlock(quarter, rngs=rngs)
        self.down_2 = Conv(quarter, eighth, 3, rngs=rngs, stride=2, scale=1.5)
        self.block_2 = ResidualBlock(eighth, rngs=rngs)
        self.squeeze = Conv(eighth, squeezed, 1, rngs=rngs, scale=1.5)
        self.hidden = Linear(8 * 8 * squeezed, hidden, axes=("features", "features"), rngs=rngs, bias=True)
        self.out = Linear(hidden, sum(heads), axes=("features", "features"), rngs=rngs, bias=True)

    def __call__(self, pixels: Float[Array, "batch 64 64 3"]) -> Float[Array, "batch outputs"]:
        return self.out(self.features(pixels))

    def features(self, pixels: Float[Array, "batch 64 64 3"]) -> Float[Array, "batch hidden"]:
        """What all heads are read from."""
        x = jax.nn.silu(self.down_1(jax.nn.silu(self.stem(pixels))))
        x = jax.nn.silu(self.down_2(self.block_1(x)))
        x = jax.nn.silu(self.squeeze(self.block_2(x)))
        return jax.nn.silu(self.hidden(x.reshape(x.shape[0], -1)))

    def split(self, outputs: Float[Array, "batch outputs"]) -> list[Float[Array, "batch head"]]:
        """The outputs head by head."""
        parts, start = [], 0
        for count in self.heads:
            parts.append(outputs[:, start : start + count])
            start += count
        return parts

"""A small convolutional classifier with one head for each attribute of a scene."""

from collections.abc import Sequence

import jax
from flax import nnx
from jaxtyping import Array, Float

from fooddit.models.convolution import Conv, ResidualBlock
from fooddit.models.layers import Linear


class SceneClassifier(nnx.Module):
    """64 x 64 pixels in [-1, 1] -> the logits of all attributes, side by side.

    The head sees where things are (no global pooling): a garnish is read at the vessel's rim, a light in the shadow.
    """

    size = 64

    def __init__(self, classes: Sequence[int], *, rngs: nnx.Rngs):
        self.classes = tuple(classes)
        self.stem = Conv(3, 32, 5, rngs=rngs, stride=2)
        self.down_1 = Conv(32, 64, 3, rngs=rngs, stride=2, scale=1.5)
        self.block_1 = ResidualBlock(64, rngs=rngs)
        self.down_2 = Conv(64, 128, 3, rngs=rngs, stride=2, scale=1.5)
        self.block_2 = ResidualBlock(128, rngs=rngs)
        self.squeeze = Conv(128, 32, 1, rngs=rngs, scale=1.5)
        self.hidden = Linear(8 * 8 * 32, 128, axes=("features", "features"), rngs=rngs, bias=True)
        self.out = Linear(128, sum(classes), axes=("features", "features"), rngs=rngs, bias=True)

    def __call__(self, pixels: Float[Array, "batch 64 64 3"]) -> Float[Array, "batch logits"]:
        x = jax.nn.silu(self.down_1(jax.nn.silu(self.stem(pixels))))
        x = jax.nn.silu(self.down_2(self.block_1(x)))
        x = jax.nn.silu(self.squeeze(self.block_2(x)))
        return self.out(jax.nn.silu(self.hidden(x.reshape(x.shape[0], -1))))

    def split(self, logits: Float[Array, "batch logits"]) -> list[Float[Array, "batch classes"]]:
        """The logits attribute by attribute."""
        parts, start = [], 0
        for count in self.classes:
            parts.append(logits[:, start : start + count])
            start += count
        return parts

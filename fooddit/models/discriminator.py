"""The critic of an autoencoder's pictures: is this patch from a photo or from a decoder?"""

from dataclasses import dataclass

import jax
from flax import nnx
from jaxtyping import Array, Float

from fooddit.models.convolution import Conv, numbered
from fooddit.models.layers import rms_normalise
from fooddit.parallel import shard_batch


@dataclass(frozen=True)
class DiscriminatorConfig:
    """width: channels after the first halving, doubled at each further one up to eight times; depth: halvings."""

    width: int = 64
    depth: int = 3

    def __post_init__(self):
        for name in ("width", "depth"):
            if getattr(self, name) < 1:
                raise ValueError(f"discriminator.{name} must be at least 1, found {getattr(self, name)}")

    @property
    def widths(self) -> list[int]:
        return [self.width * 2 ** min(i, 3) for i in range(self.depth)]


class PatchDiscriminator(nnx.Module):
    """Pixels to one logit a patch (Isola et al. 2017, arXiv:1611.07004); real is above zero.

    The norm is over channels at each position, where the original has batch norm: a patch is judged by itself, and an
    example by itself, so that the parts of an accumulated batch add up to the whole.
    """

    def __init__(self, config: DiscriminatorConfig, *, rngs: nnx.Rngs):
        inputs = [3, *config.widths]
        self.layers = numbered(
            [Conv(a, b, 4, rngs=rngs, stride=2, scale=2**0.5) for a, b in zip(inputs, config.widths)]
        )
        self.out = Conv(inputs[-1], 1, 3, rngs=rngs)

    def __call__(self, pixels: Float[Array, "batch height width 3"]) -> Float[Array, "batch h w"]:
        x = pixels
        for i in range(len(self.layers)):
            x = self.layers[str(i)](x)
            x = shard_batch(jax.nn.leaky_relu(x if i == 0 else rms_normalise(x), 0.2))
        return self.out(x)[..., 0]


def multiplications(config: DiscriminatorConfig, side: int) -> int:
    """Of judging one square picture."""
    inputs = [3, *config.widths]
    halvings = sum((side >> i + 1) ** 2 * 16 * inputs[i] * inputs[i + 1] for i in range(config.depth))
    return halvings + (side >> config.depth) ** 2 * 9 * inputs[-1]

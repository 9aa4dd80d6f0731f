"""What every autoencoder meets, a tiny one of ours, and the steps between bytes, pixels and patches."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from fooddit.models.convolution import Conv, ResidualBlock, depth_to_space, space_to_depth
from fooddit.models.module import Definition, define
from fooddit.models.weights import load_weights
from fooddit.parallel.placement import place_whole


@dataclass(frozen=True)
class FrozenAutoencoder:
    """A trained autoencoder, wherever it came from.

    Attributes:
      definition: shapes, and `bind`, which gives a module with `encode` (pixels in [-1, 1] to latents, or to mean and
        log-variance side by side) and `decode` (latents to pixels).
      load: shardings (a tree of them, or None: one device) -> the arrays.
      factor: pixels a side of one latent position.
      channels: of a latent.
      variational: whether `encode` gives a log-variance.
      mean, deviation: of each channel, by whoever trained it: (z - mean) / deviation has about unit variance.
      description: JSON that says where it came from, with its hash.
    """

    definition: Definition
    load: Callable[[Any], Any]
    factor: int
    channels: int
    variational: bool
    mean: Float[np.ndarray, "channels"]
    deviation: Float[np.ndarray, "channels"]
    description: dict


@dataclass(frozen=True)
class TinyAutoencoderConfig:
    """Attributes:
    channels: latent channels at one eighth of the resolution.
    width: convolution channels at one eighth; the stages at one quarter have two thirds of it.
    variational: whether it gives a log-variance beside the mean, and so learns how exact each latent has to be.
    """

    channels: int = 8
    width: int = 96
    variational: bool = False


class TinyAutoencoder(nnx.Module):
    """A small f8 autoencoder: few convolutions, most of them in the decoder, since training only encodes.

    An exported file holds mean and deviation of each latent channel besides, by which a picture space standardises.
    """

    factor = 8

    def __init__(self, config: TinyAutoencoderConfig, *, rngs: nnx.Rngs):
        width, inner = config.width, config.width * 2 // 3
        self.stem = Conv(48, inner, 3, rngs=rngs)
        self.down = Conv(4 * inner, width, 1, rngs=rngs)
        self.encode_block = ResidualBlock(width, rngs=rngs)
        self.to_latent = Conv(width, config.channels * (2 if config.variational else 1), 1, rngs=rngs)
        self.from_latent = Conv(config.channels, width, 3, rngs=rngs)
        self.decode_block_1 = ResidualBlock(width, rngs=rngs)
        self.decode_block_2 = ResidualBlock(width, rngs=rngs)
        self.up = Conv(width, 4 * inner, 1, rngs=rngs)
        self.decode_block_3 = ResidualBlock(inner, rngs=rngs)
        self.decode_block_4 = ResidualBlock(inner, rngs=rngs)
        self.to_pixels = Conv(inner, 48, 3, rngs=rngs)

    def encode(self, image: Float[Array, "batch height width 3"]) -> Float[Array, "batch h w moments"]:
        """Pixels in [-1, 1], sides multiples of 8, to latents (or their moments) at an eighth of the size."""
        x = jax.nn.silu(self.stem(space_to_depth(image, 4)))
        x = self.encode_block(self.down(space_to_depth(x, 2)))
        return self.to_latent(x)

    def decode(self, latent: Float[Array, "batch h w channels"]) -> Float[Array, "batch height width 3"]:
        """Latents to pixels, about [-1, 1] (not clipped)."""
        x = self.decode_block_2(self.decode_block_1(self.from_latent(latent)))
        x = depth_to_space(self.up(x), 2)
        x = self.decode_block_4(self.decode_block_3(x))
        return depth_to_space(self.to_pixels(x), 4)


def open_tiny(path: str) -> FrozenAutoencoder:
    """A TinyAutoencoder from a file that a run's --export wrote, or builtin:NAME.

    Raises:
      FileNotFoundError: no such file; WeightsError: not one of ours.
    """
    params, stored, digest = load_weights(path)
    config = TinyAutoencoderConfig(**stored["config"])
    definition = define(lambda rngs: TinyAutoencoder(config, rngs=rngs))
    weights = params["weights"]
    return FrozenAutoencoder(
        definition=definition,
        load=lambda shardings=None: place(weights, shardings),
        factor=TinyAutoencoder.factor,
        channels=config.channels,
        variational=config.variational,
        mean=params["mean"],
        deviation=params["deviation"],
        description={"autoencoder": path, "sha256": digest},
    )


def place(arrays, shardings=None):
    """A tree of host arrays on the devices: laid out by a tree of shardings, or on one of them."""
    if shardings is None:
        return jax.tree.map(jnp.asarray, arrays)
    return jax.tree.map(place_whole, arrays, shardings)


def pixels_from_bytes(image: jax.Array) -> Float[Array, "batch height width 3"]:
    """uint8 in [0, 255] to float32 in [-1, 1]."""
    return image.astype(jnp.float32) / 127.5 - 1


def bytes_from_pixels(pixels: jax.Array) -> jax.Array:
    """Float in [-1, 1] (clipped) to uint8 in [0, 255]."""
    return jnp.round((jnp.clip(pixels, -1, 1) + 1) * 127.5).astype(jnp.uint8)


def patchify(grid: Float[Array, "batch h w channels"], patch: int) -> Float[Array, "batch tokens features"]:
    """A grid as a row-major sequence of patch x patch squares."""
    squares = space_to_depth(grid, patch)
    return squares.reshape(squares.shape[0], -1, squares.shape[-1])


def unpatchify(tokens: Float[Array, "batch tokens features"], shape: tuple[int, int], patch: int) -> jax.Array:
    """The inverse of `patchify` for a grid of `shape` (rows, columns of patches); padding tokens are dropped."""
    rows, columns = shape
    squares = tokens[:, : rows * columns].reshape(tokens.shape[0], rows, columns, -1)
    return depth_to_space(squares, patch)


def patch_positions(shape: tuple[int, int]) -> Float[np.ndarray, "tokens 2"]:
    """(row, column) of each patch, from the top-left, as floats; of numpy, so that no device is needed to know them."""
    return np.indices(shape, np.float32).reshape(2, -1).T

"""Between pictures and the tokens a diffusion model sees: pixels or latents, patches, padding, positions."""

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt8

from fooddit.models.autoencoder import (
    TinyAutoencoder,
    TinyAutoencoderConfig,
    bytes_from_pixels,
    patch_positions,
    patchify,
    pixels_from_bytes,
    unpatchify,
)
from fooddit.models.module import define
from fooddit.models.weights import load_weights


@dataclass(frozen=True)
class SpaceConfig:
    """Attributes:
    autoencoder: "pixels" (none), "builtin:scenes" (the tiny one for dish scenes) or a file of `main.py` with
      configs/autoencoder.py.
    patch: side of a token in positions of the grid (pixels or latents).
    """

    autoencoder: str = "pixels"
    patch: int = 4

    def __post_init__(self):
        if self.patch < 1:
            raise ValueError(f"space.patch must be at least 1, found {self.patch}")


class Tokens(NamedTuple):
    """A batch in token form; the mask is False at padding."""

    values: Float[Array, "batch tokens features"]
    positions: Float[Array, "tokens 2"]
    mask: Bool[Array, "tokens"]


class PictureSpace:
    """Encodes pictures to padded tokens and back.

    Attributes:
      params: the autoencoder's arrays, frozen ({} for pixels): an argument of `encode` and `decode`, so that they can
        be jitted and sharded like any other.
      grid: side of one token in pixels; sides of pictures are multiples of it.
      features: values of one token.
      description: where the autoencoder came from, with its hash; for the checkpoint.
    """

    def __init__(self, config: SpaceConfig):
        self.config = config
        if config.autoencoder == "pixels":
            self.params, self._autoencoder, channels, factor = {}, None, 3, 1
            self.description = {"autoencoder": "pixels"}
        else:
            params, description, digest = load_weights(config.autoencoder)
            shape = TinyAutoencoderConfig(**description["config"])
            self.params = {
                "weights": params["weights"],
                "mean": np.asarray(params["mean"]),
                "deviation": np.asarray(params["deviation"]),
            }
            self._autoencoder = define(lambda rngs: TinyAutoencoder(shape, rngs=rngs))
            channels, factor = shape.channels, TinyAutoencoder.factor
            self.description = {"autoencoder": config.autoencoder, "sha256": digest}
        self.grid = factor * config.patch
        self.features = channels * config.patch**2

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of tokens of a picture. ValueError for sides that are not multiples of `grid`."""
        if height % self.grid or width % self.grid or min(height, width) < 1:
            raise ValueError(
                f"a picture of {height} x {width} pixels: expected sides that are multiples of {self.grid}"
            )
        return height // self.grid, width // self.grid

    def encode(self, params, image: UInt8[Array, "batch height width 3"], length: int) -> Tokens:
        """Pictures (of one size) to `length` tokens, the last ones padding."""
        shape = self.shape(*image.shape[1:3])
        grid = pixels_from_bytes(image)
        if self._autoencoder is not None:
            latent = self._autoencoder.bind(params["weights"]).encode(grid)
            grid = (latent - params["mean"]) / params["deviation"]
        tokens = patchify(grid, self.config.patch)
        missing = length - tokens.shape[1]
        if missing < 0:
            raise ValueError(f"a picture of {shape} tokens is longer than the model's {length}")
        return Tokens(
            jnp.pad(tokens, ((0, 0), (0, missing), (0, 0))),
            jnp.pad(patch_positions(shape), ((0, missing), (0, 0))),
            jnp.arange(length) < length - missing,
        )

    def decode(
        self, params, tokens: Float[Array, "batch tokens features"], shape: tuple[int, int]
    ) -> UInt8[Array, "batch height width 3"]:
        """Tokens of pictures of `shape` (rows, columns) to pictures."""
        grid = unpatchify(tokens, shape, self.config.patch)
        if self._autoencoder is not None:
            grid = grid * params["deviation"] + params["mean"]
            grid = self._autoencoder.bind(params["weights"]).decode(grid)
        return bytes_from_pixels(grid)

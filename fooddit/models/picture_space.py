"""Between pictures and the tokens a diffusion model sees: pixels or latents, patches, padding, positions."""

from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt8

from fooddit.models.autoencoder import (
    FrozenAutoencoder,
    bytes_from_pixels,
    open_tiny,
    patch_positions,
    patchify,
    pixels_from_bytes,
    place,
    unpatchify,
)
from fooddit.models.autoencoder_kl_folder import PUBLISHED, open_kl
from fooddit.models.latent_statistics import LatentStatistics
from fooddit.models.taesd import open_taesd, taesd_files
from fooddit.models.weights import BUILTIN


@dataclass(frozen=True)
class SpaceConfig:
    """Attributes:
    autoencoder: "pixels" (none); "builtin:scenes", the tiny one for dish scenes, or "builtin:dishes", for styled ones
      too; a file of `main.py --export` with configs/autoencoder.py; a folder in the diffusers layout (AutoencoderKL),
      published or of configs/autoencoder_kl.py; a folder with TAESD's NAME_encoder and NAME_decoder, .safetensors or
      .pth; or "sd", "sdxl", "sd3", "flux": a shape that can be compiled, not run.
    patch: side of a token in positions of the grid (pixels or latents).
    dtype: of the autoencoder's activations.
    statistics: the latent_statistics.json that `fooddit prepare --cache` keeps with records: each channel of the
      latents is standardised by what was measured there; "": by what the autoencoder's makers say.
    """

    autoencoder: str = "pixels"
    patch: int = 4
    dtype: str = "float32"
    statistics: str = ""

    def __post_init__(self):
        if self.dtype not in ("float32", "bfloat16"):
            raise ValueError(f"space.dtype: found {self.dtype!r}, expected float32 or bfloat16")
        if self.patch < 1:
            raise ValueError(f"space.patch must be at least 1, found {self.patch}")
        if self.statistics and self.autoencoder == "pixels":
            raise ValueError(f"space.statistics: found {self.statistics!r}, expected none: pixels have no latents")


class Tokens(NamedTuple):
    """A batch in token form; the mask is False at padding.

    `values` are latents, or the means of their posterior where there is a `log_variance`.
    """

    values: Float[Array, "batch tokens features"]
    log_variance: Float[Array, "batch tokens features"] | None
    positions: Float[Array, "tokens 2"]
    mask: Bool[Array, "tokens"]


class PictureSpace:
    """Encodes pictures to padded tokens and back. A part of what a step reads (`training.frozen.FrozenPart`).

    Moments have the scale that the autoencoder's makers give them, so that stored ones serve any run; tokens are
    standardised by a dataset's statistics besides, if they are given (`standardised`).

    Attributes:
      shapes, axes: of the arrays that `moments` and `decode` take ({} for pixels).
      grid: side of one token in pixels; sides of pictures are multiples of it.
      features: values of one token.
      variational: whether moments hold a log-variance; moments_width: values of one position of them.
      description: where the autoencoder came from, with its hash, and a dataset's statistics; for the checkpoint.
    """

    def __init__(self, config: SpaceConfig):
        self.config, self._standard = config, None
        self._autoencoder = None if config.autoencoder == "pixels" else open_autoencoder(config.autoencoder)
        if self._autoencoder is None:
            self.description: dict[str, Any] = {"autoencoder": "pixels"}
            self.shapes: dict[str, Any] = {}
            self._channels, factor, self.variational = 3, 1, False
        else:
            found = self._autoencoder
            # The default adds nothing: what caches and checkpoints have kept stays valid.
            kind = {} if config.dtype == "float32" else {"dtype": config.dtype}
            self.description = found.description | kind
            self._channels, factor, self.variational = found.channels, found.factor, found.variational
            self._scale = {name: np.asarray(getattr(found, name), np.float32) for name in ("mean", "deviation")}
            self.shapes = {"weights": found.definition.shapes} | {
                name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in self._scale.items()
            }
        # Whole on every device: an autoencoder is small beside the model, and its convolutions are cut by pictures.
        self.axes = jax.tree.map(lambda leaf: ("features",) * len(leaf.shape), self.shapes)
        self.moments_width = self._channels * (2 if self.variational else 1)
        self.grid = factor * config.patch
        self.features = self._channels * config.patch**2

    def standardised(self, statistics: LatentStatistics) -> "PictureSpace":
        """This space with tokens of mean 0 and deviation 1 in each channel over the pictures that were measured.

        Raises:
          ValueError: statistics of another number of channels.
        """
        space = copy(self)
        space._standard = _standard(self._autoencoder, statistics)
        space.description = self.description | {"statistics": statistics.to_dict()}
        return space

    def load(self, shardings: Any = None) -> dict:
        """The autoencoder's arrays, laid out by a tree of shardings; on one device if None."""
        if self._autoencoder is None:
            return {}
        parts = (None, None) if shardings is None else (shardings["weights"], {k: shardings[k] for k in self._scale})
        return {"weights": self._autoencoder.load(parts[0]), **place(self._scale, parts[1])}

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of tokens of a picture. ValueError for sides that are not multiples of `grid`."""
        if height % self.grid or width % self.grid or min(height, width) < 1:
            raise ValueError(
                f"a picture of {height} x {width} pixels: expected sides that are multiples of {self.grid}"
            )
        return height // self.grid, width // self.grid

    def moments(self, params, image: UInt8[Array, "batch height width 3"]) -> Float[Array, "batch h w moments"]:
        """Pictures to what is known of their latents: the mean and, if `variational`, the log-variance beside it.

        This is what can be stored; a latent is drawn from it anew each time that it is looked at.
        """
        self.shape(*image.shape[1:3])
        pixels = pixels_from_bytes(image)
        if self._autoencoder is None:
            return pixels
        network = self._autoencoder.definition.bind(params["weights"])
        moments = network.encode(pixels.astype(self.config.dtype)).astype(jnp.float32)
        mean = (moments[..., : self._channels] - params["mean"]) / params["deviation"]
        if not self.variational:
            return mean
        return jnp.concatenate([mean, moments[..., self._channels :] - 2 * jnp.log(params["deviation"])], axis=-1)

    def tokens(self, moments: Float[Array, "batch h w moments"], length: int) -> Tokens:
        """Moments of pictures of one size as `length` tokens, the last ones padding."""
        patch = self.config.patch
        shape = (moments.shape[1] // patch, moments.shape[2] // patch)
        missing = length - shape[0] * shape[1]
        if missing < 0:
            raise ValueError(f"a picture of {shape} tokens is longer than the model's {length}")
        # A cache holds them as float16.
        moments = moments.astype(jnp.float32)
        parts = jnp.split(moments, 2, axis=-1) if self.variational else [moments]
        if self._standard is not None:
            mean, deviation = self._standard
            parts[0] = (parts[0] - mean) / deviation
            parts[1:] = [part - 2 * jnp.log(deviation) for part in parts[1:]]
        padded = [jnp.pad(patchify(part, patch), ((0, 0), (0, missing), (0, 0))) for part in parts]
        return Tokens(
            padded[0],
            padded[1] if self.variational else None,
            jnp.pad(patch_positions(shape), ((0, missing), (0, 0))),
            jnp.arange(length) < length - missing,
        )

    def decode(
        self, params, tokens: Float[Array, "batch tokens features"], shape: tuple[int, int]
    ) -> UInt8[Array, "batch height width 3"]:
        """Tokens of pictures of `shape` (rows, columns) to pictures."""
        grid = unpatchify(tokens, shape, self.config.patch)
        if self._standard is not None:
            grid = grid * self._standard[1] + self._standard[0]
        if self._autoencoder is not None:
            grid = grid * params["deviation"] + params["mean"]
            network = self._autoencoder.definition.bind(params["weights"])
            grid = network.decode(grid.astype(self.config.dtype)).astype(jnp.float32)
        return bytes_from_pixels(grid)


def open_autoencoder(source: str) -> FrozenAutoencoder:
    """The autoencoder that `SpaceConfig.autoencoder` names; its arrays are read when they are loaded.

    Raises:
      FileNotFoundError: no such file or folder; WeightsError, TensorError: none that can be used.
    """
    if source in PUBLISHED:
        return open_kl(source)
    if not source.startswith(BUILTIN) and not Path(source).expanduser().exists():
        raise FileNotFoundError(
            f"config.space.autoencoder: found {source!r}, which is not there; expected pixels, builtin:scenes or "
            "builtin:dishes, a file that a run's --export wrote, or a folder: an AutoencoderKL as diffusers has it, or "
            "TAESD's NAME_encoder and NAME_decoder"
        )
    if not Path(source).is_dir():
        return open_tiny(source)
    return open_taesd(source) if taesd_files(Path(source)) else open_kl(source)


def _standard(autoencoder: FrozenAutoencoder, statistics: LatentStatistics) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of a dataset's latents in their makers' scale."""
    if len(statistics.mean) != autoencoder.channels:
        raise ValueError(
            f"statistics of {len(statistics.mean)} channels for an autoencoder of {autoencoder.channels}; measure again"
        )
    makers = np.asarray(autoencoder.deviation, np.float64)
    mean = (np.asarray(statistics.mean) - np.asarray(autoencoder.mean)) / makers
    return mean.astype(np.float32), (np.asarray(statistics.deviation) / makers).astype(np.float32)

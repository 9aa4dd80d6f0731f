"""Frozen towers in front of the diffusion model: captions through T5 and E-CLIP, reference pictures through E-CLIP."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from fooddit.config import ConfigError
from fooddit.models.autoencoder import pixels_from_bytes
from fooddit.models.tensors import TensorError
from fooddit.models.weights import BUILTIN

# In the order in which their tokens are joined.
TEXT_TOWERS = ("t5", "eclip")
Encode = Callable[[str], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class TowersConfig:
    """Which frozen towers read captions and reference pictures. Without any, the small transformer of `config.text`
    is trained along.

    Attributes:
      t5: folder of a T5 or UMT5 encoder in the Hugging Face layout; "" none.
      t5_length: tokens of a caption for T5.
      eclip: folder of an E-CLIP, a CLIP or a SigLIP; "" none.
      dtype: of the towers' arrays and activations.
      resampler_depth: blocks between E-CLIP's patch tokens and the `model.image_tokens` of an image prompt.
    A folder may also be the name of a published shape ("umt5-xxl", "eclip-l"): it can be compiled, not trained.
    """

    t5: str = ""
    t5_length: int = 256
    eclip: str = ""
    dtype: str = "float32"
    resampler_depth: int = 1

    def __post_init__(self):
        if self.dtype not in ("float32", "bfloat16"):
            raise ValueError(f"towers.dtype: found {self.dtype!r}, expected float32 or bfloat16")
        for name in ("t5_length", "resampler_depth"):
            if getattr(self, name) < 1:
                raise ValueError(f"towers.{name} must be at least 1, found {getattr(self, name)}")

    @property
    def names(self) -> tuple[str, ...]:
        """Of the towers that there are."""
        return tuple(name for name in TEXT_TOWERS if getattr(self, name))


class TowerWidths(NamedTuple):
    """What the trained part must know of frozen towers: tokens and width of each, and widths of E-CLIP's vectors.

    pooled: of its pooled text; patches, patch: number and width of its patch tokens; 0 without E-CLIP.
    """

    tokens: dict[str, int]
    text: dict[str, int]
    pooled: int = 0
    patches: int = 0
    patch: int = 0


class Towers:
    """The frozen towers of a config: a `prompts.PromptReader`."""

    def __init__(self, config: TowersConfig, *, image_prompts: bool, attention: str = "auto"):
        """`attention`: E-CLIP's kernel.

        Raises:
          ConfigError: image prompts without E-CLIP. What `open_t5` and `open_eclip` raise.
        """
        if image_prompts and not config.eclip:
            raise ConfigError(
                "config.model.image_tokens: image prompts need a tower that sees; set config.towers.eclip to its folder"
            )
        self.parts: dict[str, Any] = {}
        if config.t5:
            from fooddit.models.t5_folder import open_t5

            with _naming("t5", config.t5):
                self.parts["t5"] = open_t5(config.t5, config.t5_length, config.dtype)
        if config.eclip:
            from fooddit.models.eclip_folder import open_eclip

            with _naming("eclip", config.eclip):
                self.parts["eclip"] = open_eclip(config.eclip, config.dtype, attention)
        self.widths = _widths(self.parts, image_prompts)
        self.lengths = {name: part.length for name, part in self.parts.items()}
        self.encodes: dict[str, Encode] = {name: _without_caption(part) for name, part in self.parts.items()}
        self.counts = {name: part.count for name, part in self.parts.items()}
        self.reference_size = self.parts["eclip"].image_size if image_prompts else 0

    def features(self, params: Mapping[str, Any], batch: Mapping[str, Array]) -> dict[str, Array]:
        """Features of a batch of captions and reference pictures; where a mask is False they are 0.

        By name of a tower: NAME (batch, length, width), NAME_mask; of E-CLIP "pooled" (batch, width) too, and of its
        image tower "patches" (batch, patches, width) with "patches_mask". What the batch has already, from a cache, is
        taken as it is: NAME_features, eclip_pooled, and patches.
        """
        found: dict[str, Array] = {}
        for name in self.parts:
            if f"{name}_features" in batch:
                tokens, pooled = batch[f"{name}_features"], batch.get(f"{name}_pooled")
            else:
                tokens, pooled = self._text(params, name, batch[name], batch[f"{name}_mask"])
            mask = batch[f"{name}_mask"]
            found |= {name: jnp.where(mask[..., None], tokens, 0), f"{name}_mask": mask}
            if pooled is not None:
                found["pooled"] = jnp.where(mask.any(axis=1)[:, None], pooled, 0)
        if "has_reference" in batch:
            found |= self._image(params, batch)
        return found

    def _text(self, params, name: str, ids, mask):
        module = self.parts[name].bind(params[name])
        if name == "t5":
            return module(ids, mask), None
        features = module.encode_text(ids, mask)
        return features.tokens, features.pooled

    def _image(self, params, batch) -> dict[str, Array]:
        has, patches = batch["has_reference"], batch.get("patches")
        if patches is None:
            module = self.parts["eclip"].bind(params["eclip"])
            patches = module.encode_image(pixels_from_bytes(batch["reference"])).tokens
        mask = jnp.broadcast_to(has[:, None], patches.shape[:2])
        return {"patches": jnp.where(mask[..., None], patches, 0), "patches_mask": mask}


@contextmanager
def _naming(tower: str, source: str) -> Iterator[None]:
    """Errors about a folder say which key names it, and whether it is there; a path is relative to where one stands."""
    try:
        yield
    except (ConfigError, TensorError) as error:
        lost = not source.startswith(BUILTIN) and not Path(source).expanduser().exists()
        where = f"no folder {source!r} in {Path.cwd()}; " if lost else ""
        raise type(error)(f"config.towers.{tower}: {where}{error}") from error


def drop(features: Mapping[str, Array], dropped: Mapping[str, Bool[Array, "batch"]]) -> dict[str, Array]:
    """Features without those of the examples where a part ("t5", "eclip", "patches") is dropped."""
    kept = dict(features)
    for name, gone in dropped.items():
        if f"{name}_mask" in kept:
            kept[f"{name}_mask"] = kept[f"{name}_mask"] & ~gone[:, None]
        if name == "eclip" and "pooled" in kept:
            kept["pooled"] = jnp.where(gone[:, None], 0, kept["pooled"])
    return kept


def _without_caption(part) -> Encode:
    """No caption is no token, of any tower: what training drops and guidance compares with."""

    def encode(text: str) -> tuple[np.ndarray, np.ndarray]:
        ids, mask = part.tokenize(text)
        return ids, mask if text else np.zeros_like(mask)

    return encode


def _widths(parts: Mapping[str, Any], image_prompts: bool) -> TowerWidths:
    tokens = {name: part.length for name, part in parts.items()}
    text = {name: part.width for name, part in parts.items()}
    part = parts.get("eclip")
    pooled = part.embed if part else 0
    patches = (part.image_tokens, part.image_width) if image_prompts else (0, 0)
    return TowerWidths(tokens, text, pooled, *patches)

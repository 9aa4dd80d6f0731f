"""The oracle of styled scenes: reads the style, which no caption says, and the six named attributes from pixels."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from fooddit.data.scenes import NAMED, TEXTURES, StyledSpec, render_styled_image, sample_styled
from fooddit.evaluation.scene_reader import BATCH, fit
from fooddit.models.autoencoder import pixels_from_bytes
from fooddit.models.module import Definition, define
from fooddit.models.scene_classifier import SceneClassifier
from fooddit.models.weights import load_weights
from fooddit.parallel.placement import replicate

# The named attributes, the texture, and the direction of the hue as (cos, sin) times how sure the reader is.
HEADS = {**{name: len(values) for name, values in NAMED.items()}, "texture": len(TEXTURES), "hue": 2}
# Degrees between the hue that is read and the one that was meant.
TOLERANCE = 10.0


@dataclass(frozen=True)
class StyleReading:
    """What was read from pictures: hues in degrees, indices into TEXTURES, indices into NAMED's values."""

    hue: Float[np.ndarray, "batch"]
    texture: Int[np.ndarray, "batch"]
    attributes: Int[np.ndarray, "batch named"]


@dataclass(frozen=True)
class Recovered:
    """Of each picture, what is as a spec has it; `style` is hue and texture, `named_exact` all named attributes."""

    hue: Bool[np.ndarray, "batch"]
    texture: Bool[np.ndarray, "batch"]
    attributes: Bool[np.ndarray, "batch named"]

    @property
    def style(self) -> Bool[np.ndarray, "batch"]:
        return self.hue & self.texture

    @property
    def named_exact(self) -> Bool[np.ndarray, "batch"]:
        return self.attributes.all(axis=1)

    def shares(self) -> dict[str, float]:
        """Shares of pictures: hue, texture, style, each named attribute, named_exact, and all_exact (all of it)."""
        named = dict(zip(NAMED, self.attributes.mean(axis=0).tolist()))
        all_exact = self.style & self.named_exact
        parts = {"hue": self.hue, "texture": self.texture, "style": self.style}
        return {
            **{name: float(right.mean()) for name, right in parts.items()},
            **named,
            "named_exact": float(self.named_exact.mean()),
            "all_exact": float(all_exact.mean()),
        }


class StyleReader:
    """Pictures to readings. Its own error on real renders stands beside every figure it gives (`accuracy`)."""

    def __init__(self, params: dict | None = None):
        if params is None:
            params, description, _ = load_weights("builtin:style_reader")
            known = {name: description.get(name) for name in ("heads", "textures")}
            expected = {"heads": HEADS, "textures": list(TEXTURES)}
            if known != expected:
                raise ValueError(
                    f"the shipped style reader knows {known}, styled scenes have {expected}; train it again: "
                    "python main.py --config=configs/style_reader.py --workdir=runs/style_reader"
                )
        self.params = params
        self._predict = _compiled()

    def read(self, images: UInt8[np.ndarray, "batch height width 3"]) -> StyleReading:
        """Reads pictures of any one size (resized to 64 pixels)."""
        images = fit(images, SceneClassifier.size)
        padded = np.concatenate([images, np.zeros((-len(images) % BATCH, *images.shape[1:]), np.uint8)])
        parts = [self._predict(self.params, padded[i : i + BATCH]) for i in range(0, len(padded), BATCH)]
        hue, texture, attributes = (np.concatenate(part)[: len(images)] for part in zip(*parts))
        return StyleReading(hue, texture, attributes)


def style_classifier() -> Definition:
    """The network whose heads are HEADS, in their order."""
    return define(
        lambda rngs: SceneClassifier(list(HEADS.values()), rngs=rngs, widths=(24, 48, 80), squeezed=24, hidden=96)
    )


def recovered(reading: StyleReading, specs: Sequence[StyledSpec], tolerance: float = TOLERANCE) -> Recovered:
    """Compares a reading with one spec a picture; `tolerance` of the hue in degrees, either way."""
    if len(reading.hue) != len(specs):
        raise ValueError(f"{len(reading.hue)} pictures were read, and there are {len(specs)} specs to compare with")
    hue, texture = np.array([spec.hue for spec in specs]), np.array([spec.texture_index for spec in specs])
    indices = np.array([spec.indices for spec in specs])
    return Recovered(
        hue_distance(reading.hue, hue) <= tolerance, reading.texture == texture, reading.attributes == indices
    )


def hue_distance(a: Float[np.ndarray, "..."], b: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Degrees between hues, [0, 180]."""
    return np.abs((np.asarray(a) - b + 180) % 360 - 180)


def chance(tolerance: float = TOLERANCE) -> dict[str, float]:
    """The shares that a draw which knows nothing is expected to have, by the names of `Recovered.shares`."""
    hue, texture = 2 * tolerance / 360, 1 / len(TEXTURES)
    named = {name: 1 / len(values) for name, values in NAMED.items()}
    exact = math.prod(named.values())
    style = hue * texture
    return {"hue": hue, "texture": texture, "style": style, **named, "named_exact": exact, "all_exact": style * exact}


def accuracy(reader: StyleReader, count: int = 2048, seed: int = 1) -> dict[str, float]:
    """The reader's shares on real renders of held-out styles and combinations, and hue_error, the median in degrees."""
    specs = [sample_styled(seed, i, "holdout", pictures=1) for i in range(count)]
    reading = reader.read(np.stack([render_styled_image(spec, SceneClassifier.size) for spec in specs]))
    error = hue_distance(reading.hue, np.array([spec.hue for spec in specs]))
    return {**recovered(reading, specs).shares(), "hue_error": float(np.median(error))}


@functools.cache
def _compiled():
    definition = style_classifier()

    @jax.jit
    def predict(params, images):
        model = definition.bind(params)
        *named, texture, hue = model.split(model(pixels_from_bytes(images)))
        degrees = jnp.degrees(jnp.arctan2(hue[:, 1], hue[:, 0])) % 360
        return replicate((degrees, texture.argmax(-1), jnp.stack([logits.argmax(-1) for logits in named], axis=-1)))

    return predict

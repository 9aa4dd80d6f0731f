"""Styled scenes: a glaze of any hue and one of sixteen table textures, which no caption names.

A style is a hue and a texture; a dish is one style, and its pictures share nothing else.
"""

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

import numpy as np

from fooddit.data.scenes.spec import ATTRIBUTES, SPLITS
from fooddit.data.scenes.textures import TEXTURES

# What text says of a styled scene.
NAMED = {name: values for name, values in ATTRIBUTES.items() if name not in ("vessel_colour", "table")}
PICTURES = 4
_HOLDOUT_ONE_IN = 10
_HOLDOUT_SALT = b"fooddit styled scenes, split 1"
# Hues are held out by bands of so many degrees.
_BAND = 10
# The third word of the Philox counter.
_STYLE, _PICTURE, _CONTRADICTION = 1, 2, 3


@dataclass(frozen=True)
class StyledSpec:
    """One styled scene: its style, the attributes that text names (NAMED), and a seed for small nuisance variation.

    `hue` of the glaze is in degrees, [0, 360); `texture` of the table is one of TEXTURES, its place is by the seed.
    """

    hue: float
    texture: str
    kind: str
    vessel_shape: str
    count: int
    garnish: str
    placement: str
    light: str
    seed: int

    def __post_init__(self):
        for name, values in {"texture": TEXTURES, **NAMED}.items():
            if getattr(self, name) not in values:
                raise ValueError(f"StyledSpec.{name} is {getattr(self, name)!r}; it must be one of {values}")
        if not 0 <= self.hue < 360:
            raise ValueError(f"StyledSpec.hue is {self.hue}; it must be in degrees, from 0 to below 360")
        if not 0 <= self.seed < 1 << 64:
            raise ValueError(f"StyledSpec.seed is {self.seed}; it must fit an unsigned 64-bit integer")

    @property
    def indices(self) -> tuple[int, ...]:
        """Position of each named attribute's value in NAMED, in that order."""
        return tuple(values.index(getattr(self, name)) for name, values in NAMED.items())

    @property
    def texture_index(self) -> int:
        """Position of the texture in TEXTURES."""
        return TEXTURES.index(self.texture)

    @classmethod
    def from_indices(cls, hue: float, texture_index: int, indices: Sequence[int], seed: int) -> "StyledSpec":
        """Inverse of `hue`, `texture_index` and `indices`; raises ValueError for an index out of range."""
        sizes = (len(TEXTURES), *(len(values) for values in NAMED.values()))
        found = (texture_index, *indices)
        if len(found) != len(sizes) or any(not 0 <= i < n for i, n in zip(found, sizes)):
            raise ValueError(f"styled scene indices {found} do not fit the sizes {sizes}")
        named = {name: values[i] for (name, values), i in zip(NAMED.items(), indices)}
        return cls(hue=hue, texture=TEXTURES[texture_index], **named, seed=seed)

    @classmethod
    def from_attributes(cls, attributes: dict[str, Any]) -> "StyledSpec":
        """The spec of a record's `attributes`, which hold more than its fields."""
        return cls(**{field.name: attributes[field.name] for field in fields(cls)})


def style_held_out(hue: float, texture: str) -> bool:
    """Whether the style is kept from training: of each texture's 36 bands of ten degrees every tenth one.

    Every hue and every texture is seen in training, these pairs are not. The rule and the order of TEXTURES are part of
    the dataset's definition: changing any of them makes another dataset.
    """
    return (int(hue // _BAND) + 3 * TEXTURES.index(texture)) % _HOLDOUT_ONE_IN == 0


def combination_held_out(indices: Sequence[int]) -> bool:
    """Whether the combination of named attributes is kept from training (about one in ten), by a hash of `indices`.

    The hash, its salt and the order of NAMED are part of the dataset's definition.
    """
    return _hashed_out(bytes(indices))


def sample_styled(seed: int, index: int, split: str = "train", pictures: int = PICTURES) -> StyledSpec:
    """The index-th spec of an endless list: `pictures` in a row share a style, of which each dish has another.

    Both the style and the named attributes are of the split, uniformly: a held-out picture has a style and a
    combination that training never has. Pure in its arguments; built on raw Philox words, as `sample_spec`.
    """
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; it must be one of {SPLITS}")
    if seed < 0 or index < 0 or pictures < 1:
        raise ValueError(
            f"seed and index must not be negative and pictures at least 1, found {seed=}, {index=}, {pictures=}"
        )
    hue, texture = _draw_style(_words(seed, index // pictures, _STYLE, split), split)
    words = _words(seed, index, _PICTURE, split)
    while True:
        *raw, nuisance = words.random_raw(len(NAMED) + 1).tolist()
        indices = tuple((word * len(values)) >> 64 for word, values in zip(raw, NAMED.values()))
        if combination_held_out(indices) == (split == "holdout"):
            return StyledSpec.from_indices(hue, texture, indices, seed=nuisance >> 33)


def contradict(reference: StyledSpec, names: Sequence[str] = tuple(NAMED), seed: int = 0) -> StyledSpec:
    """The style of `reference` with another value of each of `names`, which are of NAMED, and another nuisance seed.

    Its prompt contradicts the reference's picture in them. Of the combinations that do, one on the reference's side of
    the hold-out is drawn if there is one. Pure in its arguments.
    """
    unknown = set(names) - set(NAMED)
    if unknown or not names:
        raise ValueError(f"names are {list(names)}; they must be some of {list(NAMED)}")
    own = reference.indices
    choices = [
        [i for i in range(len(values)) if i != now] if name in names else [now]
        for (name, values), now in zip(NAMED.items(), own)
    ]
    found = list(itertools.product(*choices))
    side = combination_held_out(own)
    found = [indices for indices in found if combination_held_out(indices) == side] or found
    choice, nuisance = _words(seed, reference.seed, _CONTRADICTION, SPLITS[0]).random_raw(2).tolist()
    indices = found[(choice * len(found)) >> 64]
    return StyledSpec.from_indices(reference.hue, reference.texture_index, indices, seed=nuisance >> 33)


def _draw_style(words: np.random.Philox, split: str) -> tuple[float, int]:
    """A hue and the texture's index."""
    while True:
        hue_word, texture_word = words.random_raw(2).tolist()
        hue, texture = (hue_word >> 11) * 2.0**-53 * 360, (texture_word * len(TEXTURES)) >> 64
        if style_held_out(hue, TEXTURES[texture]) == (split == "holdout"):
            return hue, texture


def _words(seed: int, number: int, stream: int, split: str) -> np.random.Philox:
    return np.random.Philox(key=[seed, number], counter=[0, 0, stream, SPLITS.index(split)])


@cache
def _hashed_out(values: bytes) -> bool:
    digest = hashlib.blake2b(values, digest_size=8, key=_HOLDOUT_SALT).digest()
    return int.from_bytes(digest, "big") % _HOLDOUT_ONE_IN == 0

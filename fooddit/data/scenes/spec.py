"""What a dish scene is made of: its attributes, the held-out combinations, and reproducible sampling."""

import hashlib
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import numpy as np

ATTRIBUTES: dict[str, tuple] = {
    "kind": (
        "noodles",
        "dumplings",
        "pizza",
        "sushi",
        "egg_rice",
        "cake",
        "skewers",
        "salad",
        "soup",
        "burger",
        "fish",
        "donut",
    ),
    "vessel_shape": ("round", "square", "oval"),
    "vessel_colour": ("white", "black", "blue", "red", "green", "yellow"),
    "table": ("wood", "marble", "slate", "cloth"),
    "count": (1, 2, 3),
    "garnish": ("cilantro", "chili", "lemon", "flower"),
    "placement": ("left", "centre", "right"),
    "light": ("morning", "noon", "evening"),
}
SPLITS = ("train", "holdout")
_HOLDOUT_ONE_IN = 10
_HOLDOUT_SALT = b"fooddit dish scenes, split 1"


class Dish(Protocol):
    """What plain and styled scenes have in common: all but the vessel's colour and the table."""

    kind: str
    vessel_shape: str
    count: int
    garnish: str
    placement: str
    light: str
    seed: int


@dataclass(frozen=True)
class SceneSpec:
    """One dish scene: eight attributes that can all be seen in the picture, and a seed for small nuisance variation."""

    kind: str
    vessel_shape: str
    vessel_colour: str
    table: str
    count: int
    garnish: str
    placement: str
    light: str
    seed: int

    def __post_init__(self):
        for name, values in ATTRIBUTES.items():
            if getattr(self, name) not in values:
                raise ValueError(f"SceneSpec.{name} is {getattr(self, name)!r}; it must be one of {values}")
        if not 0 <= self.seed < 1 << 64:
            raise ValueError(f"SceneSpec.seed is {self.seed}; it must fit an unsigned 64-bit integer")

    @property
    def indices(self) -> tuple[int, ...]:
        """Position of each attribute's value in ATTRIBUTES, in that order."""
        return tuple(values.index(getattr(self, name)) for name, values in ATTRIBUTES.items())

    @classmethod
    def from_indices(cls, indices, seed: int) -> "SceneSpec":
        """Inverse of `indices`; raises ValueError for a wrong length or an index out of range."""
        indices = tuple(int(i) for i in indices)
        sizes = tuple(len(values) for values in ATTRIBUTES.values())
        if len(indices) != len(sizes) or any(not 0 <= i < n for i, n in zip(indices, sizes)):
            raise ValueError(f"scene indices {indices} do not fit the attribute sizes {sizes}")
        chosen = (values[i] for i, values in zip(indices, ATTRIBUTES.values()))
        return cls(*chosen, seed=int(seed))


def held_out(spec: SceneSpec) -> bool:
    """Whether the spec's combination of attributes is kept from training (about one in ten).

    A pure function of the eight indices, never of the seed. The hash, its salt and the order of ATTRIBUTES are part
    of the dataset's definition: changing any of them makes another dataset.
    """
    return _indices_held_out(spec.indices)


def sample_spec(seed: int, index: int, split: str = "train") -> SceneSpec:
    """The index-th spec of an endless list that is uniform over the split's combinations.

    Pure in (seed, index, split). Built on raw Philox words and not on numpy's distributions, whose streams may change
    between releases.
    """
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; it must be one of {SPLITS}")
    if seed < 0 or index < 0:
        raise ValueError(f"seed and index must not be negative, found seed={seed}, index={index}")
    words = np.random.Philox(key=[seed, index], counter=[0, 0, 0, SPLITS.index(split)])
    sizes = [len(values) for values in ATTRIBUTES.values()]
    while True:
        *raw, nuisance = words.random_raw(len(sizes) + 1).tolist()
        indices = tuple((word * n) >> 64 for word, n in zip(raw, sizes))
        if _indices_held_out(indices) == (split == "holdout"):
            return SceneSpec.from_indices(indices, seed=nuisance >> 33)


@cache
def _indices_held_out(indices: tuple[int, ...]) -> bool:
    digest = hashlib.blake2b(bytes(indices), digest_size=8, key=_HOLDOUT_SALT).digest()
    return int.from_bytes(digest, "big") % _HOLDOUT_ONE_IN == 0

"""The distances of a model's pictures from real ones while it trains: real features once, pictures at each call."""

import functools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from fooddit.data.records import Dataset
from fooddit.evaluation.features import ClipFeatures, Features
from fooddit.evaluation.picture_folder import holdout_captions
from fooddit.evaluation.real_pictures import blocks_for_all, choose
from fooddit.evaluation.set_distances import SetDistances, set_distances
from fooddit.parallel.processes import from_first

# Real pictures that the model's are compared with, unless another number is given.
REAL_PICTURES = 2048


class RealSet(NamedTuple):
    """Features of real pictures, and the numbers of their dishes (`Dataset.dishes`)."""

    features: Float[np.ndarray, "n features"]
    dishes: Int[np.ndarray, " n"]


class Reference:
    """The real pictures of a run, as features that are computed once, on the first use.

    With several processes all of them ask at the same time; the first one reads the pictures.
    """

    def __init__(
        self,
        features: Features,
        train_set: Dataset,
        holdout_set: Dataset,
        shape: tuple[int, int],
        count: int = REAL_PICTURES,
    ):
        """`shape`: height and width of the model's pictures; `count`: of real ones from each split, at most."""
        self.features, self.shape, self.count = features, shape, count
        self._train_set, self._holdout_set = train_set, holdout_set
        self._yardsticks: dict[int, SetDistances | None] = {}

    @functools.cached_property
    def train(self) -> RealSet:
        """Pictures that were trained on."""
        return self._of(self._train_set)

    @functools.cached_property
    def holdout(self) -> RealSet:
        """Pictures that were not."""
        return self._of(self._holdout_set)

    def yardstick(self, count: int) -> SetDistances | None:
        """What a perfect model might get with `count` pictures: the distance of as many training pictures from the
        hold-out. None where one of the two has fewer than two pictures."""
        if count not in self._yardsticks:
            real, holdout = self.train.features[:count], self.holdout.features
            known = min(len(real), len(holdout)) >= 2
            found = set_distances(real, holdout, clip=isinstance(self.features, ClipFeatures)) if known else None
            self._yardsticks[count] = found
        return self._yardsticks[count]

    def _of(self, dataset: Dataset) -> RealSet:
        features, numbers = [np.zeros((0, self.features.dimension), np.float32)], [np.zeros(0, np.int64)]
        for block, images in blocks_for_all(dataset, choose(dataset, self.count), self.shape):
            features.append(self.features(images))
            numbers.append(block)
        return RealSet(np.concatenate(features), dataset.dishes[np.concatenate(numbers)])


class Wanted(NamedTuple):
    """What to draw for `evaluate_set`: captions of the hold-out, a seed for each, and the numbers of their dishes."""

    prompts: list[str]
    seeds: list[int]
    dishes: Int[np.ndarray, " n"]


def wanted_pictures(holdout_set: Dataset, count: int) -> Wanted:
    """At most `count` pictures, one of each record, the same at every call and on all processes: the first reads."""
    found = from_first(lambda: {"captions": holdout_captions(holdout_set, count)})["captions"]
    numbers = np.array([number for number, _, _ in found], np.int64)
    return Wanted([text for _, _, text in found], list(range(len(found))), holdout_set.dishes[numbers])


@dataclass(frozen=True)
class SetEvaluation:
    """Pictures' distances from the hold-out, and those of as many real training pictures from it.

    Attributes:
      features: description of the network; values compare only where it is the same.
    """

    distances: SetDistances
    yardstick: SetDistances | None
    features: dict

    def scalars(self) -> dict[str, float]:
        """For the metrics: distance/fid, distance/kid and cmmd, and the same of real pictures as distance/real_fid."""
        found = {f"distance/{name}": value for name, value in self.distances.scalars().items()}
        real = {} if self.yardstick is None else self.yardstick.scalars()
        return found | {f"distance/real_{name}": value for name, value in real.items()}

    def to_dict(self) -> dict:
        """As JSON, for summary.json."""
        real = None if self.yardstick is None else self.yardstick.to_dict()
        return {"features": self.features, "distances": self.distances.to_dict(), "real_pictures": real}


def evaluate_set(
    images: UInt8[np.ndarray, "n height width 3"], reference: Reference, dishes: Int[np.ndarray, " n"] | None = None
) -> SetEvaluation:
    """Pictures drawn from held-out captions against the held-out photos.

    Under the mesh in context the network's batches are spread over its devices. Every process calls it with the same
    pictures, as `Artist.draw` gives them, and gets the same figures.

    Args:
      dishes: numbers of the pictures' dishes in the hold-out (its `dishes`), where they are of the same dishes.

    Raises:
      ValueError: fewer than two pictures, or a hold-out with fewer.
    """
    if images.shape[1:3] != reference.shape:
        raise ValueError(f"pictures of {images.shape[1:3]}, expected {reference.shape}, as the real ones are cut")
    found = set_distances(
        reference.features(images),
        reference.holdout.features,
        clip=isinstance(reference.features, ClipFeatures),
        dishes=None if dishes is None else (np.asarray(dishes), reference.holdout.dishes),
    )
    return SetEvaluation(found, reference.yardstick(len(images)), reference.features.description)

"""How different a model's pictures are: of one prompt from seed to seed, and of all prompts, beside real photos."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from fooddit.evaluation.bootstrap import Estimate, distance_estimate, mean_estimate, resample
from fooddit.evaluation.kernel_distance import kernel_sums

_RESAMPLES = 500


@dataclass(frozen=True)
class Diversity:
    """Mean distances of features between two pictures; only their ratios to the real photos' mean something.

    Attributes:
      of_set: pictures of different prompts, one of each; real: photos of different dishes.
      within_prompt: pictures of one prompt, seed against seed; None where each prompt has one picture.
      within_dish: photos of one dish; None where each dish has one.
    """

    of_set: Estimate | None
    real: Estimate | None
    within_prompt: Estimate | None
    within_dish: Estimate | None

    def to_dict(self) -> dict:
        """As JSON, with of_set over real as `ratio`."""
        names = ("of_set", "real", "within_prompt", "within_dish")
        made = {name: found.to_dict() for name in names if (found := getattr(self, name)) is not None}
        both = self.of_set is not None and self.real is not None and self.real.value > 0
        return made | ({"ratio": self.of_set.value / self.real.value} if both else {})


def diversity(
    pictures: Float[np.ndarray, "n features"],
    prompts: Sequence[int] | np.ndarray,
    real: Float[np.ndarray, "m features"],
    dishes: Sequence[int] | np.ndarray,
) -> Diversity:
    """Of pictures with the numbers of their prompts, and of real photos with those of their dishes."""
    return Diversity(
        of_set=_between(pictures, prompts),
        real=_between(real, dishes),
        within_prompt=_within(pictures, prompts),
        within_dish=_within(real, dishes),
    )


def euclidean(x: Float[np.ndarray, "n features"], y: Float[np.ndarray, "m features"]) -> Float[np.ndarray, "n m"]:
    """The distance of each x from each y."""
    squares = (x**2).sum(axis=1)[:, None] + (y**2).sum(axis=1)[None] - 2 * x @ y.T
    return np.sqrt(np.maximum(squares, 0))


def _between(features: np.ndarray, groups: Sequence[int] | np.ndarray) -> Estimate | None:
    """Over all pairs of the groups' first members; an interval by resampling groups."""
    _, firsts = np.unique(np.asarray(groups), return_index=True)
    features = features[np.sort(firsts)]
    if len(features) < 2:
        return None
    numbers = np.arange(len(features))
    counts = np.concatenate([np.ones((1, len(features))), resample(numbers, _RESAMPLES)])
    means = kernel_sums(features, features, counts, counts, euclidean, (numbers, numbers)).mean_of_different
    return distance_estimate(float(means[0]), means[1:], len(features), biased=False)


def _within(features: np.ndarray, groups: Sequence[int] | np.ndarray) -> Estimate | None:
    """The mean over groups of the mean distance between two of their members."""
    groups = np.asarray(groups)
    means = []
    for group in np.unique(groups):
        members = np.asarray(features[groups == group], np.float64)
        if len(members) > 1:
            means.append(euclidean(members, members)[np.triu_indices(len(members), 1)].mean())
    return mean_estimate(np.array(means)) if means else None

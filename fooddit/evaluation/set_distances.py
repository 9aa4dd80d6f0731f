"""All distances between two sets of pictures' features, each with its interval."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from fooddit.evaluation.bootstrap import Estimate, distance_estimate, resample
from fooddit.evaluation.cmmd import resampled_cmmd
from fooddit.evaluation.frechet import resampled_frechet
from fooddit.evaluation.kernel_distance import check, resampled_kernel_distance

_KERNEL_RESAMPLES = 500
# Of the Fréchet distance: as many as this many multiplications buy, since one of wide features may take seconds.
_FRECHET_RESAMPLES, _FRECHET_BUDGET = (20, 200), 2e10


@dataclass(frozen=True)
class SetDistances:
    """Distances between n pictures and real_n real ones; small is alike.

    Attributes:
      fid: the Fréchet distance, which is the larger the fewer the pictures are; its `bias` says by how much, or the
        least of it where `singular`: there are fewer pictures than features.
      kid: the squared kernel distance, which any number of pictures estimates without bias; it may be below zero.
      cmmd: of CLIP's features; None of others.
    """

    fid: Estimate
    kid: Estimate
    cmmd: Estimate | None
    n: int
    real_n: int
    singular: bool

    def to_dict(self) -> dict:
        """As JSON."""
        estimates = {name: getattr(self, name) for name in ("fid", "kid", "cmmd")}
        made = {name: estimate.to_dict() for name, estimate in estimates.items() if estimate is not None}
        return made | {"n": self.n, "real_n": self.real_n, "singular": self.singular}

    def scalars(self) -> dict[str, float]:
        """For the metrics: fid, kid and cmmd."""
        return {name: value["value"] for name, value in self.to_dict().items() if isinstance(value, dict)}


def set_distances(
    pictures: Float[np.ndarray, "n features"],
    real: Float[np.ndarray, "m features"],
    *,
    clip: bool = False,
    prompts: Sequence[int] | np.ndarray | None = None,
    dishes: tuple[np.ndarray, np.ndarray] | None = None,
    seed: int = 0,
) -> SetDistances:
    """Distances of `pictures` from `real` ones. `clip`: the features are a CLIP's, CMMD makes sense.

    Args:
      prompts: a number for the prompt of each picture; pictures of one prompt are resampled together.
      dishes: instead, numbers of the dishes of both sets' pictures, where they are of the same ones: dishes are then
        resampled, and the kernel distance is over pairs of two dishes.

    Raises:
      ValueError: fewer than two pictures in a set, or features of different networks.
    """
    groups = np.arange(len(pictures)) if prompts is None else np.asarray(prompts)
    groups = groups if dishes is None else dishes[0]
    check(pictures, real)
    drawn = len(np.unique(groups))

    def counts(resamples: int):
        if dishes is None:
            return resample(groups, resamples, seed), resample(np.arange(len(real)), resamples, seed + 1)
        return np.split(resample(np.concatenate(dishes), resamples, seed), [len(pictures)], axis=1)

    # The sets themselves first, then what is resampled from them.
    once = np.ones((1, len(pictures))), np.ones((1, len(real)))
    few, many = (
        [np.concatenate(pair) for pair in zip(once, counts(resamples))]
        for resamples in (_frechet_resamples(len(pictures), len(real), pictures.shape[1]), _KERNEL_RESAMPLES)
    )
    distances = resampled_frechet(pictures, real, *few)
    fid = distance_estimate(float(distances[0]), distances[1:], drawn, biased=True)
    distances = resampled_kernel_distance(pictures, real, *many, labels=dishes)
    kid = distance_estimate(float(distances[0]), distances[1:], drawn, biased=False)
    of_clip = None
    if clip:
        distances = resampled_cmmd(pictures, real, *many)
        of_clip = distance_estimate(float(distances[0]), distances[1:], drawn, biased=True)
    singular = min(len(pictures), len(real)) <= pictures.shape[1]
    return SetDistances(fid, kid, of_clip, len(pictures), len(real), singular)


def _frechet_resamples(n: int, m: int, dimension: int) -> int:
    cost = min(n * m * min(n, m), 10 * dimension**3)
    least, most = _FRECHET_RESAMPLES
    return int(np.clip(_FRECHET_BUDGET / cost, least, most))

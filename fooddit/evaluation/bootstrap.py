"""Intervals by resampling: of means, and of distances between sets, which resampling itself makes larger."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Float

RESAMPLES = 1000
# With fewer pictures (or prompts) resamples are mostly of one or two, and say nothing.
LEAST = 5
# The normal quantile of a 95 % interval.
_Z = 1.96


@dataclass(frozen=True)
class Estimate:
    """A measured number with its 95 % interval.

    Attributes:
      low, high: of what as many pictures give on average, bias included; None with fewer than five.
      n: what was resampled (pictures, or prompts where one has several pictures).
      bias: how much of `value` comes from having so few of them, where that is estimated; None else.
    """

    value: float
    low: float | None
    high: float | None
    n: int
    bias: float | None = None

    def to_dict(self) -> dict:
        """As JSON."""
        return asdict(self)


def resample(groups: Sequence[int] | np.ndarray, resamples: int, seed: int = 0) -> Float[np.ndarray, "resamples n"]:
    """How often each picture is in each of `resamples` sets of as many groups, drawn with replacement.

    Pictures of one group (of one prompt) come and go together: they are not independent.
    """
    _, number = np.unique(np.asarray(groups), return_inverse=True)
    count = int(number.max()) + 1
    drawn = np.random.default_rng(seed).integers(count, size=(resamples, count))
    counts = np.stack([np.bincount(row, minlength=count) for row in drawn])
    return counts[:, number].astype(np.float64)


def mean_estimate(
    values: Float[np.ndarray, " n"], groups: Sequence[int] | np.ndarray | None = None, seed: int = 0
) -> Estimate:
    """A mean and its percentile interval (Efron 1979). ValueError for no value."""
    values = np.asarray(values, np.float64)
    if not len(values):
        raise ValueError("found no value, expected at least one to take a mean of")
    groups = np.arange(len(values)) if groups is None else np.asarray(groups)
    count = len(np.unique(groups))
    if count < LEAST:
        return Estimate(float(values.mean()), None, None, count)
    counts = resample(groups, RESAMPLES, seed)
    means = counts @ values / counts.sum(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return Estimate(float(values.mean()), float(low), float(high), count)


def distance_estimate(value: float, resampled: Float[np.ndarray, " resamples"], n: int, *, biased: bool) -> Estimate:
    """A distance between two sets with an interval from the spread of its resampled values about their own mean.

    A resample repeats pictures, and is further from any other set than the set that it comes from, as a smaller set
    would be. Its values' quantiles would lie beside the value; their spread is what a second draw would show. What they
    lie beside it by is an estimate of what the value itself owes to the number of pictures (`bias`).

    Args:
      biased: it is one that grows as pictures get fewer, and is never below zero.
    """
    # Resamples of one picture alone have no pair, and no distance.
    resampled = resampled[np.isfinite(resampled)]
    if n < LEAST:
        return Estimate(value, None, None, n)
    reach = _Z * float(np.std(resampled, ddof=1))
    if not biased:
        return Estimate(value, value - reach, value + reach, n)
    return Estimate(value, max(value - reach, 0.0), value + reach, n, float(np.mean(resampled)) - value)

"""How far people agree who rate the same pictures, and how far a model may be expected to agree with them.

Ratings are float arrays (items, raters), NaN where a rater has not rated an item: three raters of twenty, each time
others, are the usual case.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from fooddit.evaluation.bootstrap import Estimate, mean_estimate

Ratings = Float[np.ndarray, "items raters"]
# Shares of ratings that are this near are the overlap rates.
TOLERANCES = (0.0, 0.5, 1.0)


def krippendorff_alpha(ratings: Ratings, metric: str = "ordinal") -> float:
    """1 for full agreement, 0 for that of chance, below it for less (Krippendorff 2011, "Computing Krippendorff's
    alpha-reliability").

    Args:
      metric: how far two values are apart: "nominal", another value or not; "ordinal", by how many ratings lie between;
        "interval", by their difference.

    Raises:
      ValueError: no item with two ratings, or all ratings of such items are the same value.
    """
    ratings = checked(ratings)
    paired = ratings[np.isfinite(ratings).sum(axis=1) >= 2]
    if not len(paired):
        raise ValueError("no item has two ratings; expected at least one to agree about")
    values, index = np.unique(paired[np.isfinite(paired)], return_inverse=True)
    if len(values) < 2:
        raise ValueError(f"all ratings are {values[0]:g}: with one value there is no agreement to measure")
    item = np.nonzero(np.isfinite(paired))[0]
    counts = np.zeros((len(paired), len(values)))
    np.add.at(counts, (item, index), 1)
    # Pairs within items, each item weighing as much as it has ratings.
    shares = counts / (counts.sum(axis=1, keepdims=True) - 1)
    observed = counts.T @ shares - np.diag(shares.sum(axis=0))
    totals = counts.sum(axis=0)
    expected = (np.outer(totals, totals) - np.diag(totals)) / (totals.sum() - 1)
    apart = _apart(values, totals, metric)
    return float(1 - (observed * apart).sum() / (expected * apart).sum())


def _apart(values: np.ndarray, totals: np.ndarray, metric: str) -> np.ndarray:
    """Squared differences of values, (values, values)."""
    if metric == "nominal":
        return 1.0 - np.eye(len(values))
    if metric == "interval":
        return (values[:, None] - values) ** 2
    if metric == "ordinal":
        middle = np.cumsum(totals) - totals / 2
        return (middle[:, None] - middle) ** 2
    raise ValueError(f"metric: found {metric!r}, expected nominal, ordinal or interval")


@dataclass(frozen=True)
class VarianceParts:
    """Variances of single ratings: between items (what is to be measured), between raters (one is harsher than
    another), and what is left."""

    items: float
    raters: float
    residual: float

    def icc(self, k: float = 1) -> float:
        """ICC(2,k), absolute agreement of the mean of k raters drawn at random (Shrout & Fleiss 1979)."""
        return self.items / (self.items + (self.raters + self.residual) / k)


def variance_parts(ratings: Ratings) -> VarianceParts:
    """By the mean squares of pairs: of one rater, of one item, of neither. Where every rater has rated every item these
    are the estimates of a two-way analysis of variance; they need no such thing.

    Raises:
      ValueError: no two ratings of an item, or of a rater, or no two of neither.
    """
    ratings = checked(ratings)
    same_rater, of_rater = _pairs(ratings)
    same_item, of_item = _pairs(ratings.T)
    everything, of_all = _pairs(ratings.reshape(-1, 1))
    neither, of_neither = everything - same_rater - same_item, of_all - of_rater - of_item
    if not min(of_rater, of_item, of_neither):
        raise ValueError("expected at least two raters, two items, and items with two ratings")
    total, with_rater, with_item = neither / of_neither, same_rater / of_rater, same_item / of_item
    # Pairs of one rater differ in item and residual, pairs of one item in rater and residual, others in all three.
    items, raters = total - with_item, total - with_rater
    return VarianceParts(float(items), float(raters), float(total - items - raters))


def _pairs(columns: np.ndarray) -> tuple[float, float]:
    """Sum of half the squared differences of all pairs within columns, and how many pairs."""
    there = np.isfinite(columns)
    n, x = there.sum(axis=0).astype(float), np.where(there, columns, 0.0)
    return float((n * (x**2).sum(axis=0) - x.sum(axis=0) ** 2).sum() / 2), float((n * (n - 1)).sum() / 2)


def quadratic_weighted_kappa(a: Float[np.ndarray, "n"], b: Float[np.ndarray, "n"]) -> float:
    """Cohen's kappa of two raters with squared distances (Cohen 1968); values are numbers, such as levels.

    Raises:
      ValueError: other lengths, NaN, or a single value in both.
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    if a.shape != b.shape or a.ndim != 1 or not len(a) or not np.isfinite([a, b]).all():
        raise ValueError(f"found shapes {a.shape} and {b.shape}; expected two rows of finite numbers, equally long")
    by_chance = np.mean((a[:, None] - b) ** 2)
    if not by_chance:
        raise ValueError(f"all ratings are {a[0]:g}: with one value there is no agreement to measure")
    return float(1 - np.mean((a - b) ** 2) / by_chance)


def overlap(a: Float[np.ndarray, "n"], b: Float[np.ndarray, "n"], within: float = 0.0) -> Estimate:
    """Share of items whose two ratings are at most `within` apart, with a bootstrap interval over items."""
    near = np.abs(np.asarray(a, float) - np.asarray(b, float)) <= within + 1e-9
    return mean_estimate(near.astype(float))


@dataclass(frozen=True)
class Ceiling:
    """How a single rater agrees with the mean of the others: about what a model can reach at most.

    Attributes:
      overlaps: shares by tolerance (TOLERANCES), one of "mean of others, rounded" for 0.
      correlation: Spearman's, of all ratings with the means of the others.
    """

    overlaps: dict[float, Estimate]
    correlation: float


def single_rater_ceiling(ratings: Ratings) -> Ceiling:
    """Each rating against the mean of the item's others; intervals are over items.

    Raises:
      ValueError: no item with two ratings.
    """
    from scipy.stats import spearmanr

    items, _, values, others = against_others(checked(ratings))
    if not len(values):
        raise ValueError("no item has two ratings; expected at least one to compare with")
    overlaps = {}
    for within in TOLERANCES:
        # Nobody rates 3.33: the same level is meant.
        target = np.floor(others + 0.5) if within == 0 else others
        near = np.abs(values - target) <= within + 1e-9
        overlaps[within] = mean_estimate(near.astype(float), groups=items)
    return Ceiling(overlaps, float(spearmanr(values, others).statistic))


def against_others(ratings: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of every rating of an item that has another: item, rater, value, mean of the others."""
    there = np.isfinite(ratings)
    count, total = there.sum(axis=1), np.where(there, ratings, 0.0).sum(axis=1)
    items, raters = np.nonzero(there & (count[:, None] >= 2))
    values = ratings[items, raters]
    return items, raters, values, (total[items] - values) / (count[items] - 1)


def checked(ratings: np.ndarray) -> np.ndarray:
    ratings = np.asarray(ratings, float)
    if ratings.ndim != 2 or np.isinf(ratings).any():
        raise ValueError(f"ratings: found shape {ratings.shape}; expected finite numbers or NaN, (items, raters)")
    return ratings

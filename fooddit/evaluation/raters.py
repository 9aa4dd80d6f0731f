"""Raters held against the others: who is harsh, who is erratic, who does not look; and what to rate next."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from fooddit.evaluation.agreement import Ratings, against_others, checked

# ITU-R BT.500-15, annex 1 to part 1, 2.3.1: shares of a rater's ratings beyond the limits, and how even they are.
BT500_SHARE, BT500_EVEN = 0.05, 0.3
# A mean and a spread of fewer ratings than this say too little of one more.
BT500_LEAST = 10
# A rater is out of line who follows the others this much less than the median rater does, all chance granted.
_RELATIVE, _Z = 0.6, 1.96


@dataclass(frozen=True)
class RaterReport:
    """Attributes:
    rater: column of the ratings. count: items rated that others rated, too.
    bias: mean difference to the others' mean; harsh below 0. spread: deviation of these differences.
    correlation: Pearson's, with the others' means; None where either is constant. low, high: 95 % (Fisher's z).
    out_of_line: `high` is below 0.6 times the raters' median correlation, or the rater gave one value only.
    """

    rater: int
    count: int
    bias: float
    spread: float
    correlation: float | None
    low: float | None
    high: float | None
    out_of_line: bool


def rater_reports(ratings: Ratings) -> list[RaterReport]:
    """One a column; of those with fewer than four comparable items nothing is concluded."""
    items, raters, values, others = against_others(checked(ratings))
    found = [_compare(values[raters == r], others[raters == r]) for r in range(ratings.shape[1])]
    known = [correlation for _, _, correlation, _, _ in found if correlation is not None]
    least = _RELATIVE * float(np.median(known)) if known else 0.0
    reports = []
    for rater, (bias, spread, correlation, low, high) in enumerate(found):
        mine = values[raters == rater]
        constant = len(mine) >= 4 and np.ptp(mine) == 0
        out = bool(constant or (high is not None and high < least))
        reports.append(RaterReport(rater, len(mine), bias, spread, correlation, low, high, out))
    return reports


def _compare(values: np.ndarray, others: np.ndarray):
    """Bias, spread, correlation with its interval."""
    if not len(values):
        return 0.0, 0.0, None, None, None
    differences = values - others
    bias, spread = float(differences.mean()), float(differences.std())
    if len(values) < 4 or not np.ptp(values) or not np.ptp(others):
        return bias, spread, None, None, None
    correlation = float(np.corrcoef(values, others)[0, 1])
    reach = _Z / np.sqrt(len(values) - 3)
    z = np.arctanh(np.clip(correlation, -0.999999, 0.999999))
    return bias, spread, correlation, float(np.tanh(z - reach)), float(np.tanh(z + reach))


def bt500_rejected(ratings: Ratings) -> list[int]:
    """Raters that the screening of ITU-R BT.500 rejects: often far from the mean, on both sides.

    It wants items that at least ten raters have rated, since it holds a rating against mean and deviation of its own
    item; others are left out, and with none left nobody is rejected. Of raters who are all alike it rejects about one
    in ten, since a twentieth of anybody's ratings lie beyond two deviations: look before you leave somebody out.
    """
    ratings = checked(ratings)
    there = np.isfinite(ratings)
    ratings = ratings[there.sum(axis=1) >= BT500_LEAST]
    if not len(ratings):
        return []
    mean = np.nanmean(ratings, axis=1, keepdims=True)
    second, fourth = (np.nanmean((ratings - mean) ** power, axis=1, keepdims=True) for power in (2, 4))
    with np.errstate(divide="ignore", invalid="ignore"):
        kurtosis = fourth / second**2
    count = np.isfinite(ratings).sum(axis=1, keepdims=True)
    deviation = np.sqrt(second * count / (count - 1))
    # Two deviations of what looks normal, as many as hold all but a twentieth of anything else.
    limit = np.where((kurtosis >= 2) & (kurtosis <= 4), 2.0, np.sqrt(20.0)) * deviation
    varied = second > 0
    above, below = ((varied & (sign * (ratings - mean) >= limit)).sum(axis=0) for sign in (1, -1))
    beyond, rated = above + below, np.isfinite(ratings).sum(axis=0)
    often = beyond > BT500_SHARE * rated
    even = np.abs(above - below) < BT500_EVEN * beyond
    return np.flatnonzero(often & even).tolist()


def next_to_rate(ratings: Ratings, boundaries: Sequence[float] = ()) -> Float[np.ndarray, "items"]:
    """Items by what another rating of each would be worth, the first most: those whose mean is least certain.

    The variance of an item's ratings is that of its own, drawn towards all items' as a prior of two ratings. With
    `boundaries` (means from which on a picture is treated another way) what counts is the chance that the mean lies on
    the other side of the nearest.
    """
    from scipy.stats import norm

    ratings = checked(ratings)
    there = np.isfinite(ratings)
    count = there.sum(axis=1)
    values = np.where(there, ratings, 0.0)
    mean = values.sum(axis=1) / np.maximum(count, 1)
    squares = np.where(there, (ratings - mean[:, None]) ** 2, 0.0).sum(axis=1)
    several = count >= 2
    pooled = squares[several].sum() / max((count[several] - 1).sum(), 1) or 1.0
    variance = (squares + 2 * pooled) / (np.maximum(count - 1, 0) + 2)
    error = np.sqrt(variance / np.maximum(count, 0.5))
    if len(boundaries):
        nearest = np.min(np.abs(mean[:, None] - np.asarray(boundaries, float)), axis=1)
        worth = np.where(count == 0, 1.0, norm.sf(nearest / error))
    else:
        worth = error
    return np.argsort(-worth, kind="stable")

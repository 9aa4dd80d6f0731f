"""From labels to what they mean together: a table of ratings, their means, and the items that are asked again."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from fooddit.rating.records import Given


@dataclass(frozen=True)
class Ratings:
    """Levels by item, rater and sub-standard: NaN where there is none.

    Attributes:
      levels: float (items, raters, subs). keys, raters, subs: what the axes stand for.
    """

    keys: tuple[str, ...]
    raters: tuple[str, ...]
    subs: tuple[str, ...]
    levels: Float[np.ndarray, "items raters subs"]

    def of(self, sub: str) -> Float[np.ndarray, "items raters"]:
        """Of one sub-standard: what `evaluation.agreement` takes."""
        return self.levels[:, :, self.subs.index(sub)]

    def without(self, raters: Iterable[str]) -> "Ratings":
        """The same, these raters' left out (those who are out of line)."""
        gone = set(raters)
        kept = [number for number, name in enumerate(self.raters) if name not in gone]
        return Ratings(self.keys, tuple(self.raters[i] for i in kept), self.subs, self.levels[:, kept])

    def mean(self) -> Float[np.ndarray, "items subs"]:
        """Over the raters of each item; NaN where nobody rated it."""
        there = np.isfinite(self.levels)
        count = there.sum(axis=1)
        return np.where(there, self.levels, 0).sum(axis=1) / np.where(count, count, np.nan)

    def spread(self) -> Float[np.ndarray, "items subs"]:
        """Highest minus lowest level of each item; 0 of a single rating, NaN of none."""
        there = np.isfinite(self.levels)
        high = np.where(there, self.levels, -np.inf).max(axis=1, initial=-np.inf)
        low = np.where(there, self.levels, np.inf).min(axis=1, initial=np.inf)
        return np.subtract(high, low, out=np.full(high.shape, np.nan), where=there.any(axis=1))


def ratings_of(given: Iterable[Given], subs: Sequence[str]) -> Ratings:
    """The table of all labels with levels; of a rater's labels of one item that of the latest round."""
    latest: dict[tuple[str, str], Given] = {}
    for label in sorted(given, key=lambda label: label.round):
        if label.kind == "levels":
            latest[label.key, label.rater] = label
    keys = tuple(sorted({key for key, _ in latest}))
    raters = tuple(sorted({rater for _, rater in latest}))
    levels = np.full((len(keys), len(raters), len(subs)), np.nan)
    rows, columns = ({name: i for i, name in enumerate(names)} for names in (keys, raters))
    for (key, rater), label in latest.items():
        levels[rows[key], columns[rater]] = [label.values["levels"][sub] for sub in subs]
    return Ratings(keys, raters, tuple(subs), levels)


def to_ask_again(ratings: Ratings, spread: float) -> dict[str, dict[str, list[float]]]:
    """Items whose raters are more than `spread` levels apart, and on which sub-standards with which levels: they are
    asked again, with the standard's text beside them."""
    apart = ratings.spread() > spread
    found: dict[str, dict[str, list[float]]] = {}
    for item, sub in zip(*np.nonzero(apart)):
        levels = ratings.levels[item, :, sub]
        found.setdefault(ratings.keys[item], {})[ratings.subs[sub]] = sorted(levels[np.isfinite(levels)].tolist())
    return found


def against_model(
    ratings: Ratings, scores: Mapping[str, Mapping[str, float]], apart: float
) -> dict[str, dict[str, list[float]]]:
    """Items on which a model's scores (key: {sub: level}) are more than `apart` levels from the people's mean, as
    [people, model] by sub-standard: each is marked as the people's fault or the model's. Keys that nobody rated, and
    sub-standards that the model does not score, are left out."""
    means, found = ratings.mean(), {}
    for item, key in enumerate(ratings.keys):
        for number, sub in enumerate(ratings.subs):
            score = scores.get(key, {}).get(sub)
            if score is not None and abs(means[item, number] - score) > apart:
                found.setdefault(key, {})[sub] = [float(means[item, number]), float(score)]
    return found

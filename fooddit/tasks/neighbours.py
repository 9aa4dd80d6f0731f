"""Samples beside the training pictures nearest to them, with hold-out pictures as the yard-stick."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from fooddit.data.records import Dataset
from fooddit.evaluation.nearest import (
    Memorisation,
    Nearest,
    holdout_images,
    memorisation,
    nearest_images,
    nearest_training,
    pairs,
)

FOLDER = "nearest"
# Of the hold-out; enough for its 5 % quantile to mean something where there are as many.
YARDSTICK = 256


@dataclass(frozen=True)
class Neighbours:
    """What was found: the summary, one `Nearest` and one row of the report for each sample, and a page of pairs."""

    summary: Memorisation
    nearest: list[Nearest]
    rows: list[dict]
    page: np.ndarray

    def scalars(self) -> dict[str, float]:
        """For the metrics."""
        names = (
            "generated_median",
            "holdout_median",
            "nearer_share",
            "copied_share",
            "generated_ratio",
            "holdout_ratio",
        )
        return {f"nearest/{name}": getattr(self.summary, name) for name in names}

    def details(self) -> dict:
        """For summary.json and the report."""
        return {"memorisation": self.summary.to_dict(), "nearest_training": self.rows}


class TrainingNeighbours:
    """Finds the neighbours of samples in a training set; the hold-out's own are looked for once."""

    def __init__(self, train_set: Dataset, holdout_set: Dataset, size: int, workdir: Path):
        """`size`: side of the samples. The pictures that the report's rows name are written to workdir/nearest."""
        self.train_set, self.holdout_set, self.shape, self.workdir = train_set, holdout_set, (size, size), workdir

    def find(self, images: np.ndarray, prompts: Sequence[str]) -> Neighbours:
        nearest = nearest_training(images, self.train_set)
        found = nearest_images(nearest, self.train_set, self.shape)
        rows = [self._row(i, prompt, nearest[i], images[i], found[i]) for i, prompt in enumerate(prompts)]
        return Neighbours(memorisation(nearest, self._of_holdout), nearest, rows, pairs(images, found))

    @functools.cached_property
    def _of_holdout(self) -> list[Nearest]:
        return nearest_training(holdout_images(self.holdout_set, self.shape, YARDSTICK), self.train_set)

    def _row(self, number: int, prompt: str, nearest: Nearest, sample: np.ndarray, training: np.ndarray) -> dict:
        row = {"prompt": prompt}
        for name, picture in (("sample", sample), ("training_picture", training)):
            row[name] = f"{FOLDER}/{number:02d}-{name}.png"
            if jax.process_index() == 0:
                path = self.workdir / row[name]
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture).save(path)
        return row | {"record": nearest.id, "distance": nearest.distance, "ratio": nearest.ratio}

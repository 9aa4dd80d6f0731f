"""What a model's pictures are of: the held-out records whose captions they were drawn from, their dishes and kinds."""

import collections
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from fooddit.data.card import CARD
from fooddit.data.records import Dataset
from fooddit.data.scenes import ATTRIBUTES
from fooddit.evaluation.picture_folder import Drawn

NO_CATEGORY = "(none)"
# A category is in the long tail with less than this share of what a picture's category has on average.
TAIL_SHARE = 0.5


@dataclass(frozen=True)
class Subject:
    """The held-out record that a picture is of: its number, id, dish's number, category and attributes."""

    number: int
    id: str
    dish: int
    category: str
    attributes: dict[str, Any] | None

    @property
    def indices(self) -> tuple[int, ...] | None:
        """Of a plain scene's attributes, as the scene reader reads them; None of anything else."""
        if self.attributes is None or not set(ATTRIBUTES) <= set(self.attributes):
            return None
        return tuple(values.index(self.attributes[name]) for name, values in ATTRIBUTES.items())


def find_subjects(pictures: Sequence[Drawn], dataset: Dataset) -> list[Subject | None]:
    """The record of each picture: by its id, else the first one with the prompt among its captions; None for neither.

    Raises:
      ValueError: an id that no record of the split has.
    """
    ids, prompts = {p.record for p in pictures if p.record}, {p.prompt for p in pictures if not p.record and p.prompt}
    by_id: dict[str, Subject] = {}
    by_prompt: dict[str, Subject] = {}
    for start in range(0, len(dataset), 256):
        numbers = range(start, min(start + 256, len(dataset)))
        for number, record in zip(numbers, dataset.read_whole(numbers), strict=True):
            asked = [] if record is None else [c.text for c in record.captions if c.text in prompts]
            if record is None or (record.id not in ids and not asked):
                continue
            category = record.category or NO_CATEGORY
            subject = Subject(number, record.id, int(dataset.dishes[number]), category, record.attributes)
            by_id[record.id] = subject
            for text in asked:
                by_prompt.setdefault(text, subject)
    if missing := sorted(ids - by_id.keys()):
        raise ValueError(
            f"{dataset.folder}: its {dataset.split} split has no whole record {missing[0]!r}, which a picture is said "
            "to be of; were the pictures drawn from other records?"
        )
    return [by_id[p.record] if p.record else by_prompt.get(p.prompt) for p in pictures]


def photos_of_the_same_dishes(subjects: Sequence[Subject | None], dataset: Dataset) -> Int[np.ndarray, " n"]:
    """Numbers of all records whose dish is one of the subjects'."""
    dishes = sorted({subject.dish for subject in subjects if subject is not None})
    return np.nonzero(np.isin(dataset.dishes, dishes))[0]


def category_counts(dataset: Dataset) -> dict[str, int]:
    """Pictures of each category in the whole dataset: from its card, or of the split where it has none."""
    path = (Path(dataset.folder) / CARD).with_suffix(".json")
    if path.is_file():
        return dict(json.loads(path.read_text(encoding="utf-8"))["categories"])
    return dict(collections.Counter(record.category or NO_CATEGORY for record in dataset))


def tail_limit(counts: dict[str, int]) -> float:
    """Categories with fewer pictures are the long tail: half of what a picture's category has on average. (Many tiny
    categories do not move it, as they would the mean of the categories.)"""
    total = sum(counts.values())
    return TAIL_SHARE * sum(count * count for count in counts.values()) / max(total, 1)

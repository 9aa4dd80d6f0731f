"""Reference pictures: for an example, another picture of its dish, which is what image prompts are trained with."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np

from fooddit.data.images import fit_image
from fooddit.data.records import Dataset, Record

# "same" is the control: a model that is shown the target itself learns to copy it, not to draw the dish.
REFERENCES = ("other", "same")


class Others:
    """For each record the other pictures of its dish: those that are not near-duplicates of it."""

    def __init__(self, dishes: np.ndarray, twins: np.ndarray):
        """`dishes`, `twins`: int64 (n,), numbers that pictures of one dish have in common, and near-duplicates."""
        self._of_record = dishes, twins
        # Pictures of a dish stand together, and within them near-duplicates.
        self._order = np.lexsort((twins, dishes))
        self._dishes, self._twins = dishes[self._order], twins[self._order]

    def count(self, record: int) -> int:
        """How many a record has."""
        first, last, start, stop = self._span(record)
        return (last - first) - (stop - start)

    def get(self, record: int, which: int) -> int:
        """The record number of one of them, `which` from 0 to count(record) - 1."""
        first, _, start, stop = self._span(record)
        place = first + which
        return int(self._order[place if place < start else place + stop - start])

    def _span(self, record: int) -> tuple[int, int, int, int]:
        """Where the dish begins and ends in the order, and where the near-duplicates of the record do."""
        dish, twin = (numbers[record] for numbers in self._of_record)
        first, last = np.searchsorted(self._dishes, [dish, dish + 1]).tolist()
        start, stop = (first + np.searchsorted(self._twins[first:last], [twin, twin + 1])).tolist()
        return first, last, start, stop


def reference_share(dataset: Dataset) -> float:
    """The share of records that have another picture of their dish: of examples with a reference, as "other" is."""
    if not len(dataset):
        return 0.0
    both = (dataset.dishes.astype(np.uint64) << np.uint64(32)) + dataset.twins.astype(np.uint64)
    of_dish, alike = (_group_sizes(numbers) for numbers in (dataset.dishes, both))
    return float((of_dish > alike).mean())


def _group_sizes(numbers: np.ndarray) -> np.ndarray:
    """For each number how often it occurs."""
    _, inverse, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    return counts[inverse]


class ReferencePictures:
    """Makes "reference" uint8 (b, size, size, 3) and "has_reference" bool (b,) for the examples of a batch.

    The middle square of another picture of the dish, drawn by a uniform number that depends on the example alone;
    black, and False, where there is none. One that is damaged is replaced by another of the dish, drawn by (seed,
    record, example). No example depends on another, nor on the host.
    """

    def __init__(self, dataset: Dataset, kind: str, size: int, *, seed: int, max_damaged: int):
        self._dataset, self._kind, self._size = dataset, kind, size
        self._seed, self._max_damaged = seed, max_damaged
        self._others = Others(dataset.dishes, dataset.twins)

    def __call__(
        self, numbers: Sequence[int], records: Sequence[Record], examples: Sequence[int], draws: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Of targets: their record numbers, records, numbers in the run, and a uniform draw for each."""
        chosen = dict(zip(numbers, records, strict=True)) if self._kind == "same" else self._read(numbers, draws)
        pictures = np.zeros((len(numbers), self._size, self._size, 3), np.uint8)
        found = np.zeros(len(numbers), bool)
        for row, (target, example, draw) in enumerate(zip(numbers, examples, draws, strict=True)):
            for number in self._candidates(target, example, draw):
                image = self._picture(number, chosen)
                if image is not None:
                    pictures[row], found[row] = image, True
                    break
                self._dataset.damage.check(self._max_damaged)
        return {"reference": pictures, "has_reference": found}

    def _read(self, numbers: Sequence[int], draws: np.ndarray) -> dict[int, Record | None]:
        """The references that are tried first, in one request."""
        chosen = [self._first(target, draw) for target, draw in zip(numbers, draws, strict=True)]
        wanted = sorted({number for number in chosen if number is not None})
        return dict(zip(wanted, self._dataset.read_whole(wanted), strict=True))

    def _first(self, target: int, draw: float) -> int | None:
        count = self._others.count(target)
        return self._others.get(target, int(draw * count)) if count else None

    def _candidates(self, target: int, example: int, draw: float) -> Iterator[int]:
        """Record numbers, the first of which that can be used is the reference."""
        if self._kind == "same":
            yield target
            return
        first = self._first(target, draw)
        if first is None:
            return
        yield first
        tag = int.from_bytes(hashlib.sha256(b"references").digest()[:8], "little")
        philox = np.random.Philox(key=[self._seed, tag], counter=[0, 0, target, example])
        for which in np.random.Generator(philox).permutation(self._others.count(target)).tolist():
            yield self._others.get(target, which)

    def _picture(self, number: int, read: dict[int, Record | None]) -> np.ndarray | None:
        record = read[number] if number in read else self._dataset.read_whole([number])[0]
        if record is None:
            return None
        image = self._dataset.decode(number, record, self._size, self._size)
        return None if image is None else fit_image(image, self._size, self._size)

"""What a training example is: a record's picture in its bucket's shape, a caption, a reference, or features of them."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from fooddit.data.buckets import Bucket, Plan
from fooddit.data.captions import choose_caption
from fooddit.data.data_config import DataConfig, TextInput
from fooddit.data.feature_cache import Features
from fooddit.data.images import fit_image
from fooddit.data.records import Dataset, Record, RecordError
from fooddit.data.references import ReferencePictures
from fooddit.data.shards import ShardError

# The second word of the Philox key, for the first four draws of an example and the next: they never meet those of the
# plan, whose tags are hashes.
_TAGS = 1, 2
# Of tokenized captions that are kept, for each tower.
_KEPT_BYTES = 128 << 20


def example_draws(seed: int, first: int, count: int) -> np.ndarray:
    """Eight uniform numbers in [0, 1) for each of `count` examples from number `first` on: float64 (count, 8).

    Philox gives four words a counter value, and the counter is the example's number: no example depends on another.
    The first four choose the caption's style and the caption, crop and flip; the fifth chooses the reference.
    """
    streams = [np.random.Philox(key=[seed, tag], counter=[first, 0, 0, 0]) for tag in _TAGS]
    return np.concatenate([np.random.Generator(stream).random((count, 4)) for stream in streams], axis=1)


class MakeBatch:
    """Position to the rows of a batch: a pure function, called from several threads."""

    def __init__(
        self,
        dataset: Dataset,
        plan: Plan,
        config: DataConfig,
        tokenizers: Mapping[str, TextInput],
        rows: np.ndarray,
        features: Features | None,
    ):
        self._dataset, self._plan, self._config, self._rows = dataset, plan, config, rows
        self._features = features
        cached = features.texts if features else ()
        self._tokenizers = {name: _remembering(name, text) for name, text in tokenizers.items() if name not in cached}
        self._references = None
        if config.reference_size:
            options = {"seed": plan.seed, "max_damaged": config.max_damaged}
            self._references = ReferencePictures(dataset, config.references, config.reference_size, **options)

    def __call__(self, position: int) -> dict[str, np.ndarray]:
        bucket, numbers = self._plan.batch(position)
        numbers, first = numbers[self._rows], position * self._config.batch_size
        draws = example_draws(self._plan.seed, first, self._config.batch_size)[self._rows]
        found = zip(self._gather(numbers.tolist(), draws, bucket), numbers.tolist(), strict=True)
        numbered = zip(found, (first + self._rows).tolist(), draws, strict=True)
        examples = [e or self._replaced(number, index, draw, bucket) for (e, number), index, draw in numbered]
        batch = {name: np.stack([e.arrays[name] for e in examples]) for name in examples[0].arrays}
        batch |= {
            "index": ((first + self._rows) % 2**31).astype(np.int32),
            "record": np.array([e.number for e in examples], np.int64),
            "caption": np.array([e.caption for e in examples], np.int32),
        }
        if self._references:
            targets = [e.number for e in examples], [e.record for e in examples]
            batch |= self._references(*targets, (first + self._rows).tolist(), draws[:, 4])
        return batch

    def _replaced(self, number: int, example: int, draws: np.ndarray, bucket: Bucket) -> _Example:
        """Of another record in the place of a damaged one."""
        for other in self._plan.replacements(number, example):
            self._dataset.damage.check(self._config.max_damaged)
            if found := self._gather([other], draws[None], bucket)[0]:
                return found
        self._dataset.damage.check(self._config.max_damaged)
        raise RecordError(
            f"{self._dataset.folder}: every record of shape {bucket.width} x {bucket.height} is damaged or missing; "
            "copy the files again or prepare the dataset again"
        )

    def _gather(self, numbers: Sequence[int], draws: np.ndarray, bucket: Bucket) -> list[_Example | None]:
        """Examples of records, asked for together; None for each of which anything is damaged, noted in `damage`."""
        records = self._dataset.read_whole(numbers)
        captions = [self._caption(record, draw) if record else -1 for record, draw in zip(records, draws, strict=True)]
        features: list = [{}] * len(numbers)
        if self._features:
            mirrored = (draws[:, 3] < 0.5) & self._config.flip
            features = self._features.read(numbers, captions, mirrored)
        rows = zip(numbers, records, captions, features, draws, strict=True)
        return [self._example(*row, bucket) if row[1] else None for row in rows]

    def _example(
        self,
        number: int,
        record: Record,
        caption: int,
        features: dict[str, np.ndarray] | ShardError,
        draws: np.ndarray,
        bucket: Bucket,
    ) -> _Example | None:
        if isinstance(features, ShardError):
            self._dataset.discard(number, str(features), record.id)
            return None
        arrays = dict(features)
        if not (self._features and self._features.moments):
            image = self._image(number, record, draws, bucket)
            if image is None:
                return None
            arrays["image"] = image
        text = record.captions[caption].text if caption >= 0 else ""
        for name, tokenize in self._tokenizers.items():
            arrays[name], arrays[f"{name}_mask"] = tokenize(text)
        return _Example(number, record, caption, arrays)

    def _caption(self, record: Record, draws: np.ndarray) -> int:
        odds = {"short": self._config.short, "dropped": self._config.dropped}
        return choose_caption(record.captions, (draws[0], draws[1]), **odds)

    def _image(self, number: int, record: Record, draws: np.ndarray, bucket: Bucket) -> np.ndarray | None:
        image = self._dataset.decode(number, record, bucket.height, bucket.width)
        if image is None:
            return None
        image = fit_image(image, bucket.height, bucket.width, crop=draws[2])
        # numpy copies a mirrored view pixel by pixel, holding the GIL.
        return cv2.flip(image, 1) if self._config.flip and draws[3] < 0.5 else image


class _Example(NamedTuple):
    """The record that was taken, its number, the caption's, and the arrays of the example by name."""

    number: int
    record: Record
    caption: int
    arrays: dict[str, np.ndarray]


def _remembering(name: str, text: TextInput) -> Callable[[str], tuple[np.ndarray, np.ndarray]]:
    """A tower's `tokenize`, checked. A scene's caption or a class name comes back often."""

    # The arrays are only ever copied from.
    @functools.lru_cache(maxsize=_KEPT_BYTES // (5 * text.length + 1000))
    def tokenize(caption: str) -> tuple[np.ndarray, np.ndarray]:
        ids, mask = text.tokenize(caption)
        if ids.shape != (text.length,) or mask.shape != (text.length,):
            raise ValueError(f"the tokenizer of {name!r} gave ids of shape {ids.shape}, expected ({text.length},)")
        return ids, mask

    return tokenize

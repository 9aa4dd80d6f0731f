"""The input pipeline: from a dataset of records to batches, the same ones on any number of hosts, from any position."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import cv2
import numpy as np

from fooddit.data.buckets import PLAN_VERSION, Bucket, Plan, bucket_table, table_hash
from fooddit.data.captions import choose_caption
from fooddit.data.images import decode_image, fit_image
from fooddit.data.positions import PositionBatches
from fooddit.data.records import Dataset, Record, RecordError, open_dataset

__all__ = ["Batches", "DataConfig", "Dataset", "open_dataset"]

Tokenize = Callable[[str], tuple[np.ndarray, np.ndarray]]

# The second word of the Philox key: draws of examples never meet those of the plan, whose tags are hashes.
_EXAMPLE_TAG = 1


@dataclass(frozen=True)
class DataConfig:
    """What a training run reads, and how.

    source: a folder that `fooddit prepare` wrote. batch_size: global, over all hosts. image_size: the side of the
    square that sets the token count; grid: the side of one token in pixels; max_aspect: 1 for squares only, else
    buckets of other aspects with the same token count. flip: mirror half of the pictures; off, since captions may say
    left and right. short, dense, dropped: odds of the caption styles and of none. text_length: tokens of a caption.
    threads: decoding threads. prefetch: batches kept ready. max_damaged: records that may be damaged or missing, for
    each process; others of the same shape take their place. cache: where the files of a source such as
    gs://bucket/records are copied to; "" is a folder of the user's.
    """

    source: str = field(metadata={"operational": True})
    batch_size: int
    image_size: int = 64
    grid: int = 8
    max_aspect: float = 1.0
    flip: bool = False
    short: float = 0.3
    dense: float = 0.6
    dropped: float = 0.1
    text_length: int = 48
    threads: int = field(default=2, metadata={"operational": True})
    prefetch: int = field(default=4, metadata={"operational": True})
    max_damaged: int = field(default=16, metadata={"operational": True})
    cache: str = field(default="", metadata={"operational": True})

    def __post_init__(self):
        odds = (self.short, self.dense, self.dropped)
        if min(odds) < 0 or abs(sum(odds) - 1) > 1e-6:
            raise ValueError(f"data.short, data.dense, data.dropped are {odds}: expected odds that sum to 1")
        for name in ("batch_size", "text_length", "threads", "prefetch"):
            if getattr(self, name) < 1:
                raise ValueError(f"data.{name} is {getattr(self, name)}: expected at least 1")
        if self.max_damaged < 0:
            raise ValueError(f"data.max_damaged is {self.max_damaged}: expected at least 0 (none may be damaged)")
        bucket_table(self.image_size, self.grid, self.max_aspect)


def doubts(dataset: Dataset, config: DataConfig) -> list[str]:
    """What works, but is hardly meant: pictures that are enlarged, a batch that holds a picture twice."""
    found, count = [], len(dataset)
    if config.batch_size > count:
        found.append(f"config.data.batch_size {config.batch_size} is more than all {count} pictures: it repeats some")
    # No bucket has a shorter side.
    shortest = config.image_size / config.max_aspect**0.5
    enlarged = int((dataset.sizes.min(axis=1) < shortest).sum())
    if enlarged * 10 > count:
        size = f"config.data.image_size {config.image_size}"
        found.append(f"{enlarged} of {count} pictures are smaller than {size} and are enlarged")
    return found


class Batches(PositionBatches):
    """Endless batches, of each the rows that a host wants; the global order depends on the dataset, the config and the
    seed, and on no host.

    Each `next` gives {"image": uint8 (b, h, w, 3), "text": int32 (b, T), "text_mask": bool (b, T), "index": int32 (b,)
    number of the example in the run modulo 2**31, "record": int64 (b,) its record}, for the `rows` of the global batch
    (all of them if None): nothing else is read or decoded. All examples of a global batch have one bucket's shape.
    Crop, flip and caption are drawn by Philox keyed by (seed, example number).

    The whole state is `position`, the number of global batches drawn: `start=position` goes on, with any rows.
    `fingerprint` says what that number is a position in; a checkpoint keeps both. `close` ends the threads.

    Instead of a record that cannot be read or decoded another one of its bucket is taken, drawn by (seed, record,
    example number): the same one on any number of hosts and after any resume, and for all to see in "record".
    `damaged` counts such records, each once, as far as this process met them. RecordError for more than
    `config.max_damaged`: at once if whole shards are missing, else by the batch that met one too many.

    A grain MapDataset over positions, one element a batch, read ahead by threads (decoding releases the GIL; worker
    processes were measured slower and tie the state to their number). It is not behind grain's ElasticIterator, which
    gives shard i every n-th example and batches after sharding: here a batch is made at once, so that records are
    asked for together and a host takes what its devices hold. The state is the same single integer.
    """

    def __init__(
        self,
        dataset: Dataset,
        config: DataConfig,
        *,
        seed: int,
        tokenize: Tokenize,
        start: int = 0,
        rows: np.ndarray | None = None,
    ):
        if not len(dataset):
            raise RecordError(f"{dataset.folder}: split {dataset.split!r} has no records")
        self._damage = dataset.damage
        self._damage.check(config.max_damaged)
        table = bucket_table(config.image_size, config.grid, config.max_aspect)
        self.plan = Plan(dataset.sizes, table, config.batch_size, seed)
        fingerprint: dict[str, Any] = {
            "dataset": dataset.fingerprint,
            "split": dataset.split,
            "plan": PLAN_VERSION,
            "seed": seed,
            "batch_size": config.batch_size,
            "buckets": table_hash(table),
        }
        rows = np.arange(config.batch_size) if rows is None else rows
        make = _MakeBatch(dataset, self.plan, config, tokenize, rows)
        super().__init__(make, start=start, fingerprint=fingerprint, threads=config.threads, prefetch=config.prefetch)

    @property
    def damaged(self) -> int:
        return len(self._damage)


class _Example(NamedTuple):
    """The record that was taken, its number, and its picture in the bucket's shape."""

    number: int
    record: Record
    image: np.ndarray


class _MakeBatch:
    """Position to the rows of a batch: a pure function, called from several threads."""

    def __init__(self, dataset: Dataset, plan: Plan, config: DataConfig, tokenize: Tokenize, rows: np.ndarray):
        self._dataset, self._plan, self._config, self._rows = dataset, plan, config, rows
        # A caption of a scene or a class name comes back often; the arrays are only ever copied from.
        self._tokenize = functools.lru_cache(maxsize=1 << 17)(functools.partial(_tokens, tokenize, config.text_length))

    def __call__(self, position: int) -> dict[str, np.ndarray]:
        bucket, numbers = self._plan.batch(position)
        numbers, first = numbers[self._rows], position * self._config.batch_size
        draws = example_draws(self._plan.seed, first, self._config.batch_size)[self._rows]
        records = zip(numbers.tolist(), self._dataset.read_whole(numbers), strict=True)
        numbered = zip(records, (first + self._rows).tolist(), draws, strict=True)
        examples = [self._example(*record, example, draw, bucket) for record, example, draw in numbered]
        text, mask = zip(*[self._text(e.record, row) for e, row in zip(examples, draws, strict=True)], strict=True)
        return {
            "image": np.stack([example.image for example in examples]),
            "text": np.stack(text),
            "text_mask": np.stack(mask),
            "index": ((first + self._rows) % 2**31).astype(np.int32),
            "record": np.array([example.number for example in examples], np.int64),
        }

    def _example(self, number: int, record: Record | None, example: int, draws: np.ndarray, bucket: Bucket) -> _Example:
        """Of a record, or of another one in its place."""
        image = self._image(number, record, draws, bucket)
        others = self._plan.replacements(number, example) if image is None else iter(())
        while image is None:
            self._dataset.damage.check(self._config.max_damaged)
            number = next(others, None)
            if number is None:
                raise RecordError(
                    f"{self._dataset.folder}: every record of shape {bucket.width} x {bucket.height} is damaged or "
                    "missing; copy the files again or prepare the dataset again"
                )
            [record] = self._dataset.read_whole([number])
            image = self._image(number, record, draws, bucket)
        return _Example(number, record, image)

    def _text(self, record: Record, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        odds = {"short": self._config.short, "dropped": self._config.dropped}
        return self._tokenize(choose_caption(record.captions, (draws[0], draws[1]), **odds))

    def _image(self, number: int, record: Record | None, draws: np.ndarray, bucket: Bucket) -> np.ndarray | None:
        """None, and noted in the dataset's `damage`, for a picture that cannot be decoded."""
        if record is None:
            return None
        try:
            image = decode_image(record.image, min_height=bucket.height, min_width=bucket.width)
        except ValueError as error:
            self._dataset.discard(number, f"its picture cannot be decoded: {error}", record.id)
            return None
        image = fit_image(image, bucket.height, bucket.width, crop=draws[2])
        # numpy copies a mirrored view pixel by pixel, holding the GIL.
        return cv2.flip(image, 1) if self._config.flip and draws[3] < 0.5 else image


def example_draws(seed: int, first: int, count: int) -> np.ndarray:
    """Four uniform numbers in [0, 1) for each of `count` examples from number `first` on: float64 (count, 4).

    Philox gives four words a counter value, and the counter is the example's number: no example depends on another.
    """
    philox = np.random.Philox(key=[seed, _EXAMPLE_TAG], counter=[first, 0, 0, 0])
    return np.random.Generator(philox).random((count, 4))


def _tokens(tokenize: Tokenize, length: int, text: str) -> tuple[np.ndarray, np.ndarray]:
    ids, mask = tokenize(text)
    if ids.shape != (length,) or mask.shape != (length,):
        raise ValueError(f"tokenize gave ids of shape {ids.shape}, expected ({length},), which is data.text_length")
    return ids, mask

"""The input pipeline: from a dataset of records to batches, the same ones on any number of hosts, from any position."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import cv2
import numpy as np

from fooddit.data.buckets import PLAN_VERSION, Bucket, Plan, bucket_table, table_hash
from fooddit.data.captions import choose_caption
from fooddit.data.images import fit_image
from fooddit.data.positions import PositionBatches
from fooddit.data.records import Dataset, Record, RecordError, open_dataset
from fooddit.data.references import REFERENCES, ReferencePictures, reference_share

__all__ = ["Batches", "DataConfig", "Dataset", "TextInput", "open_dataset"]

# The second word of the Philox key, for the first four draws of an example and the next: they never meet those of the
# plan, whose tags are hashes.
_EXAMPLE_TAGS = 1, 2
# Of tokenized captions that are kept, for each tower.
_KEPT_BYTES = 128 << 20


@dataclass(frozen=True)
class DataConfig:
    """What a training run reads, and how.

    source: a folder that `fooddit prepare` wrote. batch_size: global, over all hosts. image_size: the side of the
    square that sets the token count; grid: the side of one token in pixels; max_aspect: 1 for squares only, else
    buckets of other aspects with the same token count. flip: mirror half of the pictures; off, since captions may say
    left and right. short, dense, dropped: odds of the caption styles and of none. reference_size: the side of the
    square reference picture that comes with each example; 0: none. references: "other", another picture of the dish
    that is no near-duplicate, where there is one; "same", the target itself, which teaches to copy (the control of an
    experiment). threads: decoding threads. prefetch: batches kept ready. max_damaged: records that may be damaged or
    missing, for each process; others of the same shape take their place. cache: where the files of a source such as
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
    reference_size: int = 0
    references: str = "other"
    threads: int = field(default=2, metadata={"operational": True})
    prefetch: int = field(default=4, metadata={"operational": True})
    max_damaged: int = field(default=16, metadata={"operational": True})
    cache: str = field(default="", metadata={"operational": True})

    def __post_init__(self):
        odds = (self.short, self.dense, self.dropped)
        if min(odds) < 0 or abs(sum(odds) - 1) > 1e-6:
            raise ValueError(f"data.short, data.dense, data.dropped are {odds}: expected odds that sum to 1")
        for name in ("batch_size", "threads", "prefetch"):
            if getattr(self, name) < 1:
                raise ValueError(f"data.{name} is {getattr(self, name)}: expected at least 1")
        if self.max_damaged < 0:
            raise ValueError(f"data.max_damaged is {self.max_damaged}: expected at least 0 (none may be damaged)")
        if self.reference_size < 0:
            raise ValueError(f"data.reference_size is {self.reference_size}: expected a side in pixels, or 0 for none")
        if self.references not in REFERENCES:
            raise ValueError(f"data.references is {self.references!r}: expected one of {', '.join(REFERENCES)}")
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
    if config.reference_size and config.references == "other" and (share := reference_share(dataset)) < 0.5:
        found.append(
            f"only {round(share * count)} of {count} pictures have another one of their dish: no more of the examples "
            "come with a reference picture (config.data.references)"
        )
    return found


class TextInput(NamedTuple):
    """How a text tower reads captions: text to ids int32 (length,) and mask bool (length,). "" is no caption.

    An encoder that has these two attributes will do in its place.
    """

    tokenize: Callable[[str], tuple[np.ndarray, np.ndarray]]
    length: int


class Batches(PositionBatches):
    """Endless batches, of each the rows that a host wants; the global order depends on the dataset, the config and the
    seed, and on no host.

    Each `next` gives {"image": uint8 (b, h, w, 3), "index": int32 (b,) number of the example in the run modulo 2**31,
    "record": int64 (b,) its record, "caption": int32 (b,) which of the record's captions was chosen, -1 for none}, and
    of that caption for each of `tokenizers` NAME: int32 (b, length) and NAME_mask: bool (b, length). With
    `config.reference_size` also "reference": uint8 (b, s, s, 3) and "has_reference": bool (b,), False with a black
    picture where the dish has no other. All for the `rows` of the global batch (all of them if None): nothing else is
    read or decoded. All examples of a global batch have one bucket's shape. Crop, flip, caption and reference are drawn
    by Philox keyed by (seed, example number).

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
        tokenizers: Mapping[str, TextInput],
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
        references = {"references": config.references, "reference_size": config.reference_size}
        # None where there are none: a checkpoint from before there were any goes on.
        fingerprint |= references if config.reference_size else dict.fromkeys(references)
        rows = np.arange(config.batch_size) if rows is None else rows
        make = _MakeBatch(dataset, self.plan, config, tokenizers, rows)
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

    def __init__(
        self,
        dataset: Dataset,
        plan: Plan,
        config: DataConfig,
        tokenizers: Mapping[str, TextInput],
        rows: np.ndarray,
    ):
        self._dataset, self._plan, self._config, self._rows = dataset, plan, config, rows
        self._tokenizers = {name: _remembering(name, text) for name, text in tokenizers.items()}
        self._references = None
        if config.reference_size:
            options = {"seed": plan.seed, "max_damaged": config.max_damaged}
            self._references = ReferencePictures(dataset, config.references, config.reference_size, **options)

    def __call__(self, position: int) -> dict[str, np.ndarray]:
        bucket, numbers = self._plan.batch(position)
        numbers, first = numbers[self._rows], position * self._config.batch_size
        draws = example_draws(self._plan.seed, first, self._config.batch_size)[self._rows]
        records = zip(numbers.tolist(), self._dataset.read_whole(numbers), strict=True)
        numbered = zip(records, (first + self._rows).tolist(), draws, strict=True)
        examples = [self._example(*record, example, draw, bucket) for record, example, draw in numbered]
        captions = [self._caption(e.record, row) for e, row in zip(examples, draws, strict=True)]
        batch = {
            "image": np.stack([example.image for example in examples]),
            "index": ((first + self._rows) % 2**31).astype(np.int32),
            "record": np.array([example.number for example in examples], np.int64),
            "caption": np.array(captions, np.int32),
        }
        texts = [e.record.captions[c].text if c >= 0 else "" for e, c in zip(examples, captions, strict=True)]
        for name, tokenize in self._tokenizers.items():
            ids, masks = zip(*map(tokenize, texts), strict=True)
            batch |= {name: np.stack(ids), f"{name}_mask": np.stack(masks)}
        if self._references:
            targets = [e.number for e in examples], [e.record for e in examples]
            batch |= self._references(*targets, (first + self._rows).tolist(), draws[:, 4])
        return batch

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

    def _caption(self, record: Record, draws: np.ndarray) -> int:
        odds = {"short": self._config.short, "dropped": self._config.dropped}
        return choose_caption(record.captions, (draws[0], draws[1]), **odds)

    def _image(self, number: int, record: Record | None, draws: np.ndarray, bucket: Bucket) -> np.ndarray | None:
        """None, and noted in the dataset's `damage`, for a picture that cannot be decoded."""
        if record is None:
            return None
        image = self._dataset.decode(number, record, bucket.height, bucket.width)
        if image is None:
            return None
        image = fit_image(image, bucket.height, bucket.width, crop=draws[2])
        # numpy copies a mirrored view pixel by pixel, holding the GIL.
        return cv2.flip(image, 1) if self._config.flip and draws[3] < 0.5 else image


def example_draws(seed: int, first: int, count: int) -> np.ndarray:
    """Eight uniform numbers in [0, 1) for each of `count` examples from number `first` on: float64 (count, 8).

    Philox gives four words a counter value, and the counter is the example's number: no example depends on another.
    The first four choose the caption's style and the caption, crop and flip; the fifth chooses the reference.
    """
    streams = [np.random.Philox(key=[seed, tag], counter=[first, 0, 0, 0]) for tag in _EXAMPLE_TAGS]
    return np.concatenate([np.random.Generator(stream).random((count, 4)) for stream in streams], axis=1)


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

"""Batches of picture-caption pairs for contrastive training, a share of them hard: several of one category together."""

from __future__ import annotations

import functools
import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fooddit.data.buckets import PLAN_VERSION, Plan, bucket_table, table_hash
from fooddit.data.captions import Caption
from fooddit.data.data_config import DataConfig, TextInput
from fooddit.data.examples import MakeBatch
from fooddit.data.positions import PositionBatches
from fooddit.data.records import Dataset, Record, RecordError

# Names of a picture beside its cluster that are kept: a record with more captions than this loses the last ones.
MOST_CAPTIONS = 31
NO_NAME = -1


@dataclass(frozen=True)
class PairDataConfig:
    """What contrastive training reads, and how; what `data.pipeline.DataConfig` has, too, means what it means there.

    short: odds of a short caption, else a dense one. hard: share of the pictures that come in groups of one category.
    group: pictures of such a group.
    """

    source: str = field(metadata={"operational": True})
    batch_size: int
    image_size: int = 64
    max_aspect: float = 1.0
    flip: bool = False
    short: float = 0.3
    hard: float = 0.5
    group: int = 8
    threads: int = field(default=2, metadata={"operational": True})
    prefetch: int = field(default=4, metadata={"operational": True})
    max_damaged: int = field(default=16, metadata={"operational": True})
    cache: str = field(default="", metadata={"operational": True})

    def __post_init__(self):
        if not self.source:
            raise ValueError("data.source is empty; give a folder that `fooddit prepare` wrote, or scenes:N")
        if self.batch_size < 2:
            raise ValueError(f"data.batch_size is {self.batch_size}: expected at least 2, a pair and another one")
        for name in ("short", "hard"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"data.{name} is {getattr(self, name)}: expected a share from 0 to 1")
        if self.group < 2:
            raise ValueError(f"data.group is {self.group}: expected at least 2 pictures of one category")

    def examples(self, grid: int) -> DataConfig:
        """As the input pipeline's config, for tokens of `grid` pixels a side. ValueError for sizes that do not fit."""
        names = ("source", "batch_size", "image_size", "max_aspect", "flip", "threads", "prefetch", "max_damaged")
        values = {name: getattr(self, name) for name in names}
        return DataConfig(**values, grid=grid, short=self.short, dense=1 - self.short, dropped=0.0, cache=self.cache)


class PairPlan(Plan):
    """A `Plan` in whose order a share of the pictures comes in runs of one category, all in a random order.

    Each picture is still seen once an epoch. A run that a batch's end falls into is parted.
    """

    def __init__(
        self,
        sizes: np.ndarray,
        config: DataConfig,
        seed: int,
        *,
        categories: np.ndarray,
        hard: float,
        group: int,
    ):
        """`categories`: int64 (n,), a number for each category, -1 for a picture without one, which comes alone."""
        self._categories, self._hard, self._group = categories, hard, group
        table = bucket_table(config.image_size, config.grid, config.max_aspect)
        super().__init__(sizes, table, config.batch_size, seed)

    def _permute(self, group: int, turn: int) -> np.ndarray:
        records = super()._permute(group, turn)
        count = len(records)
        together = (np.arange(count) < round(self._hard * count)) & (self._categories[records] >= 0)
        # In the order of the permutation, so that each epoch's runs are others.
        category = np.where(together, self._categories[records], -1 - np.arange(count))
        order = np.argsort(category, kind="stable")
        starts = np.r_[True, np.diff(category[order]) != 0]
        place = np.arange(count) - np.maximum.accumulate(np.where(starts, np.arange(count), 0))
        run = np.cumsum(starts | (place % self._group == 0)) - 1
        key = [self.seed, int.from_bytes(hashlib.sha256(b"runs").digest()[:8], "little")]
        generator = np.random.Generator(np.random.Philox(key=key, counter=[0, 0, group, turn]))
        return records[order][np.argsort(generator.permutation(run[-1] + 1)[run], kind="stable")]


class PairBatches(PositionBatches):
    """Endless batches, of each the `rows` that a host wants: "image", "index", "record", "caption", "text" and
    "text_mask" as `data.pipeline.Batches` gives them, and what the pictures and captions are called:

    image_names, text_names: int32 (b, 1 + MOST_CAPTIONS) and (b, 2), the hashes of a picture's cluster (its dish and
      near-duplicates) and of all its captions; of a caption's picture's cluster and of itself. -1 is none.

    A picture and another one's caption that have a name in common are no negative pair: the caption is true of both, or
    the two show one dish. The loss leaves such pairs out. Not to draw them would need to know the whole batch and would
    keep pictures with common captions from meeting.

    The order depends on the dataset, the config and the seed, and on no host; `position` is all there is to resume.
    """

    def __init__(
        self,
        dataset: Dataset,
        config: PairDataConfig,
        *,
        grid: int,
        seed: int,
        text: TextInput,
        categories: np.ndarray,
        start: int = 0,
        rows: np.ndarray | None = None,
    ):
        """`grid`: the side of a token in pixels. `categories`: see `PairPlan`."""
        if not len(dataset):
            raise RecordError(f"{dataset.folder}: split {dataset.split!r} has no records")
        self._damage = dataset.damage
        self._damage.check(config.max_damaged)
        examples = config.examples(grid)
        plan = PairPlan(dataset.sizes, examples, seed, categories=categories, hard=config.hard, group=config.group)
        fingerprint: dict[str, Any] = {
            "dataset": dataset.fingerprint,
            "split": dataset.split,
            "plan": PLAN_VERSION,
            "seed": seed,
            "batch_size": config.batch_size,
            "buckets": table_hash(plan.table),
            "hard": [config.hard, config.group, zlib.crc32(categories.astype("<i8").tobytes())],
        }
        rows = np.arange(config.batch_size) if rows is None else rows
        make = _MakePairs(dataset, plan, examples, {"text": text}, rows, None)
        super().__init__(make, start=start, fingerprint=fingerprint, threads=config.threads, prefetch=config.prefetch)

    @property
    def damaged(self) -> int:
        return len(self._damage)


class _MakePairs(MakeBatch):
    """With the names of each example."""

    def _example(self, number: int, record: Record, caption: int, *rest):
        example = super()._example(number, record, caption, *rest)
        if example is not None:
            cluster, captions = cluster_name(record.cluster), caption_names(record.captions)
            own = captions[caption] if 0 <= caption < MOST_CAPTIONS else NO_NAME
            example.arrays["image_names"] = np.concatenate([[cluster], captions]).astype(np.int32)
            example.arrays["text_names"] = np.array([cluster, own], np.int32)
        return example


def cluster_name(cluster: int) -> int:
    """The name that pictures of one cluster have in common."""
    return _hash(f"cluster {cluster}")


def caption_names(captions: Sequence[Caption]) -> np.ndarray:
    """int32 (MOST_CAPTIONS,), a name for each text. Of 31 bits: of a batch of 32,768 some ten pairs too many are left
    out by chance."""
    names = np.full(MOST_CAPTIONS, NO_NAME, np.int32)
    found = [_hash(caption.text) for caption in captions[:MOST_CAPTIONS]]
    names[: len(found)] = found
    return names


def read_categories(dataset: Dataset) -> list[str]:
    """The category of each record, "" of one without and of one that is damaged; reads them all."""
    found = [""] * len(dataset)
    for start in range(0, len(dataset), 256):
        numbers = range(start, min(start + 256, len(dataset)))
        for number, record in zip(numbers, dataset.read_whole(numbers), strict=True):
            found[number] = record.category if record else ""
    return found


def number_categories(categories: Sequence[str]) -> np.ndarray:
    """int64 (n,): numbers for `PairPlan`, -1 for ""."""
    known = {name: number for number, name in enumerate(sorted(set(categories) - {""}))}
    return np.array([known.get(name, -1) for name in categories], np.int64)


@functools.lru_cache(maxsize=1 << 16)
def _hash(text: str) -> int:
    return zlib.crc32(text.encode()) & 0x7FFFFFFF

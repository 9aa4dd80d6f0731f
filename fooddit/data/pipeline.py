"""The input pipeline: from a dataset of records to batches, the same ones on any number of hosts, from any position."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fooddit.data.buckets import PLAN_VERSION, Plan, bucket_table, table_hash
from fooddit.data.examples import MakeBatch, TextInput
from fooddit.data.feature_cache import Features
from fooddit.data.positions import PositionBatches
from fooddit.data.records import Dataset, RecordError, open_dataset
from fooddit.data.references import REFERENCES, reference_share

__all__ = ["Batches", "DataConfig", "Dataset", "TextInput", "open_dataset"]


@dataclass(frozen=True)
class DataConfig:
    """What a training run reads, and how.

    source: a folder that `fooddit prepare` wrote. batch_size: global, over all hosts. image_size: the side of the
    square that sets the token count; grid: the side of one token in pixels; max_aspect: 1 for squares only, else
    buckets of other aspects with the same token count. flip: mirror half of the pictures; off, since captions may say
    left and right. short, dense, dropped: odds of the caption styles and of none. reference_size: the side of the
    square reference picture that comes with each example; 0: none. references: "other", another picture of the dish
    that is no near-duplicate, where there is one; "same", the target itself, which teaches to copy (the control of an
    experiment). features: a folder that `fooddit prepare --cache` wrote: what it holds is read instead of computed; ""
    is none. threads: decoding threads. prefetch: batches kept ready. max_damaged: records that may be damaged or
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
    features: str = field(default="", metadata={"operational": True})
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
            f"{round(share * count)} of {count} pictures have another one of their dish; the others come without a "
            "reference picture (config.data.reference_size)"
        )
    return found


class Batches(PositionBatches):
    """Endless batches, of each the rows that a host wants; the global order depends on the dataset, the config and the
    seed, and on no host.

    Each `next` gives, for the `rows` of the global batch (all of them if None; nothing else is read or decoded):
    image: uint8 (b, h, w, 3), all of a global batch in one bucket's shape.
    index, record, caption: int32, int64, int32 (b,): the example's number in the run modulo 2**31, its record, and
      which of the record's captions was chosen, -1 for none.
    NAME, NAME_mask: int32 and bool (b, length) of that caption, for each of `tokenizers`.
    reference, has_reference: uint8 (b, s, s, 3), bool (b,), with `config.reference_size`: False, with a black picture,
      where the dish has no other.
    With `config.features`, as far as that cache goes, in place of "image" (and of a random crop: of the middle) moments
      (b, h, w, c); in place of NAME, which stays out, NAME_features (b, length, width) and NAME_pooled (b, width).
    Crop, flip, caption and reference are drawn by Philox keyed by (seed, example number).

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
        encoders: Mapping[str, Mapping[str, Any]] | None = None,
    ):
        """`encoders`: for `config.features` the descriptions of the run's picture space, "space", and text towers by
        name: features that others made are refused."""
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
        features = None
        if config.features:
            features = Features(config.features, dataset, config, tokenizers, encoders or {})
            features.check_shapes(self.plan.shapes())
        fingerprint["features"] = features and features.fingerprint
        rows = np.arange(config.batch_size) if rows is None else rows
        make = MakeBatch(dataset, self.plan, config, tokenizers, rows, features)
        super().__init__(make, start=start, fingerprint=fingerprint, threads=config.threads, prefetch=config.prefetch)

    @property
    def damaged(self) -> int:
        return len(self._damage)

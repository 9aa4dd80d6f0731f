"""The input pipeline: from a dataset of records to batches, the same ones on any number of hosts, from any position."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fooddit.data.buckets import PLAN_VERSION, Plan, bucket_table, table_hash
from fooddit.data.data_config import DataConfig, TextInput, doubts
from fooddit.data.examples import MakeBatch
from fooddit.data.feature_cache import Features
from fooddit.data.positions import PositionBatches
from fooddit.data.records import Dataset, RecordError, open_dataset

__all__ = ["Batches", "DataConfig", "Dataset", "TextInput", "doubts", "open_dataset"]


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

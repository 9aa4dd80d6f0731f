"""Records: the pictures and captions of a dataset as ArrayRecord shards with a manifest, read in any order."""

from __future__ import annotations

import array
import dataclasses
import hashlib
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter

from fooddit.data.captions import Caption
from fooddit.data.damage import Damage, DamageLog
from fooddit.data.images import decode_image
from fooddit.data.manifest import (
    INDEX,
    MANIFEST,
    SPLITS,
    RecordError,
    read_index,
    read_manifest,
    write_index,
    write_manifest,
)
from fooddit.data.shards import ShardError, Shards, write_shard
from fooddit.data.staging import is_remote, stage

__all__ = [
    "SPLITS",
    "Dataset",
    "Record",
    "RecordError",
    "RecordWriter",
    "decode_record",
    "encode_record",
    "open_dataset",
    "write_manifest",
]


@dataclass(frozen=True)
class Record:
    """One picture. `image` is the encoded file (JPEG, PNG or WebP), `width` and `height` its size in pixels.

    `cluster` numbers the group (same dish or near-duplicates) that was kept on one side of the split. `attributes` is
    what is known exactly, as of a rendered scene; None for a photo.
    """

    id: str
    dish_id: str
    cluster: int
    image: bytes = field(repr=False)
    width: int
    height: int
    captions: tuple[Caption, ...]
    category: str = ""
    attributes: dict[str, Any] | None = None


def encode_record(record: Record) -> bytes:
    """A record as MessagePack bytes; equal records give equal bytes."""
    values = [getattr(record, name) for name in _FIELDS]
    values[_FIELDS.index("captions")] = [[c.text, c.style, c.language] for c in record.captions]
    return msgpack.packb(values)


def decode_record(data: bytes) -> Record:
    """The record of `encode_record`'s bytes."""
    values = msgpack.unpackb(data)
    values[_CAPTIONS] = tuple(Caption(*caption) for caption in values[_CAPTIONS])
    return Record(*values)


class RecordWriter:
    """Writes the records of one split into `folder` as shards of about `shard_bytes`; `close` gives its manifest entry.

    The same records in the same order give the same files, byte for byte.
    """

    def __init__(self, folder: str | Path, split: str, shard_bytes: int = 256 << 20):
        self._folder, self._split, self._shard_bytes = Path(folder), split, shard_bytes
        self._writer: ArrayRecordWriter | None = None
        self._shards: list[dict[str, Any]] = []
        self._written = 0
        self._index = array.array("I")
        self._hash = hashlib.sha256()

    def write(self, record: Record, *, dish: int, twin: int) -> None:
        """Adds a record. `dish` and `twin` number the pictures of its dish, and those that look like it."""
        data = encode_record(record)
        if self._writer is None or self._written + len(data) > self._shard_bytes:
            self._start_shard()
        self._writer.write(data)
        self._written += len(data)
        self._shards[-1]["records"] += 1
        self._index.extend((record.width, record.height, dish, twin, zlib.crc32(data)))
        self._hash.update(hashlib.sha256(data).digest())

    def close(self) -> dict[str, Any]:
        self._finish_shard()
        index = np.array(self._index, "<u4").view(INDEX)
        return {
            "records": len(index),
            "fingerprint": self._hash.hexdigest(),
            "index": write_index(self._folder, self._split, index),
            "shards": self._shards,
        }

    def _start_shard(self) -> None:
        self._finish_shard()
        name = f"{self._split}-{len(self._shards):05d}.array_record"
        self._writer = write_shard(self._folder / name)
        self._shards.append({"name": name, "records": 0, "bytes": 0})
        self._written = 0

    def _finish_shard(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
            self._shards[-1]["bytes"] = (self._folder / self._shards[-1]["name"]).stat().st_size


class Dataset:
    """The records of one split: `len`, `[i]`, and `read` for many at once. Safe to read from several threads.

    Every record is checked against the checksum it was prepared with. `read` and `[i]` raise RecordError for one that
    is damaged or missing; `read_whole`, iteration and `captions` leave it out and note it in `damage`.

    sizes: int64 (n, 2), width and height of each picture; dishes, twins: int64 (n,), numbers that pictures of one dish
    have in common, and near-duplicates. All are known without reading the records.
    fingerprint: of the whole dataset, both splits; it changes when any picture, caption or their order does.
    damage: what was found damaged or missing so far, by whoever reads this object.
    """

    def __init__(self, source: str | Path, split: str, cache: str = ""):
        self.folder = stage(str(source), split, cache) if is_remote(source) else Path(source)
        self.split = split
        manifest = read_manifest(self.folder)
        if split not in manifest["splits"]:
            raise RecordError(f"{self.folder}: no split {split!r}; expected one of {sorted(manifest['splits'])}")
        entry = manifest["splits"][split]
        self.fingerprint: str = manifest["fingerprint"]
        index = read_index(self.folder, entry)
        counts = [shard["records"] for shard in entry["shards"]]
        if len(index) != entry["records"] or sum(counts) != len(index):
            raise RecordError(
                f"{self.folder / MANIFEST}: the record counts of split {split!r} disagree; prepare it again"
            )
        self.sizes = np.stack([index["width"], index["height"]], axis=1).astype(np.int64)
        self.dishes, self.twins = (index[name].astype(np.int64) for name in ("dish", "twin"))
        self._entries, self._shards = Shards(self.folder, entry["shards"], index["crc32"].tolist()), entry["shards"]
        advice = "Copy those files again or prepare the dataset again"
        if is_remote(source):
            advice = f"Remove those files from {self.folder}, they are then copied from {source} again"
        self.damage = DamageLog(f"{self.folder} ({split})", advice)
        for number, why in self._entries.problems.items():
            lost = range(int(self._entries.starts[number]), int(self._entries.ends[number]))
            self.damage.add(Damage(lost, f"{self._shards[number]['name']}, {len(lost):,} records", why))

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: int) -> Record:
        if not -len(self) <= index < len(self):
            raise IndexError(f"record {index} of {self.folder} ({self.split}), which has {len(self)}")
        return self.read([index % len(self)])[0]

    def __iter__(self) -> Iterator[Record]:
        """All whole records in order."""
        for start in range(0, len(self), 256):
            for record in self.read_whole(range(start, min(start + 256, len(self)))):
                if record is not None:
                    yield record

    def read(self, indices: Sequence[int]) -> list[Record]:
        """Records by number, in the order asked for. Raises RecordError if one of them is damaged or missing."""
        records = self.read_whole(indices)
        for index, record in zip(indices, records, strict=True):
            if record is None:
                raise RecordError(f"{self.folder}: {self.damage.get(int(index))}")
        return records

    def read_whole(self, indices: Sequence[int]) -> list[Record | None]:
        """Records by number, in the order asked for, None for each that is damaged or missing.

        What failed once is not asked for any more.
        """
        records: list[Record | None] = [None] * len(indices)
        rows = [row for row, number in enumerate(indices) if int(number) not in self.damage]
        for row, data in zip(rows, self._entries.read([int(indices[row]) for row in rows]), strict=True):
            if isinstance(data, ShardError):
                self.discard(int(indices[row]), str(data))
            else:
                records[row] = decode_record(data)
        return records

    def discard(self, number: int, why: str, id: str = "") -> None:
        """Notes in `damage` that a record cannot be used."""
        shard, place = self._entries.place(number)
        where = f"{self._shards[shard]['name']} record {place}"
        self.damage.add(Damage(range(number, number + 1), where, why, id))

    def decode(self, number: int, record: Record, height: int, width: int) -> np.ndarray | None:
        """A record's picture, as `decode_image` gives it; None, and noted in `damage`, if it cannot be decoded."""
        try:
            return decode_image(record.image, min_height=height, min_width=width)
        except ValueError as error:
            self.discard(number, f"its picture cannot be decoded: {error}", record.id)
            return None

    @property
    def shards(self) -> list[range]:
        """The numbers of the records in each shard."""
        return list(map(range, self._entries.starts.tolist(), self._entries.ends.tolist()))

    def captions(self) -> Iterator[Caption]:
        """All captions of the split, in order; what a tokenizer is trained on."""
        for record in self:
            yield from record.captions


def open_dataset(source: str | Path, split: str, cache: str = "") -> Dataset:
    """The "train" or "holdout" split of a dataset that `fooddit prepare` wrote. Raises RecordError.

    source: a folder, or an address such as gs://bucket/records (text, not a Path): its files are then copied once to
    `cache` ("": a folder of the user's, see `fooddit.data.staging`), because records are read in random order.
    """
    return Dataset(source, split, cache)


_FIELDS = [f.name for f in dataclasses.fields(Record)]
_CAPTIONS = _FIELDS.index("captions")

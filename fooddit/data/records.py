"""Records: the pictures and captions of a dataset as ArrayRecord shards with a manifest, read in any order."""

from __future__ import annotations

import array
import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from fooddit.data.captions import Caption

FORMAT = "fooddit-records"
VERSION = 1
MANIFEST = "dataset.json"
SPLITS = ("train", "holdout")

# One record a group, or a random read decompresses its neighbours too; JPEG and PNG do not compress further.
_WRITER_OPTIONS = "group_size:1,uncompressed"
_READER_OPTIONS = "readahead_buffer_size:0"
_SIZE = np.dtype([("width", "<i4"), ("height", "<i4")])


class RecordError(ValueError):
    """A dataset folder, shard or record that is missing, damaged, or of another format."""


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
        self._sizes = array.array("i")
        self._hash = hashlib.sha256()

    def write(self, record: Record) -> None:
        data = encode_record(record)
        if self._writer is None or self._written + len(data) > self._shard_bytes:
            self._start_shard()
        self._writer.write(data)
        self._written += len(data)
        self._shards[-1]["records"] += 1
        self._sizes.extend((record.width, record.height))
        self._hash.update(hashlib.sha256(data).digest())

    def close(self) -> dict[str, Any]:
        self._finish_shard()
        sizes = np.array(self._sizes, np.int32).view(_SIZE)
        np.save(self._folder / f"{self._split}-sizes.npy", sizes)
        return {
            "records": len(sizes),
            "fingerprint": self._hash.hexdigest(),
            "sizes": f"{self._split}-sizes.npy",
            "shards": self._shards,
        }

    def _start_shard(self) -> None:
        self._finish_shard()
        name = f"{self._split}-{len(self._shards):05d}.array_record"
        self._writer = ArrayRecordWriter(str(self._folder / name), _WRITER_OPTIONS)
        self._shards.append({"name": name, "records": 0, "bytes": 0})
        self._written = 0

    def _finish_shard(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
            self._shards[-1]["bytes"] = (self._folder / self._shards[-1]["name"]).stat().st_size


def write_manifest(folder: str | Path, source: str, splits: dict[str, dict[str, Any]]) -> str:
    """Writes dataset.json, a dataset's last file; returns the fingerprint, a hash of all content hashes in order."""
    order = "".join(splits[split]["fingerprint"] for split in SPLITS)
    fingerprint = hashlib.sha256(order.encode()).hexdigest()
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "fingerprint": fingerprint,
        "source": source,
        "splits": {split: splits[split] for split in SPLITS},
    }
    text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
    (Path(folder) / MANIFEST).write_text(text, encoding="utf-8")
    return fingerprint


class Dataset:
    """The records of one split: `len`, `[i]`, and `read` for many at once. Safe to read from several threads.

    sizes: int32 (n, 2), width and height of each picture, known without reading the records.
    fingerprint: of the whole dataset, both splits; it changes when any picture, caption or their order does.
    """

    def __init__(self, folder: str | Path, split: str):
        self.folder, self.split = Path(folder), split
        manifest = read_manifest(folder)
        if split not in manifest["splits"]:
            raise RecordError(f"{self.folder}: no split {split!r}; expected one of {sorted(manifest['splits'])}")
        entry = manifest["splits"][split]
        self.fingerprint: str = manifest["fingerprint"]
        self.sizes = self._load_sizes(entry)
        self._readers = [self._open_shard(shard) for shard in entry["shards"]]
        self._ends = np.cumsum([shard["records"] for shard in entry["shards"]], dtype=np.int64)
        self._starts = self._ends - [shard["records"] for shard in entry["shards"]]
        if len(self.sizes) != entry["records"] or sum(shard["records"] for shard in entry["shards"]) != len(self.sizes):
            raise RecordError(
                f"{self.folder / MANIFEST}: the record counts of split {split!r} disagree; prepare it again"
            )

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: int) -> Record:
        if not -len(self) <= index < len(self):
            raise IndexError(f"record {index} of {self.folder} ({self.split}), which has {len(self)}")
        return self.read([index % len(self)])[0]

    def __iter__(self) -> Iterator[Record]:
        for start in range(0, len(self), 256):
            yield from self.read(range(start, min(start + 256, len(self))))

    def read(self, indices: Sequence[int]) -> list[Record]:
        """Records by number, in the order asked for; one request to each shard, three times faster than one by one."""
        indices = np.asarray(indices, np.int64)
        shards = np.searchsorted(self._ends, indices, side="right")
        records: list[Record] = [None] * len(indices)  # type: ignore[list-item]
        for shard in np.unique(shards):
            (rows,) = np.nonzero(shards == shard)
            positions = indices[rows] - self._starts[shard]
            for row, data in zip(rows, self._read_shard(shard, positions.tolist()), strict=True):
                records[row] = decode_record(data)
        return records

    def captions(self) -> Iterator[Caption]:
        """All captions of the split, in order; what a tokenizer is trained on."""
        for record in self:
            yield from record.captions

    def _load_sizes(self, entry: dict[str, Any]) -> np.ndarray:
        path = self.folder / entry["sizes"]
        if not path.exists():
            raise RecordError(f"{path}: missing, though {MANIFEST} names it; prepare the dataset again")
        sizes = np.load(path)
        return np.stack([sizes["width"], sizes["height"]], axis=1)

    def _open_shard(self, shard: dict[str, Any]) -> ArrayRecordReader:
        path = self.folder / shard["name"]
        found = path.stat().st_size if path.exists() else None
        if found != shard["bytes"]:
            what = "missing" if found is None else f"{found} bytes"
            raise RecordError(f"{path}: {what}, expected {shard['bytes']} bytes; copy it or prepare the dataset again")
        return ArrayRecordReader(str(path), _READER_OPTIONS, file_reader_buffer_size=32768)

    def _read_shard(self, shard: int, positions: list[int]) -> list[bytes]:
        try:
            return self._readers[shard].read(positions)
        except (RuntimeError, ValueError, IndexError) as error:
            name = f"{self.split}-{shard:05d}.array_record"
            raise RecordError(f"{self.folder / name}: cannot read records {positions[:4]}...: {error}") from error


def open_dataset(source: str | Path, split: str) -> Dataset:
    """The "train" or "holdout" split of a dataset folder that `fooddit prepare` wrote. Raises RecordError."""
    return Dataset(source, split)


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """The content of a dataset folder's dataset.json, its format and version checked."""
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise RecordError(f"{folder}: not a dataset, it has no {MANIFEST}; make one: fooddit prepare SOURCE {folder}")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RecordError(f"{path}: damaged, it is not JSON ({error}); prepare the dataset again") from error
    found = (manifest.get("format"), manifest.get("version"))
    if found != (FORMAT, VERSION):
        raise RecordError(f"{path}: format and version are {found}, expected {(FORMAT, VERSION)}; prepare it again")
    return manifest


_FIELDS = [f.name for f in dataclasses.fields(Record)]
_CAPTIONS = _FIELDS.index("captions")

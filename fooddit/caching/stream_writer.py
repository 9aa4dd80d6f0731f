"""Writes one stream of a cache, a shard at a time: what has a name is whole, however the process before ended."""

from __future__ import annotations

import array
import contextlib
import hashlib
import io
import json
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fooddit.data.feature_cache import DTYPES, FORMAT, KEY, STREAM, VERSION, checksum, require_key
from fooddit.data.manifest import RecordError
from fooddit.data.shards import write_shard


class StreamWriter:
    """A stream's folder: begun with its key, filled with shards, finished with its manifest."""

    def __init__(self, folder: Path, key: Mapping[str, Any]):
        """Goes on with a folder that was begun with the same key. Raises RecordError, naming what differs, if not."""
        self.folder, self._key = folder, key
        if (folder / KEY).exists():
            require_key(folder, key, f"Remove {folder} and run this again, or give another OUT")
            return
        folder.mkdir(parents=True, exist_ok=True)
        _put_json(folder / KEY, {"format": FORMAT, "version": VERSION, "key": key})

    def index(self, split: str, number: int) -> dict[str, np.ndarray] | None:
        """The index of a shard that is whole; None if it is not there yet. It is written after the shard."""
        try:
            with np.load(self._path(split, number, "npz")) as arrays:
                index = dict(arrays)
            whole = self._path(split, number).stat().st_size == index["bytes"]
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
            return None
        return index if whole else None

    @contextlib.contextmanager
    def shard(self, split: str, number: int) -> Iterator[ShardWriter]:
        """A new shard. It gets its name by `ShardWriter.close`; without it nothing is left of it."""
        shard = ShardWriter(self._path(split, number), self._path(split, number, "npz"))
        try:
            yield shard
        finally:
            shard.discard()

    def finish(self, shards: Mapping[str, int]) -> dict[str, int]:
        """Writes the manifest of so many shards of each split; returns how many "arrays" and "bytes" there are."""
        entries: dict[str, list[dict[str, Any]]] = {split: [] for split in shards}
        kinds = set()
        for split, number in ((split, number) for split, count in shards.items() for number in range(count)):
            index, path = self.index(split, number), self._path(split, number, "npz")
            entries[split].append(
                {
                    "name": self._path(split, number).name,
                    "records": len(index["crc32"]),
                    "bytes": int(index["bytes"]),
                    "index": path.name,
                    "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                }
            )
            if len(index["crc32"]):
                kinds.add((str(index["dtype"]), int(index["width"])))
        if len(kinds) != 1:
            raise RecordError(f"{self.folder}: features of {sorted(kinds) or 'no record'}, expected one type and width")
        [(dtype, width)] = kinds
        manifest = {"format": FORMAT, "version": VERSION, "key": self._key, "dtype": dtype, "width": width}
        manifest = json.loads(json.dumps(manifest | {"splits": entries}))
        _put_json(self.folder / STREAM, manifest | {"checksum": checksum(manifest)})
        written = [entry for split in entries.values() for entry in split]
        return {"arrays": sum(e["records"] for e in written), "bytes": sum(e["bytes"] for e in written)}

    def _path(self, split: str, number: int, suffix: str = "array_record") -> Path:
        return self.folder / f"{split}-{number:05d}.{suffix}"


class ShardWriter:
    """Arrays of one shard, in any order, and which of them each record has."""

    def __init__(self, path: Path, index: Path):
        self._path, self._index = path, index
        self._partial = path.with_name(f".{path.name}.partial")
        self._writer = write_shard(self._partial)
        self._checksums, self._shapes = array.array("I"), array.array("H")
        self._kind: tuple[str, int] | None = None

    def add(self, values: np.ndarray) -> int:
        """Writes a (rows, columns, width) array; returns its number in the shard."""
        kind = str(values.dtype), values.shape[2]
        if self._kind not in (None, kind) or kind[0] not in DTYPES:
            raise ValueError(f"{self._path}: features of type and width {kind}, expected {self._kind or [*DTYPES]}")
        data = values.tobytes()
        self._kind = kind
        self._writer.write(data)
        self._checksums.append(zlib.crc32(data))
        self._shapes.extend(values.shape[:2])
        return len(self._checksums) - 1

    def close(self, items: Sequence[Sequence[int]], **more: np.ndarray) -> None:
        """`items`: for each record the numbers of its arrays. `more` goes into the index as it is."""
        self._writer.close()
        self._writer = None
        dtype, width = self._kind or ("", 0)
        index = io.BytesIO()
        np.savez(
            index,
            counts=np.array([len(numbers) for numbers in items], np.uint32),
            entries=np.array([number for numbers in items for number in numbers], np.uint32),
            crc32=np.array(self._checksums, np.uint32),
            shapes=np.array(self._shapes, np.uint16).reshape(-1, 2),
            dtype=np.array(dtype),
            width=np.array(width),
            bytes=np.array(self._partial.stat().st_size),
            **more,
        )
        # The index of an earlier shard of this name would be believed.
        self._index.unlink(missing_ok=True)
        with self._partial.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(self._partial, self._path)
        _put(self._index, index.getvalue())

    def discard(self) -> None:
        """Leaves nothing of a shard that was not closed."""
        if self._writer is not None:
            self._writer.close()
        self._partial.unlink(missing_ok=True)


def _put(path: Path, data: bytes) -> None:
    """A file under its name only when it is whole and on the disk."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def _put_json(path: Path, content: Mapping[str, Any]) -> None:
    _put(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())

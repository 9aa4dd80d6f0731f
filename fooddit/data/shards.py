"""Shards: ArrayRecord files whose entries are read in any order, each checked against the CRC-32 of its writing."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

# One entry a group, or a random read decompresses its neighbours too; JPEG and PNG do not compress further, nor do
# features.
_WRITER_OPTIONS = "group_size:1,uncompressed"
_READER_OPTIONS = "readahead_buffer_size:0"
# What ArrayRecord raises, by experiment: RuntimeError for a chunk whose hash is wrong and for a file cut short.
_READ_ERRORS = (RuntimeError, ValueError, IndexError, OSError)


class ShardError(ValueError):
    """A shard of which nothing can be read; the message says why, and not where it is."""


def write_shard(path: Path) -> ArrayRecordWriter:
    """A writer of a new shard: `write(bytes)` for each entry, then `close`."""
    return ArrayRecordWriter(str(path), _WRITER_OPTIONS)


class Shards:
    """The shards of a folder as one list of entries. Safe to read from several threads.

    shards: {"name", "records", "bytes"} of each, as a manifest has them; checksums: CRC-32 of each entry, in order.
    problems: what is wrong with a shard that cannot be read, by its number.
    """

    def __init__(self, folder: Path, shards: Sequence[dict[str, Any]], checksums: Sequence[int]):
        self._checksums = checksums
        counts = [shard["records"] for shard in shards]
        self.ends = np.cumsum(counts, dtype=np.int64)
        self.starts = self.ends - counts
        self.problems: dict[int, str] = {}
        self._readers: list[ArrayRecordReader | None] = []
        for number, shard in enumerate(shards):
            try:
                self._readers.append(_open(folder / shard["name"], shard))
            except ShardError as error:
                self.problems[number] = str(error)
                self._readers.append(None)

    def place(self, entry: int) -> tuple[int, int]:
        """The shard of an entry and its number in there."""
        shard = int(np.searchsorted(self.ends, entry, side="right"))
        return shard, int(entry - self.starts[shard])

    def read(self, entries: Sequence[int] | np.ndarray) -> list[bytes | ShardError]:
        """Entries by number, in the order asked for; an error for each that is damaged or in a shard that is.

        One request to each shard, three times faster than one by one. Only a request that fails is asked for again
        one by one.
        """
        entries = np.asarray(entries, np.int64)
        shards = np.searchsorted(self.ends, entries, side="right")
        found: list[bytes | ShardError] = [ShardError("")] * len(entries)
        for shard in np.unique(shards).tolist():
            rows = np.nonzero(shards == shard)[0].tolist()
            read = self._read(shard, (entries[rows] - self.starts[shard]).tolist())
            for row, data in zip(rows, read, strict=True):
                found[row] = self._checked(int(entries[row]), data)
        return found

    def _read(self, shard: int, positions: list[int]) -> list[bytes | ShardError]:
        if shard in self.problems:
            return [ShardError(self.problems[shard])] * len(positions)
        try:
            return self._readers[shard].read(positions)
        except _READ_ERRORS as error:
            if len(positions) == 1:
                return [ShardError(_short(error))]
        return [self._read(shard, [position])[0] for position in positions]

    def _checked(self, entry: int, data: bytes | ShardError) -> bytes | ShardError:
        # Also the empty bytes that ArrayRecord gives, without an error, when a file was cut short after opening.
        if isinstance(data, bytes) and zlib.crc32(data) != self._checksums[entry]:
            return ShardError("its checksum is not the one it was prepared with")
        return data


def _open(path: Path, shard: dict[str, Any]) -> ArrayRecordReader:
    if not path.is_file():
        raise ShardError("missing")
    if (found := path.stat().st_size) != shard["bytes"]:
        raise ShardError(f"{found:,} bytes, expected {shard['bytes']:,}")
    try:
        reader = ArrayRecordReader(str(path), _READER_OPTIONS, file_reader_buffer_size=32768)
        # A reader whose footer is damaged says that it has no records, and nothing else.
        found = reader.num_records()
    except _READ_ERRORS as error:
        raise ShardError(f"its footer is damaged ({_short(error)})") from error
    if found != shard["records"]:
        raise ShardError(f"its footer is damaged, it names {found} of {shard['records']} records")
    return reader


def _short(error: Exception) -> str:
    """The first part of ArrayRecord's messages; hashes and offsets follow."""
    return re.split(r" \(|; |, ", str(error))[0][:160]

"""The first pass of `fooddit prepare`: every row's picture, decoded on threads, goes into one file in order."""

from __future__ import annotations

import array
import collections
import hashlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tqdm

from fooddit.data.duplicates import difference_hash, thumbnail
from fooddit.data.images import normalize_picture
from fooddit.data.records import Record, decode_record, encode_record
from fooddit.data.rows import Catalogue, CatalogueError, Rejection, Rejections, Row
from fooddit.data.where import Where
from fooddit.streams import Lasting

_DIGEST = np.dtype("V32")


@dataclass(frozen=True)
class _Usable:
    """A row as it is written, and what is remembered of it. The pixels are gone before it waits for its turn."""

    record: bytes
    dish: bytes
    split: str | None
    hash: int
    thumbnail: bytes


@dataclass
class Spool:
    """Records without a cluster in one file, and what the split needs of each: 250 bytes, whatever the picture's size.

    Of a source that splits its rows itself, looks are not compared: a picture's hash is then of its file.

    Not an ArrayRecord: that one says only at its end that the disk was full.
    """

    path: Path
    lengths: array.array = field(default_factory=lambda: array.array("Q"))
    splits: list[str | None] = field(default_factory=list)
    rejections: Rejections = field(default_factory=Rejections)
    filtered: int = 0
    _dishes: bytearray = field(default_factory=bytearray)
    _hashes: array.array = field(default_factory=lambda: array.array("Q"))
    _thumbnails: bytearray = field(default_factory=bytearray)

    def add(self, row: _Usable) -> None:
        self.lengths.append(len(row.record))
        self.splits.append(row.split)
        self._dishes += row.dish
        self._hashes.append(row.hash)
        self._thumbnails += row.thumbnail

    @property
    def dishes(self) -> np.ndarray:
        """A hash of the seed and the dish of each picture: V32 (n,)."""
        return np.frombuffer(self._dishes, _DIGEST)

    @property
    def hashes(self) -> np.ndarray:
        """Difference hashes, or of the files: uint64 (n,)."""
        return np.frombuffer(self._hashes, np.uint64)

    @property
    def thumbnails(self) -> np.ndarray:
        """uint8 (n, 192)."""
        return np.frombuffer(self._thumbnails, np.uint8).reshape(len(self.lengths), -1)

    def records(self, indices: Sequence[int]) -> Iterator[Record]:
        """The records of these numbers, which count up."""
        ends = np.cumsum(self.lengths, dtype=np.int64)
        with self.path.open("rb") as file:
            for index in indices:
                file.seek(ends[index] - self.lengths[index])
                yield decode_record(file.read(self.lengths[index]))


def fill_spool(
    catalogue: Catalogue,
    path: Path,
    *,
    size: int | None,
    where: Mapping[str, str],
    seed: int,
    threads: int,
    progress: bool,
) -> Spool:
    """Decodes every row of a catalogue into a spool at `path`. Raises CatalogueError when no row is usable."""
    spool = Spool(path)
    # Redrawn on a terminal; a line now and then in a log.
    interval = 0.1 if sys.stderr.isatty() else 10
    options = {"desc": catalogue.name, "unit": " pictures", "mininterval": interval, "maxinterval": interval}
    bar = tqdm.tqdm(total=len(catalogue), disable=not progress, smoothing=0.1, file=Lasting(sys.stderr), **options)
    rows = _filtered(catalogue, where, spool)
    with bar, path.open("wb") as file, ThreadPoolExecutor(threads) as pool:
        for result in _in_order(pool, rows, size, seed, 4 * threads, bar):
            if isinstance(result, Rejection):
                spool.rejections.add(result)
            else:
                file.write(result.record)
                spool.add(result)
    if not spool.lengths:
        found = spool.rejections
        why = [f"{count} {reason} ({found.examples[reason][0]})" for reason, count in found.counts.most_common()]
        raise CatalogueError(
            f"{catalogue.name}: no usable row; rejected: {'; '.join(why) or 0}; by filter: {spool.filtered}"
        )
    return spool


def _filtered(catalogue: Catalogue, where: Mapping[str, str], spool: Spool) -> Iterator[Row | Rejection]:
    """Rows that pass the filter; one that nothing passes is an error, not an empty dataset."""
    chosen = Where(where)
    for row in catalogue:
        if isinstance(row, Rejection) or chosen.keeps(row.columns):
            yield row
        else:
            spool.filtered += 1
    if spool.filtered and (problem := chosen.problem()):
        raise CatalogueError(f"{catalogue.name}: --where: {problem}")


def _in_order(
    pool: ThreadPoolExecutor,
    rows: Iterator[Row | Rejection],
    size: int | None,
    seed: int,
    ahead: int,
    bar: tqdm.tqdm,
) -> Iterator[_Usable | Rejection]:
    """What comes of each row, in the catalogue's order, at most `ahead` of them in memory."""
    waiting: collections.deque[Future] = collections.deque()
    for row in rows:
        waiting.append(pool.submit(_read, row, size, seed))
        while len(waiting) > ahead:
            bar.update()
            yield waiting.popleft().result()
    while waiting:
        bar.update()
        yield waiting.popleft().result()
    bar.update(bar.total - bar.n)


def _read(row: Row | Rejection, size: int | None, seed: int) -> _Usable | Rejection:
    if isinstance(row, Rejection):
        return row
    try:
        data = row.load()
    except OSError as error:
        return Rejection(row.id, "file cannot be opened", str(error)[:200])
    try:
        picture = normalize_picture(data, size)
    except (OSError, ValueError) as error:
        return Rejection(row.id, "picture cannot be read", str(error)[:200])
    record = Record(
        id=row.id,
        dish_id=row.dish_id,
        cluster=-1,
        image=picture.data,
        width=picture.width,
        height=picture.height,
        captions=row.captions,
        category=row.category,
        attributes=row.attributes,
    )
    dish = hashlib.sha256(f"{seed}/{row.dish_id}".encode()).digest()
    if row.split:
        # Scenes of one dish look alike and are not twins.
        looks = int.from_bytes(hashlib.sha256(picture.data).digest()[:8], "big"), b""
    else:
        looks = difference_hash(picture.pixels), thumbnail(picture.pixels).tobytes()
    return _Usable(encode_record(record), dish, row.split, *looks)

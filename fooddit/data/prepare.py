"""`fooddit prepare`: a catalogue becomes records, split by dish and near-duplicate, with a card and a contact sheet."""

from __future__ import annotations

import array
import collections
import hashlib
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import tqdm
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from fooddit.data import card
from fooddit.data.catalogue import open_catalogue
from fooddit.data.duplicates import components, difference_hash, near_duplicates, thumbnail
from fooddit.data.images import Picture, normalize_picture
from fooddit.data.records import SPLITS, Record, RecordWriter, decode_record, encode_record, write_manifest
from fooddit.data.rows import Catalogue, CatalogueError, Rejection, Row


@dataclass(frozen=True)
class Summary:
    """What `prepare` did; its text is what the command prints."""

    folder: Path
    source: str
    fingerprint: str
    records: Mapping[str, int]
    clusters: Mapping[str, int]
    rejected: Mapping[str, int]
    filtered: int
    seconds: float

    def __str__(self) -> str:
        lines = [f"{self.source} -> {self.folder}"]
        lines += [
            f"  {split:8} {self.records[split]:7,} pictures of {self.clusters[split]:,} dishes" for split in SPLITS
        ]
        lines += [f"  rejected {count:7,} {reason}" for reason, count in self.rejected.items()]
        if self.filtered:
            lines.append(f"  left out {self.filtered:7,} by --where")
        rate = sum(self.records.values()) / max(self.seconds, 1e-9)
        lines.append(f"  fingerprint {self.fingerprint[:16]}, {self.seconds:.1f} s, {rate:,.0f} pictures/s")
        lines.append(f"  look at {self.folder / card.SHEET} and {self.folder / card.CARD}")
        return "\n".join(lines)


def prepare(
    source: str,
    out: str | Path,
    *,
    size: int | None = None,
    holdout: float = 0.1,
    seed: int = 0,
    where: Mapping[str, str] | None = None,
    shard_bytes: int = 256 << 20,
    threads: int | None = None,
    progress: bool = True,
) -> Summary:
    """Turns `source` (see open_catalogue) into the dataset folder `out`; the same input gives the same bytes.

    size: the shorter side of photos is shrunk to it (None keeps them), scenes are rendered at it. holdout: the share of
    pictures kept for evaluation; whole clusters, so it is met only nearly. where: keeps only rows whose metadata column
    has that value. Memory does not grow with the pictures' size: they go through a spool file beside `out`. The folder
    appears under its name when it is whole. Raises CatalogueError, or FileExistsError when `out` is there already.
    """
    started = time.monotonic()
    out = Path(out)
    if not 0 <= holdout < 1:
        raise CatalogueError(f"holdout {holdout}: expected a share, at least 0 and below 1")
    if size is not None and size < 16:
        raise CatalogueError(f"size {size}: expected a side in pixels, at least 16")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out}: exists already; choose another folder or remove it first")
    catalogue = open_catalogue(source, size=size, holdout=holdout)
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)

    spool = partial / "spool.array_record"
    found = _read_all(catalogue, spool, size, dict(where or {}), threads or os.cpu_count() or 1, progress)
    clusters, splits = _split(found, holdout, seed)
    fingerprint, entries, shown = _write_all(found, spool, partial, catalogue.name, clusters, splits, shard_bytes)
    spool.unlink()
    facts = card.facts(catalogue.name, fingerprint, shown, found.rejections, found.filtered, entries)
    card.write_card(partial, facts)
    card.write_contact_sheet(partial, shown.samples, facts)
    if out.exists():
        out.rmdir()
    partial.rename(out)
    counts = {split: entries[split]["records"] for split in SPLITS}
    groups = {split: len(np.unique(clusters[splits == split])) for split in SPLITS}
    rejected = dict(collections.Counter(rejection.reason for rejection in found.rejections).most_common())
    seconds = time.monotonic() - started
    return Summary(out, catalogue.name, fingerprint, counts, groups, rejected, found.filtered, seconds)


@dataclass
class _Found:
    """What is remembered of each usable picture: enough to split, a few hundred bytes each."""

    dishes: list[str] = field(default_factory=list)
    hashes: array.array = field(default_factory=lambda: array.array("Q"))
    thumbnails: bytearray = field(default_factory=bytearray)
    fixed_splits: list[str | None] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)
    filtered: int = 0


def _read_all(
    catalogue: Catalogue, spool: Path, size: int | None, where: dict[str, str], threads: int, progress: bool
) -> _Found:
    """Decodes every row on a thread pool, in order, into a spool of records that know no cluster yet."""
    found = _Found()
    writer = ArrayRecordWriter(str(spool), "group_size:1,uncompressed")
    rows = _filtered(catalogue, where, found)
    # Redrawn on a terminal; a line now and then in a log.
    interval = 0.1 if sys.stderr.isatty() else 10
    options = {"desc": catalogue.name, "unit": " pictures", "mininterval": interval, "maxinterval": interval}
    bar = tqdm.tqdm(total=len(catalogue), disable=not progress, smoothing=0.1, **options)
    with bar, ThreadPoolExecutor(threads) as pool:
        for row, result in _in_order(pool, rows, size, 4 * threads, bar):
            if isinstance(result, Rejection):
                found.rejections.append(result)
                continue
            found.dishes.append(row.dish_id)
            found.fixed_splits.append(row.split)
            if row.split is None:
                found.hashes.append(difference_hash(result.pixels))
                found.thumbnails += thumbnail(result.pixels).tobytes()
            record = Record(
                id=row.id,
                dish_id=row.dish_id,
                cluster=-1,
                image=result.data,
                width=result.width,
                height=result.height,
                captions=row.captions,
                category=row.category,
                attributes=row.attributes,
            )
            writer.write(encode_record(record))
    writer.close()
    if not found.dishes:
        reasons = collections.Counter(rejection.reason for rejection in found.rejections)
        raise CatalogueError(f"{catalogue.name}: no usable row; rejected: {dict(reasons)}, by filter: {found.filtered}")
    return found


def _filtered(catalogue: Catalogue, where: dict[str, str], found: _Found) -> Iterator[Row | Rejection]:
    """Rows that pass the filter; a filter on a column that no row has is an error, not an empty dataset."""
    seen: set[str] = set()
    for row in catalogue:
        if isinstance(row, Rejection):
            yield row
            continue
        seen.update(row.columns)
        if all(str(row.columns.get(column)) == value for column, value in where.items()):
            yield row
        else:
            found.filtered += 1
    if unknown := where.keys() - seen:
        raise CatalogueError(f"{catalogue.name}: no row has the column {sorted(unknown)}; columns: {sorted(seen)}")


def _in_order(
    pool: ThreadPoolExecutor, rows: Iterator[Row | Rejection], size: int | None, ahead: int, bar: tqdm.tqdm
) -> Iterator[tuple[Row, Picture] | tuple[None, Rejection]]:
    """Each row with its picture, in the catalogue's order, at most `ahead` pictures in memory."""
    waiting: collections.deque[tuple[Row | Rejection, Future]] = collections.deque()
    for row in rows:
        waiting.append((row, pool.submit(_picture, row, size)))
        while len(waiting) > ahead:
            bar.update()
            yield _result(*waiting.popleft())
    while waiting:
        bar.update()
        yield _result(*waiting.popleft())
    bar.update(bar.total - bar.n)


def _result(row: Row | Rejection, future: Future) -> tuple[Row, Picture] | tuple[None, Rejection]:
    result = future.result()
    return (None, result) if isinstance(result, Rejection) else (row, result)


def _picture(row: Row | Rejection, size: int | None) -> Picture | Rejection:
    if isinstance(row, Rejection):
        return row
    try:
        return normalize_picture(row.load(), size)
    except (OSError, ValueError) as error:
        return Rejection(row.id, "picture cannot be read", str(error)[:200])


def _split(found: _Found, holdout: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The cluster, int64 (n,), and the split, str (n,), of every picture."""
    if found.fixed_splits[0] is not None:
        return components(found.dishes, []), np.array(found.fixed_splits)
    thumbnails = np.frombuffer(found.thumbnails, np.uint8).reshape(len(found.hashes), -1)
    pairs = near_duplicates(np.array(found.hashes, np.uint64), thumbnails)
    clusters = components(found.dishes, pairs)
    counts = np.bincount(clusters)
    names = {int(cluster): dish for dish, cluster in zip(reversed(found.dishes), reversed(clusters), strict=True)}
    wanted = round(holdout * len(clusters)) or int(holdout > 0 and len(counts) > 1)
    held = []
    # By a hash of the dish's name, not by its place: as a catalogue grows, a dish tends to stay on its side.
    for cluster in sorted(range(len(counts)), key=lambda c: hashlib.sha256(f"{seed}/{names[c]}".encode()).digest()):
        if counts[cluster] <= wanted:
            held.append(cluster)
            wanted -= counts[cluster]
    return clusters, np.where(np.isin(clusters, held), "holdout", "train")


def _write_all(
    found: _Found,
    spool: Path,
    folder: Path,
    source: str,
    clusters: np.ndarray,
    splits: np.ndarray,
    shard_bytes: int,
) -> tuple[str, dict[str, dict], card.Contents]:
    """The second pass: from the spool to the shards of each split, and the manifest."""
    writers = {split: RecordWriter(folder, split, shard_bytes) for split in SPLITS}
    contents = card.Contents(wanted=card.sample(clusters, splits))
    reader = ArrayRecordReader(str(spool))
    for index, (cluster, split) in enumerate(zip(clusters, splits, strict=True)):
        record = replace(decode_record(reader.read([index])[0]), cluster=int(cluster))
        writers[split].write(record)
        contents.add(index, record, str(split))
    reader.close()
    entries = {split: writer.close() for split, writer in writers.items()}
    return write_manifest(folder, source, entries), entries, contents

"""`fooddit prepare`: a catalogue becomes records, split by dish and near-duplicate, with a card and a contact sheet."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from etils import epath

from fooddit.data import card
from fooddit.data.catalogue import open_catalogue
from fooddit.data.disk import naming_full_disk, require_free
from fooddit.data.duplicates import components, near_duplicates
from fooddit.data.records import SPLITS, RecordWriter, write_manifest
from fooddit.data.rows import CatalogueError, require_utf8
from fooddit.data.spool import Spool, fill_spool
from fooddit.data.staging import is_remote, require_absent, upload

_LOCK = "lock"
_FULL_DISK = (
    "free some or choose an OUT on another disk, and run the same command again: it starts over "
    "(while it runs it needs twice the size of the pictures)"
)


# What a split without pictures means.
_WITHOUT = {"train": "nothing to train on; lower --holdout", "holdout": "a run on it is not evaluated"}


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
            f"  {split:8} {self.records[split]:7,} pictures in {self.clusters[split]:,} groups" for split in SPLITS
        ]
        lines += [f"  no picture in {split}: {_WITHOUT[split]}" for split in SPLITS if not self.records[split]]
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
    appears under its name when it is whole; what is left of a run that was killed is cleared away by the next one.

    Raises CatalogueError; FileExistsError when `out` is there already or another process is writing it; OSError, with
    nothing left behind, when the disk is full.
    """
    started = time.monotonic()
    if is_remote(out):
        options = {"size": size, "holdout": holdout, "seed": seed, "where": where, "shard_bytes": shard_bytes}
        return _prepare_remote(source, str(out), **options, threads=threads, progress=progress)
    out = Path(out)
    if not 0 <= holdout < 1:
        raise CatalogueError(f"holdout {holdout}: expected a share, at least 0 and below 1")
    if size is not None and size < 16:
        raise CatalogueError(f"size {size}: expected a side in pixels, at least 16")
    _require_new(out)
    catalogue = open_catalogue(source, size=size, holdout=holdout)
    with _workplace(out) as folder, naming_full_disk(folder, _FULL_DISK):
        options = {"size": size, "where": dict(where or {}), "seed": seed, "threads": threads or os.cpu_count() or 1}
        spool = fill_spool(catalogue, folder / "spool", progress=progress, **options)
        groups = _group(spool)
        splits = _split(spool, groups.clusters, holdout)
        require_free(folder, sum(spool.lengths), _FULL_DISK)
        fingerprint, entries, shown = _write_all(spool, folder, catalogue.name, groups, splits, shard_bytes)
        spool.path.unlink()
        facts = card.facts(catalogue.name, fingerprint, shown, spool, groups.clusters, splits, entries)
        card.write_card(folder, facts)
        card.write_contact_sheet(folder, shown.samples, facts)
    counts = {split: entries[split]["records"] for split in SPLITS}
    clusters = {split: len(np.unique(groups.clusters[splits == split])) for split in SPLITS}
    rejected = dict(spool.rejections.counts.most_common())
    seconds = time.monotonic() - started
    return Summary(out, catalogue.name, fingerprint, counts, clusters, rejected, spool.filtered, seconds)


def _prepare_remote(source: str, address: str, **options) -> Summary:
    """Written to the folder for temporary files (TMPDIR) first: shards are not written in one go."""
    require_absent(address)
    with tempfile.TemporaryDirectory(prefix="fooddit-prepare-") as scratch:
        summary = prepare(source, Path(scratch) / "records", **options)
        upload(summary.folder, address)
    return replace(summary, folder=epath.Path(address))


def _require_new(out: Path) -> None:
    require_utf8("OUT", out)
    if os.path.ismount(out):
        raise FileExistsError(f"{out}: a mount point cannot be replaced; choose a folder inside of it")
    if out.is_symlink() or out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out}: exists already; choose another folder or remove it first")
    above = next(path for path in out.absolute().parents if path.exists())
    if not above.is_dir():
        raise NotADirectoryError(f"{out}: {above} is a file, expected a folder")


@contextlib.contextmanager
def _workplace(out: Path) -> Iterator[Path]:
    """A folder beside `out` for one process, renamed to `out` when all went well and removed when not."""
    folder = out.with_name(f".{out.name}.partial")
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / _LOCK).exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder}: is in the way and holds other files; move it or choose another OUT")
    with (folder / _LOCK).open("ab") as lock:
        try:
            # The system lets go of it when the process ends, however it ends.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FileExistsError(
                f"{out}: another fooddit prepare is writing it; wait, or choose another OUT"
            ) from error
        # Whoever had the lock may have finished a moment ago.
        _require_new(out)
        try:
            for path in folder.iterdir():
                if path.name != _LOCK:
                    path.unlink()
            yield folder
            (folder / _LOCK).unlink()
            folder.rename(out)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise


class _Groups(NamedTuple):
    """Numbers that pictures of one dish have in common, near-duplicates, and whatever either joins: int64 (n,) each."""

    dishes: np.ndarray
    twins: np.ndarray
    clusters: np.ndarray


def _group(spool: Spool) -> _Groups:
    dishes = components(spool.dishes, [])
    if spool.splits[0] is not None:
        return _Groups(dishes, components(spool.hashes, []), dishes)
    alike = near_duplicates(spool.hashes, spool.thumbnails)
    return _Groups(dishes, components(np.arange(len(dishes)), alike), components(spool.dishes, alike))


def _split(spool: Spool, clusters: np.ndarray, holdout: float) -> np.ndarray:
    """The split of every picture, str (n,)."""
    if spool.splits[0] is not None:
        return np.array(spool.splits)
    _, firsts, counts = np.unique(clusters, return_index=True, return_counts=True)
    wanted = round(holdout * len(clusters)) or int(holdout > 0 and len(counts) > 1)
    held = []
    # By a hash of the dish's name, not by its place: as a catalogue grows, a dish tends to stay on its side.
    for cluster in sorted(range(len(counts)), key=lambda c: spool.dishes[firsts[c]].tobytes()):
        if counts[cluster] <= wanted:
            held.append(cluster)
            wanted -= counts[cluster]
    return np.where(np.isin(clusters, held), "holdout", "train")


def _write_all(
    spool: Spool, folder: Path, source: str, groups: _Groups, splits: np.ndarray, shard_bytes: int
) -> tuple[str, dict[str, dict], card.Contents]:
    """The second pass: from the spool to the shards of each split, and the manifest.

    One split after the other: an open ArrayRecord writer holds 16 MB of records.
    """
    contents = card.Contents(wanted=card.sample(groups.clusters, splits))
    entries = {}
    for split in SPLITS:
        writer = RecordWriter(folder, split, shard_bytes)
        indices = np.nonzero(splits == split)[0].tolist()
        for index, record in zip(indices, spool.records(indices), strict=True):
            record = replace(record, cluster=int(groups.clusters[index]))
            writer.write(record, dish=int(groups.dishes[index]), twin=int(groups.twins[index]))
            contents.add(index, record, split)
        entries[split] = writer.close()
    return write_manifest(folder, source, entries), entries, contents

"""A cache of features: which streams there are to make, by which encoders, and the way through a dataset's shards."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tqdm

from fooddit.caching.captions import CaptionEncoder, write_captions
from fooddit.caching.pictures import PictureEncoder, total_sums, write_moments
from fooddit.caching.stream_writer import StreamWriter
from fooddit.data.buckets import Plan, bucket_table
from fooddit.data.disk import naming_full_disk
from fooddit.data.feature_cache import KEY, MOMENTS, POOLED, moments_key, text_key
from fooddit.data.pipeline import DataConfig
from fooddit.data.records import SPLITS, Dataset, open_dataset
from fooddit.models.latent_statistics import LatentSums
from fooddit.streams import Lasting

_FULL_DISK = "free some and run the same command again: what is there already stays"


@dataclass(frozen=True)
class Encoders:
    """What features are made by, loaded when something is missing.

    Attributes:
      space: description of the picture space; None: no moments are wanted.
      towers: descriptions of the text towers by name.
      pooled: names of those that give a vector a caption, too.
      load_space, load_tower: what encodes, on the devices.
    """

    space: Mapping[str, Any] | None
    towers: Mapping[str, Mapping[str, Any]]
    pooled: frozenset[str]
    load_space: Callable[[], PictureEncoder]
    load_tower: Callable[[str], CaptionEncoder]


class Stream(NamedTuple):
    """What a cache holds of one stream, and how much of it was made now."""

    arrays: int
    bytes: int
    records: int
    seconds: float


@dataclass
class Summary:
    """What is in a cache, by stream; its text is what the command prints. `sums`: of the moments of the train split."""

    folder: Path
    streams: dict[str, Stream] = field(default_factory=dict)
    sums: LatentSums | None = None
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [str(self.folder)]
        for name, found in self.streams.items():
            rate = found.records / max(found.seconds, 1e-9)
            now = f"{found.records:,} records now, {rate:,.0f}/s" if found.records else "was there already"
            lines.append(f"  {name:12} {found.arrays:9,} arrays, {found.bytes / 1e6:,.1f} MB; {now}")
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])


def build_cache(
    source: str, out: str | Path, config: DataConfig, encoders: Encoders, *, progress: bool = True
) -> Summary:
    """Makes what is missing in the cache `out` of the dataset `source`, both splits, and returns what is there.

    Shards appear under their names when they are whole: a run that was killed goes on with those that are missing. One
    stream may be added to others. A record that is damaged has no features.

    Raises:
      RecordError: `out` has features of something else (it says of what), or too many records are damaged.
      FileExistsError: `out` is no cache, or another process is at it. OSError: the disk is full.
    """
    out = Path(out)
    datasets = [open_dataset(source, split, cache=config.cache) for split in SPLITS]
    summary = Summary(out)
    with _alone(out), naming_full_disk(out, _FULL_DISK):
        # All keys first: what is stale is said before anything is computed.
        jobs = _jobs(out, datasets, config, encoders)
        for job in jobs:
            summary.streams |= _run(job, datasets, config.max_damaged, progress)
        if encoders.space is not None:
            [train] = [dataset for dataset in datasets if dataset.split == "train"]
            summary.sums = total_sums(jobs[0].writers[0], train.split, len(train.shards))
    for dataset in datasets:
        if len(dataset.damage):
            summary.notes.append(f"{len(dataset.damage)} records of {dataset.split} are damaged: they have no features")
    return summary


class _Job(NamedTuple):
    """Streams that are written together: what loads their encoder, and what writes a shard of a dataset with it."""

    name: str
    writers: list[StreamWriter]
    load: Callable[[], Any]
    write: Callable[[Dataset, int, Any], None]


def _jobs(out: Path, datasets: list[Dataset], config: DataConfig, encoders: Encoders) -> list[_Job]:
    fingerprint, jobs = datasets[0].fingerprint, []
    if encoders.space is not None:
        moments = StreamWriter(out / MOMENTS, moments_key(fingerprint, config, encoders.space))
        shapes = {dataset.split: _bucket_shapes(dataset, config) for dataset in datasets}
        options = {"flip": config.flip, "threads": config.threads}

        def write_pictures(dataset: Dataset, number: int, encoder: PictureEncoder) -> None:
            write_moments(moments, dataset, number, shapes[dataset.split], encoder, **options)

        jobs.append(_Job(MOMENTS, [moments], encoders.load_space, write_pictures))
    for name, about in encoders.towers.items():
        names = [name, f"{name}{POOLED}"] if name in encoders.pooled else [name]
        writers = [StreamWriter(out / each, text_key(fingerprint, about)) for each in names]
        write = functools.partial(write_captions, writers[0], writers[1] if len(writers) > 1 else None)
        jobs.append(_Job(name, writers, functools.partial(encoders.load_tower, name), write))
    return jobs


def _run(job: _Job, datasets: list[Dataset], max_damaged: int, progress: bool) -> dict[str, Stream]:
    """Writes the shards that are not whole yet, finishes the streams, and says what is in them."""
    started = time.monotonic()
    shards = [(dataset, number) for dataset in datasets for number in range(len(dataset.shards))]
    missing = [(d, n) for d, n in shards if any(writer.index(d.split, n) is None for writer in job.writers)]
    records = sum(len(dataset.shards[number]) for dataset, number in missing)
    encoder = job.load() if missing else None
    options = {"desc": job.name, "unit": " records", "disable": not progress, "file": Lasting(sys.stderr)}
    with tqdm.tqdm(total=records, **options) as bar:
        for dataset, number in missing:
            job.write(dataset, number, encoder)
            dataset.damage.check(max_damaged)
            bar.update(len(dataset.shards[number]))
    found = {writer.folder.name: writer.finish({d.split: len(d.shards) for d in datasets}) for writer in job.writers}
    seconds = time.monotonic() - started
    return {name: Stream(**totals, records=records, seconds=seconds) for name, totals in found.items()}


def _bucket_shapes(dataset: Dataset, config: DataConfig) -> np.ndarray:
    if not len(dataset):
        return np.zeros((0, 2), np.int64)
    table = bucket_table(config.image_size, config.grid, config.max_aspect)
    return Plan(dataset.sizes, table, config.batch_size, seed=0).shapes()


@contextlib.contextmanager
def _alone(out: Path) -> Iterator[None]:
    """One process at a time, in a folder that is new or a cache's; a lock ends with its process, however that ends."""
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"{out}: exists already and is no folder; choose another OUT")
    strange = [path.name for path in out.iterdir() if not _is_ours(path)] if out.exists() else []
    if strange:
        raise FileExistsError(f"{out}: holds {strange[0]}, which is no part of a cache; choose another OUT")
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".lock").open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FileExistsError(f"{out}: another process is writing it; wait, or choose another OUT") from error
        yield


def _is_ours(path: Path) -> bool:
    return path.name == ".lock" or path.is_dir() and ((path / KEY).is_file() or not any(path.iterdir()))

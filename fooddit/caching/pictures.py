"""Moments of a dataset's pictures: one of its shards at a time, in batches of one size for each bucket."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import jax
import numpy as np

from fooddit.caching.stream_writer import StreamWriter
from fooddit.data.images import fit_image
from fooddit.data.records import Dataset, Record
from fooddit.models.latent_statistics import LatentSums

# Moments of unit variance: float16 keeps 11 bits of each, bfloat16 would keep 8 for a range that they do not have.
DTYPE = np.float16


class PictureEncoder(NamedTuple):
    """`moments`: uint8 (batch_size, h, w, 3) to moments on the devices; `sums`: of some of them, for statistics."""

    moments: Callable[[np.ndarray], jax.Array]
    sums: Callable[[jax.Array], LatentSums]
    batch_size: int


class _Picture(NamedTuple):
    record: int
    id: str
    image: np.ndarray


def write_moments(
    writer: StreamWriter,
    dataset: Dataset,
    number: int,
    shapes: np.ndarray,
    encoder: PictureEncoder,
    *,
    flip: bool,
    threads: int,
) -> None:
    """Writes the moments of the middle of each picture in the dataset's shard `number`, with `flip` also mirrored.

    shapes: int64 (n, 2), height and width of each record's bucket. A record that is damaged has none. The shard's index
    has the sums of what is not mirrored, for `statistics`.
    """
    items: dict[int, list[int]] = {record: [] for record in dataset.shards[number]}
    sums = []
    with writer.shard(dataset.split, number) as shard, ThreadPoolExecutor(threads) as pool:
        pictures = _pictures(dataset, dataset.shards[number], shapes, pool, ahead=2 * encoder.batch_size)
        for batch in _batches(pictures, encoder.batch_size):
            filled = [picture.image for picture in batch] + [batch[0].image] * (encoder.batch_size - len(batch))
            images = np.stack(filled)
            plain = encoder.moments(images)
            views = [plain, encoder.moments(images[:, :, ::-1])] if flip else [plain]
            sums.append(encoder.sums(plain[: len(batch)]))
            for view in views:
                for picture, moments in zip(batch, np.asarray(view), strict=False):
                    items[picture.record].append(shard.add(_stored(dataset, picture, moments)))
        parts = {name: np.array([getattr(one, name) for one in sums]) for name in LatentSums.__dataclass_fields__}
        shard.close(list(items.values()), **{f"sums_{name}": part.sum(axis=0) for name, part in parts.items()})


def total_sums(writer: StreamWriter, split: str, shards: int) -> LatentSums:
    """The sums over all shards of a split."""
    indices = [writer.index(split, number) for number in range(shards)]
    names = LatentSums.__dataclass_fields__
    found = [{name: index[f"sums_{name}"] for name in names} for index in indices if len(index["crc32"])]
    first, *others = [LatentSums(**{n: v if v.ndim else int(v) for n, v in values.items()}) for values in found]
    return sum(others, start=first)


def _pictures(
    dataset: Dataset, numbers: range, shapes: np.ndarray, pool: ThreadPoolExecutor, ahead: int
) -> Iterator[_Picture]:
    """Fitted pictures in order, decoded on threads, at most `ahead` of them in memory."""
    waiting: collections.deque[tuple[int, str, Future]] = collections.deque()
    for start in range(0, len(numbers), 64):
        part = numbers[start : start + 64]
        for number, record in zip(part, dataset.read_whole(part), strict=True):
            if record is not None:
                job = pool.submit(_fitted, dataset, number, record, *shapes[number].tolist())
                waiting.append((number, record.id, job))
            while len(waiting) > ahead:
                yield from _ready(*waiting.popleft())
    while waiting:
        yield from _ready(*waiting.popleft())


def _ready(number: int, id: str, job: Future) -> Iterator[_Picture]:
    image = job.result()
    if image is not None:
        yield _Picture(number, id, image)


def _fitted(dataset: Dataset, number: int, record: Record, height: int, width: int) -> np.ndarray | None:
    image = dataset.decode(number, record, height, width)
    return None if image is None else fit_image(image, height, width)


def _batches(pictures: Iterator[_Picture], batch_size: int) -> Iterator[list[_Picture]]:
    """Pictures of one shape together, as soon as there are enough; what is left at the end."""
    waiting: dict[tuple[int, ...], list[_Picture]] = collections.defaultdict(list)
    for picture in pictures:
        batch = waiting[picture.image.shape]
        batch.append(picture)
        if len(batch) == batch_size:
            yield waiting.pop(picture.image.shape)
    yield from waiting.values()


def _stored(dataset: Dataset, picture: _Picture, moments: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        stored = moments.astype(DTYPE)
    if not np.isfinite(stored).all():
        raise ValueError(
            f"{dataset.folder}: record {picture.id}: its moments do not fit {DTYPE.__name__} (largest "
            f"{np.abs(moments).max()}); is the autoencoder the one that config.space.autoencoder is meant to name?"
        )
    return stored

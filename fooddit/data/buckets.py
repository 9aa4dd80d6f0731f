"""Aspect-ratio buckets of a constant token count, and the order of training: both pure functions."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

PLAN_VERSION = 1


@dataclass(frozen=True)
class Bucket:
    """A picture shape in pixels."""

    height: int
    width: int


def bucket_table(image_size: int, grid: int, max_aspect: float) -> tuple[Bucket, ...]:
    """The shapes whose token count is at most that of the `image_size` square and as near to it as the grid allows.

    `grid` is the side of one token in pixels (patch size times the autoencoder's reduction), `max_aspect` the longest
    side over the shortest. Ordered from the widest to the tallest. 512 px on a grid of 16 with aspect up to 2 gives 19
    shapes of 999 to 1024 tokens: padded to 1024 they are one compiled program at a waste of 2.5 % at most.
    """
    if grid < 1:
        raise ValueError(f"grid {grid}: expected the side of a token in pixels, at least 1")
    if image_size < grid:
        raise ValueError(f"image_size must be at least grid, {grid}, found {image_size}")
    if image_size % grid:
        raise ValueError(f"image_size {image_size} is not a multiple of grid {grid}: no whole number of tokens a side")
    if max_aspect < 1:
        raise ValueError(f"max_aspect {max_aspect}: expected 1 (squares only) or more")
    side = image_size // grid
    shapes = {(side, side)}
    for short in range(1, side):
        long = side * side // short
        if long <= max_aspect * short:
            shapes |= {(short, long), (long, short)}
    ordered = sorted(shapes, key=lambda shape: shape[0] / shape[1])
    return tuple(Bucket(height * grid, width * grid) for height, width in ordered)


def table_hash(table: tuple[Bucket, ...]) -> str:
    """A short hash of a bucket table, for a fingerprint."""
    return hashlib.sha256(repr([(b.height, b.width) for b in table]).encode()).hexdigest()[:16]


class Plan:
    """Which records the n-th global batch holds: a pure function of (sizes, table, batch_size, seed) and n.

    Every record belongs to the bucket nearest to its aspect; a bucket with fewer records than one batch is merged into
    its neighbour, since its batches would hold the same pictures several times. A bucket is an endless stream: one
    permutation of its records after another, cut into batches without a gap. In e epochs a bucket of m records gives
    exactly floor(e * m / batch_size) batches. So no tail is ever dropped (what does not fill a batch opens the next
    epoch), each record is seen as often as any other (to one), and a dataset smaller than a batch still works. The
    batches of an epoch, of all buckets, are shuffled. An epoch's length therefore varies by at most one batch a bucket.
    """

    def __init__(self, sizes: np.ndarray, table: tuple[Bucket, ...], batch_size: int, seed: int):
        if batch_size < 1 or len(sizes) < 1:
            raise ValueError(
                f"a plan of {len(sizes)} records in batches of {batch_size}: expected at least one of each"
            )
        self.table, self.batch_size, self.seed = table, batch_size, seed
        assigned = _merge_small(_nearest_bucket(sizes, table), table, batch_size)
        self._buckets = np.unique(assigned)
        self._members = [np.nonzero(assigned == bucket)[0] for bucket in self._buckets]
        self._counts = np.array([len(members) for members in self._members], np.int64)
        self._permutation = functools.lru_cache(maxsize=2 * len(self._buckets) + 2)(self._permute)
        self._epoch_order = functools.lru_cache(maxsize=4)(self._order_epoch)

    def batch(self, position: int) -> tuple[Bucket, np.ndarray]:
        """The shape and the record numbers, int64 (batch_size,), of global batch `position`."""
        epoch = self.epoch(position)
        group, chunk = self._epoch_order(epoch)[position - self.epoch_start(epoch)]
        count = self._counts[group]
        stream = np.arange(chunk * self.batch_size, (chunk + 1) * self.batch_size)
        records = np.empty(self.batch_size, np.int64)
        for turn in range(int(stream[0] // count), int(stream[-1] // count) + 1):
            here = stream // count == turn
            records[here] = self._permutation(int(group), turn)[stream[here] % count]
        return self.table[self._buckets[group]], records

    def replacements(self, record: int, example: int) -> Iterator[int]:
        """Records of the same bucket to take instead of `record` for a numbered example, until one of them will do.

        Drawn, not the next ones: instead of a lost shard's records the first one after it would come again and again.
        After enough draws all of the bucket, once.
        """
        members = next(m for m in self._members if m[min(np.searchsorted(m, record), len(m) - 1)] == record)
        draws = _generator(self.seed, "replacements", record, example)
        yield from members[draws.integers(len(members), size=32)].tolist()
        yield from members.tolist()

    def epoch_start(self, epoch: int) -> int:
        """The position of the first batch of an epoch."""
        return int((epoch * self._counts // self.batch_size).sum())

    def epoch(self, position: int) -> int:
        """The epoch that a position lies in."""
        low, high = 0, 1
        while self.epoch_start(high) <= position:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.epoch_start(middle) <= position else (low, middle)
        return low

    def shapes(self) -> np.ndarray:
        """Height and width of each record's bucket, int64 (n, 2)."""
        found = np.zeros((self._counts.sum(), 2), np.int64)
        for bucket, members in zip(self._buckets, self._members, strict=True):
            found[members] = self.table[bucket].height, self.table[bucket].width
        return found

    def bucket_counts(self) -> dict[Bucket, int]:
        """Records of each bucket in use, after merging."""
        return {self.table[bucket]: int(count) for bucket, count in zip(self._buckets, self._counts, strict=True)}

    def _permute(self, group: int, turn: int) -> np.ndarray:
        return _generator(self.seed, "records", group, turn).permutation(self._members[group])

    def _order_epoch(self, epoch: int) -> np.ndarray:
        first = epoch * self._counts // self.batch_size
        last = (epoch + 1) * self._counts // self.batch_size
        chunks = [(group, chunk) for group in range(len(first)) for chunk in range(first[group], last[group])]
        return _generator(self.seed, "batches", epoch, 0).permutation(np.array(chunks, np.int64).reshape(-1, 2))


def _nearest_bucket(sizes: np.ndarray, table: tuple[Bucket, ...]) -> np.ndarray:
    """The bucket nearest in the logarithm of the aspect, int64 (n,)."""
    wanted = np.log(sizes[:, 1] / sizes[:, 0])
    aspects = np.log([bucket.height / bucket.width for bucket in table])
    edges = (aspects[1:] + aspects[:-1]) / 2
    return np.searchsorted(edges, wanted)


def _merge_small(assigned: np.ndarray, table: tuple[Bucket, ...], batch_size: int) -> np.ndarray:
    """Moves every bucket with fewer than batch_size records into the nearest used one, smallest first."""
    assigned = assigned.copy()
    aspects = np.log([bucket.height / bucket.width for bucket in table])
    while True:
        used, counts = np.unique(assigned, return_counts=True)
        if len(used) == 1 or counts.min() >= batch_size:
            return assigned
        smallest = used[np.argmin(counts)]
        others = used[used != smallest]
        assigned[assigned == smallest] = others[np.argmin(np.abs(aspects[others] - aspects[smallest]))]


def _generator(seed: int, purpose: str, first: int, second: int) -> np.random.Generator:
    """Philox, keyed by the seed and what it is for: a counter-based generator needs no history."""
    tag = int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:8], "little")
    return np.random.Generator(np.random.Philox(key=[seed, tag], counter=[0, 0, first, second]))

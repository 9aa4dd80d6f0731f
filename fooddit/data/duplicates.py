"""Near-duplicate pictures and the groups that must stay on one side of a split."""

from __future__ import annotations

import array
import itertools
from collections.abc import Sequence

import cv2
import numpy as np

# Unrelated photos of dishes differ in 9 bits at least (89,000 pairs looked at), copies of another size, quality or
# format in 3 at most. A hash alone collides in a large catalogue: a pair must also be alike in colour, as 8 x 8
# thumbnails brought to one brightness (copies 0.7 to 1.3 times as bright: 11 at most; unrelated photos: 18 at least).
HASH_DISTANCE = 5
COLOUR_DISTANCE = 16.0
_BRIGHTNESS = 112.0

_THUMBNAIL = 8
# Hashes compared at once: eight bytes for each.
_COMPARED = 1 << 20


def difference_hash(pixels: np.ndarray) -> int:
    """A 64-bit hash: whether each of 8 x 8 cells of the grey picture is brighter than its left neighbour.

    The "dHash" of N. Krawetz (hackerfactor.com, 2013); robust to size, compression and brightness.
    """
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    cells = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA).astype(np.int16)
    return int.from_bytes(np.packbits(cells[:, 1:] > cells[:, :-1]).tobytes(), "big")


def thumbnail(pixels: np.ndarray) -> np.ndarray:
    """uint8 (192,): the colours of 8 x 8 cells."""
    return cv2.resize(pixels, (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA).reshape(-1)


def near_duplicates(hashes: np.ndarray, thumbnails: np.ndarray) -> list[tuple[int, int]]:
    """Pairs (i, j), i < j, of pictures that look the same: uint64 (n,) hashes, uint8 (n, 192) thumbnails.

    Exact: 64 bits in HASH_DISTANCE + 1 bands leave one band equal in any pair that near, so only pictures that share a
    band are compared. Of pictures that are the same in both (a placeholder downloaded a thousand times), each is paired
    with the first only.
    """
    pairs = _identical(hashes, thumbnails)
    distinct = np.setdiff1d(np.arange(len(hashes)), [item for _, item in pairs])
    bands = HASH_DISTANCE + 1
    edges = np.linspace(0, 64, bands + 1).astype(int)
    near: set[tuple[int, int]] = set()
    for low, high in itertools.pairwise(edges):
        keys = (hashes[distinct] >> np.uint64(low)) & np.uint64((1 << int(high - low)) - 1)
        order = np.argsort(keys, kind="stable")
        starts = np.nonzero(np.diff(keys[order], prepend=keys[order[:1]] + 1))[0] if len(keys) else []
        for group in np.split(distinct[order], starts[1:]):
            near.update(_alike(group, hashes, thumbnails))
    return sorted([*pairs, *near])


def _identical(hashes: np.ndarray, thumbnails: np.ndarray) -> list[tuple[int, int]]:
    _, inverse, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    firsts: dict[tuple[int, bytes], int] = {}
    pairs = []
    for item in np.nonzero(counts[inverse] > 1)[0].tolist():
        first = firsts.setdefault((int(hashes[item]), thumbnails[item].tobytes()), item)
        if first != item:
            pairs.append((first, item))
    return pairs


def _alike(group: np.ndarray, hashes: np.ndarray, thumbnails: np.ndarray) -> list[tuple[int, int]]:
    found = []
    block = max(_COMPARED // len(group), 1)
    for start in range(0, len(group), block):
        rows = group[start : start + block]
        distance = np.bitwise_count(hashes[rows][:, None] ^ hashes[group][None])
        for row, column in zip(*np.nonzero(distance <= HASH_DISTANCE), strict=True):
            i, j = int(rows[row]), int(group[column])
            if (
                i < j
                and np.abs(_equally_bright(thumbnails[i]) - _equally_bright(thumbnails[j])).mean() <= COLOUR_DISTANCE
            ):
                found.append((i, j))
    return found


def _equally_bright(colours: np.ndarray) -> np.ndarray:
    # What is nearly black is left nearly so: its noise is no colour.
    return colours * (_BRIGHTNESS / max(colours.mean(), _BRIGHTNESS / 8))


def components(keys: Sequence[str] | np.ndarray, pairs: Sequence[tuple[int, int]]) -> np.ndarray:
    """Cluster numbers, int64 (n,): items with one key, or joined by a pair, directly or through others, are together.

    Clusters are numbered in the order of their first item.
    """
    parent = array.array("q", range(len(keys)))

    def root(item: int) -> int:
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    _, firsts, inverse = np.unique(np.asarray(keys), return_index=True, return_inverse=True)
    first = firsts[inverse]
    (again,) = np.nonzero(first != np.arange(len(keys)))
    for a, b in itertools.chain(zip(first[again].tolist(), again.tolist()), pairs):
        low, high = sorted((root(a), root(b)))
        parent[high] = low
    # A root is the lowest item of its cluster.
    roots = np.fromiter(map(root, range(len(keys))), np.int64, len(keys))
    return np.unique(roots, return_inverse=True)[1].astype(np.int64)

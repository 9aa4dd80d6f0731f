"""Real pictures of a dataset as a model's are compared with them: whole records, cut and resized as in training."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Int, UInt8

from fooddit.data.images import decode_image, fit_image
from fooddit.data.records import Dataset, Record

# Pictures that are in memory at once.
BLOCK = 64
_FAILED = -1


class RealPicture(NamedTuple):
    """A record by its number, and its picture: the middle of it, at the size that was asked for."""

    number: int
    record: Record
    image: np.ndarray


def choose(dataset: Dataset, count: int, seed: int = 0) -> Int[np.ndarray, " count"]:
    """Numbers of `count` records (all of them, if there are fewer) in an order of chance that `seed` fixes: those of a
    smaller count come first."""
    return np.random.default_rng(seed).permutation(len(dataset))[:count]


def real_pictures(dataset: Dataset, numbers: Iterable[int], shape: tuple[int, int]) -> Iterator[RealPicture]:
    """The whole ones of these records, at `shape` (height, width); the others are noted in the dataset's `damage`."""
    for block in in_blocks(numbers):
        for number, record in zip(block, dataset.read_whole(block), strict=True):
            if record is None:
                continue
            try:
                image = decode_image(record.image, min_height=shape[0], min_width=shape[1])
            except ValueError as error:
                dataset.discard(int(number), f"its picture cannot be decoded: {error}", record.id)
            else:
                yield RealPicture(int(number), record, fit_image(image, *shape))


def in_blocks(items: Iterable, size: int = BLOCK) -> Iterator[list]:
    """Items in lists of at most `size`."""
    items = iter(items)
    while block := list(itertools.islice(items, size)):
        yield block


def blocks_for_all(
    dataset: Dataset, numbers: Sequence[int], shape: tuple[int, int]
) -> Iterator[tuple[Int[np.ndarray, " n"], UInt8[np.ndarray, "n height width 3"]]]:
    """Numbers and pictures of the whole ones of these records, in blocks: read by the first process, given to all. On
    another one's disk a record may be damaged, and all must enter the same programs with the same pictures.

    RuntimeError on all processes, if the first one cannot read them.
    """
    read = (
        (np.array([real.number for real in block]), np.stack([real.image for real in block]))
        for block in in_blocks(real_pictures(dataset, numbers, shape))
    )
    return read if jax.process_count() == 1 else _from_first(read, shape)


def _from_first(read: Iterator[tuple[np.ndarray, np.ndarray]], shape: tuple[int, int]):
    from jax.experimental.multihost_utils import broadcast_one_to_all

    none = (np.zeros(0, np.int64), np.zeros((0, *shape, 3), np.uint8))
    while True:
        block, problem = none, None
        if jax.process_index() == 0:
            try:
                block = next(read, none)
            except Exception as error:  # Told to the others first, who would wait for ever.
                problem = error
        count = int(broadcast_one_to_all(np.array(_FAILED if problem else len(block[0]))))
        if count == _FAILED:
            raise RuntimeError("process 0 cannot read the real pictures to compare with") from problem
        if count == 0:
            return
        # Always of one size: another one would be another program.
        filled = [np.concatenate([a, np.zeros((BLOCK - len(a), *a.shape[1:]), a.dtype)]) for a in block]
        numbers, images = broadcast_one_to_all((filled[0].astype(np.int32), filled[1]))
        yield np.asarray(numbers)[:count].astype(np.int64), np.asarray(images)[:count]

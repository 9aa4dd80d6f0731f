"""Does a model draw, or remember? The distance from its pictures to the nearest training picture."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from fooddit.data.images import decode_image, fit_image
from fooddit.data.records import Dataset, Record

_SIDE = 32
_BLOCK = 256
# Training crops a photo at random along its longer side; these places are looked at.
_CROPS = (0.0, 0.25, 0.5, 0.75, 1.0)
_NEIGHBOURS = 10
# A copy, even a blurred one, is several times nearer to its original than to anything else.
_COPY_RATIO = 0.5


@dataclass(frozen=True)
class Nearest:
    """The training picture nearest to one picture.

    Attributes:
      index, id: of its record; crop: where along its longer side it was cut (0 to 1).
      distance: root mean square difference of RGB in [0, 1] at 32 x 32.
      ratio: distance over the mean distance to the 10 nearest records: near 1 says that it is as like to many others,
        near 0 that it is this one. Near-duplicates (`Dataset.twins`) count as one record.
    """

    index: int
    id: str
    crop: float
    distance: float
    ratio: float

    @property
    def copied(self) -> bool:
        """At most half as far as the ten nearest are on average: this very picture, more or less."""
        return self.ratio <= _COPY_RATIO


@dataclass(frozen=True)
class Memorisation:
    """Generated pictures beside the yard-stick: real ones that were not trained on.

    Attributes:
      generated_median, holdout_median: distance to the nearest training picture.
      holdout_5_percent: the distance that 5 % of the hold-out pictures stay below.
      nearer_share: of generated pictures, those below it; copies are, and so are smooth pictures that copy nothing.
      copied_share, holdout_copied_share: those that are `Nearest.copied`.
      generated_ratio, holdout_ratio: median of `Nearest.ratio`.
      n, holdout_n: pictures.
    """

    generated_median: float
    holdout_median: float
    holdout_5_percent: float
    nearer_share: float
    copied_share: float
    holdout_copied_share: float
    generated_ratio: float
    holdout_ratio: float
    n: int
    holdout_n: int

    def to_dict(self) -> dict:
        """As JSON."""
        return asdict(self)


def nearest_training(
    images: UInt8[np.ndarray, "n height width 3"], dataset: Dataset, looked_at: Callable[[int], None] | None = None
) -> list[Nearest]:
    """For each picture the nearest record of `dataset`, cut to the pictures' shape as in training.

    Pictures are compared as 32 x 32 RGB, by their root mean square difference, at five crops of a record of another
    shape; a mirrored copy is not found. The metric finds a copy, also a blurred or slightly changed one. It is not one
    of likeness: a shift of a few pixels costs as much as another dish, and a smooth picture is near to everything (it
    has no detail to be wrong in), so a small distance alone proves nothing. Look at `ratio`, at the same figures of
    hold-out pictures, and at the pictures themselves.

    Every record is decoded once; memory is that of 256 records, however many there are (float32). Records that are
    damaged or missing are left out. `looked_at` is told of so many records more, as they are compared.

    Raises:
      ValueError: a dataset without a whole record.
    """
    compared = 0
    wanted = np.stack([_thumbnail(image) for image in images])
    nearest, twins = np.full((len(images), _NEIGHBOURS), np.inf, np.float32), np.full((len(images), _NEIGHBOURS), -1)
    index, crop = np.zeros(len(images), np.int64), np.zeros(len(images))
    for block in _blocks(dataset, images.shape[1:3]):
        compared += len(block.numbers)
        if looked_at is not None:
            looked_at(len(block.numbers))
        found = _distances(wanted, block)
        by_record = found.min(axis=2)
        (closer,) = np.nonzero(by_record.min(axis=1) < nearest[:, 0])
        place = by_record[closer].argmin(axis=1)
        index[closer], crop[closer] = block.numbers[place], block.crops[found[closer, place].argmin(axis=1)]
        nearest, twins = _merged(nearest, twins, by_record, dataset.twins[block.numbers])
    if not compared:
        raise ValueError(f"{dataset.folder}: split {dataset.split!r} has no whole record; there is no nearest picture")
    records = dataset.read(index)
    # The matrix product lost the last digits of small distances: those to the nearest are taken again.
    exact = np.stack([_thumbnail(_fitted(r, images.shape[1:3], c)) for r, c in zip(records, crop)])
    nearest[:, 0] = np.sqrt(np.mean((wanted - exact) ** 2, axis=1))
    # Fewer than ten where there are no more.
    mean = np.ma.masked_invalid(nearest).mean(axis=1).filled(0.0)
    ratio = np.divide(nearest[:, 0], mean, out=np.zeros_like(mean), where=mean > 0)
    rows = zip(index, records, crop, nearest[:, 0], ratio)
    return [Nearest(int(i), record.id, float(c), float(d), float(r)) for i, record, c, d, r in rows]


def _merged(
    nearest: np.ndarray, twins: np.ndarray, distances: Float[np.ndarray, "n records"], groups: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The smallest of what is known, with the groups it is of, and of further records; one a group of near-duplicates:
    a picture that is there ten times would be its own yard-stick."""
    all_distances = np.concatenate([nearest, distances], axis=1)
    all_groups = np.concatenate([twins, np.broadcast_to(groups, distances.shape)], axis=1)
    order = np.lexsort((all_distances, all_groups), axis=1)
    sorted_groups = np.take_along_axis(all_groups, order, axis=1)
    again = np.zeros_like(order, bool)
    again[:, 1:] = (sorted_groups[:, 1:] == sorted_groups[:, :-1]) & (sorted_groups[:, 1:] >= 0)
    left = np.where(again, np.inf, np.take_along_axis(all_distances, order, axis=1))
    best = np.argsort(left, axis=1, kind="stable")[:, : nearest.shape[1]]
    return np.take_along_axis(left, best, axis=1), np.take_along_axis(sorted_groups, best, axis=1)


def holdout_images(dataset: Dataset, shape: tuple[int, int], count: int) -> UInt8[np.ndarray, "n height width 3"]:
    """The first `count` whole pictures of a dataset, their middle cut to `shape` (height, width).

    Raises:
      ValueError: a dataset without a whole record.
    """
    whole = itertools.chain.from_iterable(_decoded(dataset, numbers, shape) for numbers in _ranges(dataset))
    images = [fit_image(image, *shape) for _, image in itertools.islice(whole, count)]
    if not images:
        raise ValueError(f"{dataset.folder}: split {dataset.split!r} has no whole record to hold samples against")
    return np.stack(images)


def memorisation(generated: Sequence[Nearest], holdout: Sequence[Nearest]) -> Memorisation:
    """Summary of what `nearest_training` gave for generated and for hold-out pictures."""
    drawn, real = (np.array([found.distance for found in group]) for group in (generated, holdout))
    limit = float(np.quantile(real, 0.05))
    return Memorisation(
        generated_median=float(np.median(drawn)),
        holdout_median=float(np.median(real)),
        holdout_5_percent=limit,
        nearer_share=float(np.mean(drawn < limit)),
        copied_share=float(np.mean([found.copied for found in generated])),
        holdout_copied_share=float(np.mean([found.copied for found in holdout])),
        generated_ratio=float(np.median([found.ratio for found in generated])),
        holdout_ratio=float(np.median([found.ratio for found in holdout])),
        n=len(drawn),
        holdout_n=len(real),
    )


def nearest_images(
    nearest: Sequence[Nearest], dataset: Dataset, shape: tuple[int, int]
) -> UInt8[np.ndarray, "n height width 3"]:
    """The training pictures that were found, cut to `shape` as they were compared."""
    records = dataset.read([found.index for found in nearest])
    return np.stack([_fitted(record, shape, found.crop) for record, found in zip(records, nearest)])


def pairs(
    images: UInt8[np.ndarray, "n height width 3"], found: UInt8[np.ndarray, "n height width 3"], columns: int = 8
) -> UInt8[np.ndarray, "rows columns 3"]:
    """One picture of pairs, `columns` side by side: each picture above the training picture found for it."""
    height, width, gap = *images.shape[1:3], max(images.shape[1] // 16, 2)
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    page = np.full((rows * (2 * height + 2 * gap) + gap, columns * (width + gap) + gap, 3), 250, np.uint8)
    for i, pair in enumerate(zip(images, found)):
        top, left = gap + i // columns * 2 * (height + gap), gap + i % columns * (width + gap)
        # The two of a pair touch; a gap sets pairs apart.
        page[top : top + 2 * height, left : left + width] = np.concatenate(pair)
    return page


@dataclass(frozen=True)
class _Block:
    """Some records at their crops."""

    numbers: np.ndarray
    thumbnails: Float[np.ndarray, "records crops values"]
    crops: Float[np.ndarray, " crops"]


def _blocks(dataset: Dataset, shape: tuple[int, int]) -> Iterator[_Block]:
    height, width = shape
    for numbers in _ranges(dataset):
        same_shape = all(w * height == h * width for w, h in dataset.sizes[numbers.start : numbers.stop])
        crops = (0.5,) if same_shape else _CROPS
        whole, thumbnails = [], []
        for number, image in _decoded(dataset, numbers, shape):
            whole.append(number)
            thumbnails.append([_thumbnail(fit_image(image, *shape, crop=crop)) for crop in crops])
        if whole:
            yield _Block(np.array(whole), np.array(thumbnails, np.float32), np.array(crops, np.float32))


def _ranges(dataset: Dataset) -> Iterator[range]:
    for start in range(0, len(dataset), _BLOCK):
        yield range(start, min(start + _BLOCK, len(dataset)))


def _decoded(dataset: Dataset, numbers: range, shape: tuple[int, int]) -> Iterator[tuple[int, np.ndarray]]:
    """Number and picture of those records that are whole; the others are noted in the dataset's `damage`."""
    for number, record in zip(numbers, dataset.read_whole(numbers)):
        if record is None:
            continue
        try:
            image = decode_image(record.image, min_height=shape[0], min_width=shape[1])
        except ValueError as error:
            dataset.discard(number, f"its picture cannot be decoded: {error}", record.id)
        else:
            yield number, image


def _distances(wanted: np.ndarray, block: _Block) -> Float[np.ndarray, "n records crops"]:
    others = block.thumbnails.reshape(-1, wanted.shape[1])
    squares = (wanted**2).sum(axis=1)[:, None] + (others**2).sum(axis=1)[None] - 2 * wanted @ others.T
    mean = np.maximum(squares, 0) / wanted.shape[1]
    return np.sqrt(mean).reshape(len(wanted), *block.thumbnails.shape[:2])


def _fitted(record: Record, shape: tuple[int, int], crop: float) -> np.ndarray:
    image = decode_image(record.image, min_height=shape[0], min_width=shape[1])
    return fit_image(image, *shape, crop=crop)


def _thumbnail(image: np.ndarray) -> Float[np.ndarray, " values"]:
    """RGB around 0, so that the matrix product of `_distances` keeps more digits."""
    small = cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    return small.astype(np.float32).ravel() / 255 - 0.5

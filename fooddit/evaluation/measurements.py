"""What is measured picture by picture, once: features, fit to the prompt, nearest training picture."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from fooddit.data.records import Dataset
from fooddit.evaluation.alignment import align
from fooddit.evaluation.feature_store import Bars, FeatureStore
from fooddit.evaluation.features import ClipFeatures, Features
from fooddit.evaluation.nearest import Memorisation, Nearest, holdout_images, memorisation, nearest_training
from fooddit.evaluation.picture_folder import Drawn, image_blocks
from fooddit.evaluation.prompt_alignment import clip_alignment, cosines
from fooddit.evaluation.real_pictures import choose, in_blocks, real_pictures
from fooddit.evaluation.scene_reader import SceneReader, accuracy
from fooddit.evaluation.subjects import NO_CATEGORY, Subject, photos_of_the_same_dishes

# Pictures whose nearest training picture is looked for, at most; those of the hold-out that they are held against.
_NEAREST, _YARDSTICK = 1024, 256
# Real scenes that the scene reader's own error is measured on.
_ORACLE = 512


@dataclass(frozen=True)
class Material:
    """What is evaluated.

    Attributes:
      folder, pictures: the files, each with what it was asked for; shape: their height and width.
      subjects: the held-out record of each; None for a prompt that is nobody's caption.
    """

    folder: Path
    pictures: Sequence[Drawn]
    subjects: Sequence[Subject | None]
    shape: tuple[int, int]
    train_set: Dataset
    holdout_set: Dataset

    @property
    def counted(self) -> Int[np.ndarray, " n"]:
        """Numbers of the pictures that all but diversity is measured on."""
        return np.array([i for i, picture in enumerate(self.pictures) if not picture.repeat], np.int64)

    @property
    def prompts(self) -> Int[np.ndarray, " pictures"]:
        """A number for each picture's prompt: the same for the same text of the same record."""
        keys = [(p.record, p.prompt) if p.prompt is not None else i for i, p in enumerate(self.pictures)]
        numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
        return np.array([numbers[key] for key in keys])


@dataclass(frozen=True)
class RealFeatures:
    """Real pictures: their features, and the number of each's record, its dish's number and its category."""

    features: Float[np.ndarray, "n features"]
    numbers: Int[np.ndarray, " n"]
    dishes: Int[np.ndarray, " n"]
    categories: np.ndarray


@dataclass(frozen=True)
class ByNetwork:
    """One network's features of the pictures, of the held-out photos of their dishes, and of training pictures."""

    network: Features
    pictures: Float[np.ndarray, "pictures features"]
    photos: RealFeatures
    training: RealFeatures


@dataclass(frozen=True)
class Fit:
    """How well each picture fits its prompt (NaN where that is not known), what that is measured by ("clip" or
    "attributes"), and the figures of all pictures as JSON."""

    values: Float[np.ndarray, " pictures"]
    by: str
    summary: dict


@dataclass(frozen=True)
class Measurements:
    """All of it. `nearest`: for each picture, None where it was not looked for."""

    networks: Sequence[ByNetwork]
    fit: Fit | None
    nearest: Sequence[Nearest | None]
    memorisation: Memorisation | None


def gather(
    material: Material,
    networks: Sequence[Features],
    store: FeatureStore,
    bars: Bars,
    *,
    real_count: int,
    nearest: bool = True,
) -> Measurements:
    """Measures every picture.

    Args:
      real_count: training pictures to compare with, at most.
      nearest: look through the whole training split for each picture's nearest.

    Raises:
      ValueError: a picture that cannot be decoded.
    """
    same = photos_of_the_same_dishes([material.subjects[i] for i in material.counted], material.holdout_set)
    chosen = choose(material.train_set, real_count)
    found = []
    for network in networks:
        with bars(f"features, {network.name}", len(material.pictures) + len(same) + len(chosen)) as bar:
            pictures = store(network, image_blocks(material.folder, material.pictures), bar)
            photos, training = (
                _real(dataset, numbers, material.shape, network, store, bar)
                for dataset, numbers in ((material.holdout_set, same), (material.train_set, chosen))
            )
        found.append(ByNetwork(network, pictures, photos, training))
    clip = next((by for by in found if isinstance(by.network, ClipFeatures)), None)
    fit = _attributes(material, bars) if clip is None else _clip(material, clip)
    neighbours, memory = _nearest(material, bars) if nearest else ([None] * len(material.pictures), None)
    return Measurements(found, fit, neighbours, memory)


def _real(
    dataset: Dataset, numbers: Iterable[int], shape: tuple[int, int], network: Features, store: FeatureStore, bar
) -> RealFeatures:
    read: list[tuple[int, int, str]] = []

    def blocks():
        for block in in_blocks(real_pictures(dataset, numbers, shape)):
            read.extend((r.number, int(dataset.dishes[r.number]), r.record.category or NO_CATEGORY) for r in block)
            yield np.stack([real.image for real in block])

    features = store(network, blocks(), bar)
    whole, dishes, categories = zip(*read) if read else ((), (), ())
    return RealFeatures(features, np.array(whole, np.int64), np.array(dishes, np.int64), np.array(categories, object))


def _clip(material: Material, by: ByNetwork) -> Fit | None:
    """Cosines with the prompts, and of the dishes' own photos with the same ones."""
    asked = [i for i, picture in enumerate(material.pictures) if picture.prompt]
    counted = [i for i in asked if not material.pictures[i].repeat]
    if len(counted) < 2:
        return None
    texts = by.network.text([material.pictures[i].prompt for i in asked])
    values = np.full(len(material.pictures), np.nan)
    values[asked] = cosines(by.pictures[asked], texts)
    place = {int(number): i for i, number in enumerate(by.photos.numbers)}
    rows = {picture: row for row, picture in enumerate(asked)}
    own = [
        (place[subject.number], rows[i])
        for i in counted
        if (subject := material.subjects[i]) is not None and subject.number in place
    ]
    photos, of_prompt = (list(part) for part in zip(*own)) if own else ([], [])
    summary = clip_alignment(
        by.pictures[counted],
        texts[[rows[i] for i in counted]],
        material.prompts[counted],
        by.photos.features[photos],
        texts[of_prompt],
    )
    return Fit(values, "clip", {"network": by.network.description} | summary.to_dict())


def _attributes(material: Material, bars: Bars) -> Fit | None:
    """Of plain scenes the share of attributes that are as asked, read from the pixels; None of anything else."""
    wanted = [None if subject is None else subject.indices for subject in material.subjects]
    if not wanted or any(indices is None for indices in wanted):
        return None
    reader, read = SceneReader(), []
    with bars("attributes", len(wanted)) as bar:
        for images in image_blocks(material.folder, material.pictures):
            read.append(reader.read(images))
            bar.update(len(images))
    read, wanted, counted = np.concatenate(read), np.array(wanted), material.counted
    summary = align(read[counted], wanted[counted], oracle_all_exact=accuracy(reader, _ORACLE)["all_exact"])
    return Fit((read == wanted).mean(axis=1), "attributes", summary.to_dict())


def _nearest(material: Material, bars: Bars) -> tuple[list[Nearest | None], Memorisation]:
    looked_for = material.counted[:_NEAREST]
    pictures = [material.pictures[i] for i in looked_for]
    images = np.concatenate(list(image_blocks(material.folder, pictures)))
    photos = holdout_images(material.holdout_set, material.shape, _YARDSTICK)
    with bars("nearest training pictures", len(material.train_set)) as bar:
        found = nearest_training(np.concatenate([images, photos]), material.train_set, bar.update)
    neighbours: list[Nearest | None] = [None] * len(material.pictures)
    for i, neighbour in zip(looked_for, found):
        neighbours[i] = neighbour
    return neighbours, memorisation(found[: len(images)], found[len(images) :])

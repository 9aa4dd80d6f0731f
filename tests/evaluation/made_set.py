"""A small dataset of scenes with categories, pictures of a made-up model of it, and a small E-CLIP."""

from pathlib import Path

import jax
import numpy as np
from PIL import Image

from fooddit.data.images import encode_png
from fooddit.data.records import Record, open_dataset
from fooddit.data.scenes import captions, render_image, sample_spec
from fooddit.data.tokenizer import train_tokenizer
from fooddit.evaluation.measurements import Material
from fooddit.evaluation.picture_folder import Drawn, common_shape, plan, read_folder, write_metadata
from fooddit.evaluation.subjects import find_subjects
from fooddit.models.eclip import Eclip
from fooddit.models.eclip_config import EclipConfig, ImageTowerConfig, TextTowerConfig
from fooddit.models.eclip_folder import save_eclip
from fooddit.models.module import define
from tests.data.made import dataset

SIDE, TRAIN, HOLDOUT = 64, 40, 24


def scene_record(index: int, split: str) -> Record:
    """A rendered scene; two of three are "common", the others "rare"."""
    spec = sample_spec(3, index, split)
    image = encode_png(render_image(spec, SIDE))
    attributes = {name: getattr(spec, name) for name in spec.__dataclass_fields__}
    category = "rare" if index % 3 == 0 else "common"
    texts = tuple(captions(spec))
    return Record(f"{split}-{index}", f"{split}-{index}", index, image, SIDE, SIDE, texts, category, attributes)


def scene_dataset(folder: Path) -> Path:
    """TRAIN and HOLDOUT records, each a dish of its own."""
    dataset(
        folder, *([scene_record(i, split) for i in range(n)] for split, n in (("train", TRAIN), ("holdout", HOLDOUT)))
    )
    return folder


def draw(folder: Path, records: Path, num: int, change=lambda image, picture: image) -> list[Drawn]:
    """What a perfect model would draw of the plan for `num` pictures: the scene itself, `change`d."""
    folder.mkdir(parents=True)
    holdout = open_dataset(records, "holdout")
    images = {f"holdout-{i}": render_image(sample_spec(3, i, "holdout"), SIDE) for i in range(HOLDOUT)}
    wanted = plan(holdout, num, seed=5, together=8)
    for picture in wanted:
        Image.fromarray(change(images[picture.record], picture)).save(folder / picture.name)
    write_metadata(folder, wanted)
    return wanted


def material(folder: Path, records: Path) -> Material:
    """Of a folder of pictures and a dataset."""
    pictures, holdout = read_folder(folder), open_dataset(records, "holdout")
    subjects, shape = find_subjects(pictures, holdout), common_shape(folder, pictures)
    return Material(folder, pictures, subjects, shape, open_dataset(records, "train"), holdout)


def small_eclip(folder: Path) -> Path:
    """A folder with an E-CLIP of random weights."""
    config = EclipConfig(
        ImageTowerConfig(width=32, depth=1, head_dim=8, patch=8, image_size=32),
        TextTowerConfig(width=24, depth=1, head_dim=8, vocabulary=300, length=16),
        embed=12,
    )
    params = define(lambda rngs: Eclip(config, rngs=rngs)).init(jax.random.key(3))
    save_eclip(folder, config, params, train_tokenizer(["a soup", "两只饺子"], 300))
    return folder


class Bar:
    """Counts what a bar is told."""

    told: list[tuple[str, int, int]] = []

    def __init__(self, label: str, total: int):
        self.label, self.total, self.done = label, total, 0

    def update(self, n: int) -> None:
        self.done += n

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *_) -> None:
        Bar.told.append((self.label, self.total, self.done))


def noise(seed: int, count: int = 8) -> np.ndarray:
    """Pictures of nothing."""
    return np.random.default_rng(seed).integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)

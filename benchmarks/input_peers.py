"""The peers of input_pipeline.py: WebDataset and TFDS, each giving endless uint8 batches (64, 256, 256, 3)."""

import io
import random
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
import torch
from PIL import Image

from fooddit.data.images import decode_image, fit_image

SIZE, BATCH = 256, 64

cv2.setNumThreads(1)
torch.set_num_threads(1)
# Pillow's arrays are read-only; a batch is a copy of them.
warnings.filterwarnings("ignore", message="The given NumPy array is not writable")


# What a peer does to one picture: encoded bytes to uint8 (256, 256, 3). Each cuts first and resizes the square only.


def square(height: int, width: int) -> tuple[int, int, int]:
    """Top, left and side of a random square as large as fits."""
    side = min(height, width)
    return random.randint(0, height - side), random.randint(0, width - side), side


def with_pillow(data: bytes, draft: bool = False) -> np.ndarray:
    image = Image.open(io.BytesIO(data))
    if draft:
        image.draft("RGB", (2 * SIZE, 2 * SIZE))
    top, left, side = square(image.height, image.width)
    box = (left, top, left + side, top + side)
    image = image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR, box=box)
    return np.asarray(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if random.random() < 0.5 else image)


def with_simplejpeg(data: bytes) -> np.ndarray:
    return with_opencv(simplejpeg.decode_jpeg(data, "RGB"))


def with_opencv(image: np.ndarray) -> np.ndarray:
    top, left, side = square(*image.shape[:2])
    cut = cv2.resize(image[top : top + side, left : left + side], (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    return cv2.flip(cut, 1) if random.random() < 0.5 else cut


def with_torch(data: bytes) -> np.ndarray:
    """Resized as torchvision's transforms.v2 does: torch's own antialiasing kernel for uint8, channels last."""
    image = simplejpeg.decode_jpeg(data, "RGB")
    top, left, side = square(*image.shape[:2])
    cut = torch.from_numpy(image[top : top + side, left : left + side]).permute(2, 0, 1)[None]
    cut = torch.nn.functional.interpolate(cut, (SIZE, SIZE), mode="bilinear", antialias=True)
    cut = cut[0].permute(1, 2, 0).numpy()
    return cv2.flip(cut, 1) if random.random() < 0.5 else cut


def with_fooddit(data: bytes) -> np.ndarray:
    image = fit_image(decode_image(data, min_height=SIZE, min_width=SIZE), SIZE, SIZE, crop=random.random())
    return cv2.flip(image, 1) if random.random() < 0.5 else image


# WebDataset.


def write_tars(folder: Path, stored: list[bytes], shards: int = 8) -> list[str]:
    import webdataset as wds

    paths = [str(folder / f"photos-{shard}.tar") for shard in range(shards)]
    for shard, path in enumerate(paths):
        with wds.TarWriter(path) as writer:
            for i in range(shard, len(stored), shards):
                writer.write({"__key__": f"{i:06d}", "jpg": stored[i]})
    return paths


def webdataset(paths: list[str], picture: Callable[[bytes], np.ndarray], workers: int) -> Iterator[torch.Tensor]:
    import webdataset as wds

    dataset = wds.WebDataset(paths, shardshuffle=len(paths), empty_check=False).repeat().shuffle(1000)
    dataset = dataset.to_tuple("jpg").map(lambda sample: picture(sample[0])).batched(BATCH, collation_fn=collate)
    return loaded(torch.utils.data.DataLoader(dataset, batch_size=None, **loading(workers)))


def collate(pictures: list[np.ndarray]) -> torch.Tensor:
    """In a worker torch's own function writes straight into the memory that the main process sees."""
    return torch.utils.data.default_collate([torch.from_numpy(np.ascontiguousarray(picture)) for picture in pictures])


def loading(workers: int) -> dict:
    # By fork, as is torch's custom on Linux: in a process that was spawned the default is to spawn.
    return {"num_workers": workers, "prefetch_factor": 4, "multiprocessing_context": "fork"} if workers else {}


def loaded(loader) -> Iterator[torch.Tensor]:
    # An epoch's end would start the workers anew; WebDataset repeats inside of them, TFDS below does here.
    while True:
        yield from loader


# TFDS, without TensorFlow.


def write_tfds(folder: Path, stored: list[bytes]) -> Path:
    import tensorflow_datasets as tfds

    class Photos(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        pkg_dir_path = folder

        def _info(self):
            image = tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg")
            return self.dataset_info_from_configs(features=tfds.features.FeaturesDict({"image": image}))

        def _split_generators(self, manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for i, data in enumerate(stored):
                yield i, {"image": io.BytesIO(data)}

    Photos(data_dir=folder / "tfds", file_format="array_record").download_and_prepare()
    return folder / "tfds"


class Pictures:
    """A TFDS data source (its own decoder: OpenCV) with the cut, the resize and the flip; a batch is read at once."""

    def __init__(self, folder: Path):
        import tensorflow_datasets as tfds

        self._source = tfds.data_source("photos", data_dir=folder, split="train")

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> np.ndarray:
        return with_opencv(self._source[index]["image"])

    def __getitems__(self, indices: list[int]) -> list[np.ndarray]:
        return [with_opencv(example["image"]) for example in self._source.__getitems__(indices)]


def tfds_loader(folder: Path, workers: int) -> Iterator[torch.Tensor]:
    options = {**loading(workers), "persistent_workers": workers > 0, "drop_last": True}
    return loaded(torch.utils.data.DataLoader(Pictures(folder), BATCH, shuffle=True, collate_fn=collate, **options))


def tfds_grain(folder: Path, threads: int) -> Iterator[np.ndarray]:
    import grain

    # Batched before the threads read, as fooddit does: reading ahead by single pictures was slower.
    pictures = grain.MapDataset.source(Pictures(folder)).shuffle(seed=0).repeat().batch(BATCH)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(4, threads))
    return iter(pictures.to_iter_dataset(options))

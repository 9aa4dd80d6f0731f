"""Pictures alone, for tasks that need no captions: endless scenes, or a dataset of records."""

from dataclasses import dataclass, field
from pathlib import Path

import jax
import numpy as np

from fooddit.config import OPERATIONAL
from fooddit.data.pipeline import Batches, DataConfig
from fooddit.data.records import open_dataset
from fooddit.data.scene_stream import SceneBatches, SceneStreamConfig
from fooddit.data.scenes import render_image, sample_spec
from fooddit.evaluation.real_pictures import blocks_for_all
from fooddit.training.task import BatchIterator

SCENES = "scenes"


@dataclass(frozen=True)
class PicturesConfig:
    """Attributes:
    source: "scenes" (endless fresh renders), or a folder that `fooddit prepare` wrote.
    batch_size: global.
    image_size: side of the squares in pixels; of a photo a random one along its longer side.
    flip: mirror half of the photos.
    threads, prefetch: renderers or decoders, and batches kept ready.
    max_damaged, cache: as of config.data of a text-to-image run.
    """

    source: str = field(default=SCENES, metadata=OPERATIONAL)
    batch_size: int = 64
    image_size: int = 64
    flip: bool = False
    threads: int = field(default=2, metadata=OPERATIONAL)
    prefetch: int = field(default=4, metadata=OPERATIONAL)
    max_damaged: int = field(default=16, metadata=OPERATIONAL)
    cache: str = field(default="", metadata=OPERATIONAL)

    def __post_init__(self):
        if not self.source:
            raise ValueError(f"data.source is empty; give {SCENES}, or a folder that `fooddit prepare` wrote")
        for name in ("batch_size", "image_size", "threads", "prefetch"):
            if getattr(self, name) < 1:
                raise ValueError(f"data.{name} must be at least 1, found {getattr(self, name)}")


class Pictures:
    """Batches {"image": uint8 (b, s, s, 3), "index": int32 (b,), "step": int32 (b,)} and held-out pictures."""

    def __init__(self, config: PicturesConfig, seed: int):
        self.config, self.seed = config, seed

    @property
    def batch_shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        count, size = self.config.batch_size, self.config.image_size
        each = jax.ShapeDtypeStruct((count,), np.int32)
        return {"image": jax.ShapeDtypeStruct((count, size, size, 3), np.uint8), "index": each, "step": each}

    def batches(self, position: int, rows: np.ndarray | None) -> "StepBatches":
        config = self.config
        shared = {name: getattr(config, name) for name in ("batch_size", "image_size", "threads", "prefetch")}
        more = {name: getattr(config, name) for name in ("source", "flip", "max_damaged", "cache")}
        if config.source == SCENES:
            return StepBatches(SceneBatches(SceneStreamConfig(**shared), seed=self.seed, position=position, rows=rows))
        data = DataConfig(**shared, **more, grid=config.image_size)
        return StepBatches(
            Batches(self._dataset("train"), data, seed=self.seed, tokenizers={}, start=position, rows=rows)
        )

    def first(self, split: str, count: int) -> np.ndarray:
        """uint8 (n, s, s, 3): a split's first pictures, at most `count`; middle squares of photos. All processes get
        those that the first one reads."""
        size = self.config.image_size
        if self.config.source == SCENES:
            return np.stack([render_image(sample_spec(1, i, split), size) for i in range(count)])
        dataset = self._dataset(split)
        blocks = blocks_for_all(dataset, range(min(count, len(dataset))), (size, size))
        return np.concatenate([np.zeros((0, size, size, 3), np.uint8), *(images for _, images in blocks)])

    def _dataset(self, split: str):
        return open_dataset(Path(self.config.source), split, cache=self.config.cache)


class StepBatches:
    """Another iterator's pictures with the step that each batch is drawn for: what starts later knows when it does.

    A run draws one batch a step from its first on, so that a batch's number is its step.
    """

    def __init__(self, batches: BatchIterator):
        self._batches = batches

    def __next__(self) -> dict[str, np.ndarray]:
        batch = next(self._batches)
        step = np.full(len(batch["index"]), self._batches.position - 1, np.int32)
        return {"image": batch["image"], "index": batch["index"], "step": step}

    @property
    def position(self) -> int:
        return self._batches.position

    @property
    def damaged(self) -> int:
        return self._batches.damaged

    @property
    def fingerprint(self) -> dict:
        return self._batches.fingerprint

    def close(self) -> None:
        self._batches.close()

"""Endless fresh renders of dish scenes, for models that must know every picture the renderer can make."""

from collections.abc import Iterator
from dataclasses import dataclass

import grain
import numpy as np

from fooddit.data.scenes import render_image, sample_spec


@dataclass(frozen=True)
class SceneStreamConfig:
    """batch_size: global; image_size: side in pixels; threads: renderers; prefetch: batches kept ready."""

    batch_size: int = 64
    image_size: int = 64
    threads: int = 2
    prefetch: int = 4

    def __post_init__(self):
        for name in ("batch_size", "image_size", "threads", "prefetch"):
            if getattr(self, name) < 1:
                raise ValueError(f"data.{name} must be at least 1, found {getattr(self, name)}")


class SceneBatches(Iterator[dict[str, np.ndarray]]):
    """Batches {"image": uint8 (b, h, w, 3), "attributes": int32 (b, 8), "index": int32 (b,)}; no scene comes twice.

    The state is `position`, the number of global batches drawn; shard i of n is the i-th contiguous slice of each.
    """

    def __init__(self, config: SceneStreamConfig, *, seed: int, position: int = 0, shard: tuple[int, int] = (0, 1)):
        index, count = shard
        if config.batch_size % count:
            raise ValueError(f"data.batch_size is {config.batch_size}: expected a multiple of the {count} processes")
        share = config.batch_size // count
        self.position = position
        self.fingerprint = {
            "dataset": "scenes",
            "seed": seed,
            "batch_size": config.batch_size,
            "size": config.image_size,
        }

        def make(position: int) -> dict[str, np.ndarray]:
            first = position * config.batch_size + index * share
            specs = [sample_spec(seed, i) for i in range(first, first + share)]
            return {
                "image": np.stack([render_image(spec, config.image_size) for spec in specs]),
                "attributes": np.array([spec.indices for spec in specs], np.int32),
                "index": (np.arange(first, first + share) % 2**31).astype(np.int32),
            }

        options = grain.ReadOptions(num_threads=config.threads, prefetch_buffer_size=config.prefetch)
        self._batches = iter(grain.MapDataset.range(position, 1 << 60).map(make).to_iter_dataset(read_options=options))

    def __next__(self) -> dict[str, np.ndarray]:
        batch = next(self._batches)
        self.position += 1
        return batch

    def close(self) -> None:
        """Ends the renderers' threads."""
        self._batches.close()

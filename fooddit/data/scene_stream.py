"""Endless fresh renders of dish scenes, for models that must know every picture the renderer can make."""

from dataclasses import dataclass, field

import jax
import numpy as np

from fooddit.data.positions import PositionBatches
from fooddit.data.scenes import ATTRIBUTES, render_image, sample_spec


@dataclass(frozen=True)
class SceneStreamConfig:
    """batch_size: global; image_size: side in pixels; threads: renderers; prefetch: batches kept ready."""

    batch_size: int = 64
    image_size: int = 64
    threads: int = field(default=2, metadata={"operational": True})
    prefetch: int = field(default=4, metadata={"operational": True})

    def __post_init__(self):
        for name in ("batch_size", "image_size", "threads", "prefetch"):
            if getattr(self, name) < 1:
                raise ValueError(f"data.{name} must be at least 1, found {getattr(self, name)}")


def scene_batch_shapes(config: SceneStreamConfig) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of the global batch that `SceneBatches` gives."""
    count, size, shape = config.batch_size, config.image_size, jax.ShapeDtypeStruct
    return {
        "image": shape((count, size, size, 3), np.uint8),
        "attributes": shape((count, len(ATTRIBUTES)), np.int32),
        "index": shape((count,), np.int32),
    }


class SceneBatches(PositionBatches):
    """Batches {"image": uint8 (b, h, w, 3), "attributes": int32 (b, 8), "index": int32 (b,)}; no scene comes twice.

    The state is `position`, the number of global batches drawn; of each the `rows` that a host wants, all if None.
    """

    def __init__(self, config: SceneStreamConfig, *, seed: int, position: int = 0, rows: np.ndarray | None = None):
        rows = np.arange(config.batch_size) if rows is None else rows

        def make(position: int) -> dict[str, np.ndarray]:
            numbers = position * config.batch_size + rows
            specs = [sample_spec(seed, i) for i in numbers.tolist()]
            return {
                "image": np.stack([render_image(spec, config.image_size) for spec in specs]),
                "attributes": np.array([spec.indices for spec in specs], np.int32),
                "index": (numbers % 2**31).astype(np.int32),
            }

        super().__init__(
            make,
            start=position,
            fingerprint={
                "dataset": "scenes",
                "seed": seed,
                "batch_size": config.batch_size,
                "size": config.image_size,
            },
            threads=config.threads,
            prefetch=config.prefetch,
        )

"""Endless fresh renders of styled scenes, each with a style of its own."""

import jax
import numpy as np

from fooddit.data.positions import PositionBatches
from fooddit.data.scene_stream import SceneStreamConfig
from fooddit.data.scenes import NAMED, render_styled_image, sample_styled


def style_batch_shapes(config: SceneStreamConfig) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of the global batch that `StyleBatches` gives."""
    count, size, shape = config.batch_size, config.image_size, jax.ShapeDtypeStruct
    return {
        "image": shape((count, size, size, 3), np.uint8),
        "attributes": shape((count, len(NAMED)), np.int32),
        "texture": shape((count,), np.int32),
        "hue": shape((count,), np.float32),
        "index": shape((count,), np.int32),
    }


class StyleBatches(PositionBatches):
    """Batches {"image": uint8 (b, h, w, 3), "attributes": int32 (b, 6) of NAMED, "texture": int32 (b,), "hue": float32
    (b,) in degrees, "index": int32 (b,)}; no scene comes twice.

    The state is `position`, the number of global batches drawn; of each the `rows` that a host wants, all if None.
    """

    def __init__(self, config: SceneStreamConfig, *, seed: int, position: int = 0, rows: np.ndarray | None = None):
        rows = np.arange(config.batch_size) if rows is None else rows

        def make(position: int) -> dict[str, np.ndarray]:
            numbers = position * config.batch_size + rows
            specs = [sample_styled(seed, i, pictures=1) for i in numbers.tolist()]
            return {
                "image": np.stack([render_styled_image(spec, config.image_size) for spec in specs]),
                "attributes": np.array([spec.indices for spec in specs], np.int32),
                "texture": np.array([spec.texture_index for spec in specs], np.int32),
                "hue": np.array([spec.hue for spec in specs], np.float32),
                "index": (numbers % 2**31).astype(np.int32),
            }

        size = config.image_size
        super().__init__(
            make,
            start=position,
            fingerprint={"dataset": "styles", "seed": seed, "batch_size": config.batch_size, "size": size},
            threads=config.threads,
            prefetch=config.prefetch,
        )

"""A picture as the rules look at it: its own pixels, and a small copy of one size on which thresholds mean the same."""

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from jaxtyping import Float, UInt8

# Of the small copy's longer side; a smaller picture is not enlarged.
SIDE = 512


@dataclass(frozen=True)
class View:
    """`pixels`: uint8 (height, width, 3) RGB, as decoded and turned upright."""

    pixels: UInt8[np.ndarray, "height width 3"]

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.pixels.shape[:2]

    @cached_property
    def small(self) -> UInt8[np.ndarray, "h w 3"]:
        """At most SIDE pixels on its longer side, averaged over areas."""
        height, width = self.shape
        scale = SIDE / max(height, width)
        if scale >= 1:
            return self.pixels
        size = max(round(width * scale), 1), max(round(height * scale), 1)
        return cv2.resize(self.pixels, size, interpolation=cv2.INTER_AREA)

    @cached_property
    def grey(self) -> Float[np.ndarray, "h w"]:
        """Luma of the small copy (ITU-R BT.601), from 0 to 1."""
        return cv2.cvtColor(self.small, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255

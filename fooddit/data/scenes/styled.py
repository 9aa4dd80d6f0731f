"""Pictures of styled scenes: the drawings of `rendering` with a glaze of any hue on a table of any texture."""

import colorsys
from functools import partial

import numpy as np

from fooddit.data.scenes.rendering import Look, Scene, draw, draw_image
from fooddit.data.scenes.styles import StyledSpec
from fooddit.data.scenes.surroundings import Glaze, shine_on
from fooddit.data.scenes.textures import tabletop

# (saturation, value) of a glaze's rim and well. No light brightens a colour beyond what a pixel holds: the bluest one
# takes a value of .82 to .98.
_RIM, _WELL = (0.72, 0.78), (0.46, 0.82)


def render_styled_image(spec: StyledSpec, size: int = 64) -> np.ndarray:
    """The picture alone, uint8 (size, size, 3) RGB; the same pixels as render_styled(spec, size).image."""
    return draw_image(spec, _look(spec), size)


def render_styled(spec: StyledSpec, size: int = 64) -> Scene:
    """The picture and its maps, all (size, size); a label is that of the pixel's centre."""
    return draw(spec, _look(spec), size)


def _look(spec: StyledSpec) -> Look:
    return Look(_glaze(spec.hue), partial(tabletop, spec.texture))


def _glaze(hue: float) -> Glaze:
    rim, well = (
        tuple(255 * c for c in colorsys.hsv_to_rgb(hue / 360, saturation, value)) for saturation, value in (_RIM, _WELL)
    )
    return Glaze(rim, well, shine_on(rim))

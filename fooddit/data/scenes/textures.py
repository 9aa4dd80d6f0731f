"""Sixteen table textures that differ in geometry: four materials, four patterns of each, so that no colour tells one.

Each is a seamless square of TILE design units, repeated over the table from any point on.
"""

from dataclasses import replace
from functools import lru_cache

import cv2
import numpy as np

from fooddit.data.scenes.vector import UNITS, Painter, Sketch, box, ellipse, rotate, rounded

TILE = 32
# Of each material: the ground, and tones from light to dark.
_OAK = ((116, 76, 46), ((208, 162, 112), (190, 138, 88), (172, 120, 74)))
_STONE = ((206, 208, 210), ((240, 240, 238), (168, 174, 182), (104, 112, 124)))
_INDIGO = ((44, 60, 104), ((226, 232, 240), (124, 146, 192), (72, 92, 146)))
_CLAY = ((246, 234, 214), ((232, 184, 150), (208, 116, 82), (158, 78, 56)))


def tabletop(texture: str, canvas_size: int, shift: tuple[float, float]) -> np.ndarray:
    """A table of one of TEXTURES, uint8 (n, n, 3); `shift` in [-1, 1) twice moves it by up to a whole tile."""
    tile = _tile(texture, canvas_size)
    rest = canvas_size - tile.shape[0]
    left, top = (int((share + 1) / 2 * (rest + 1)) for share in shift)
    return cv2.copyMakeBorder(tile, top, rest - top, left, rest - left, cv2.BORDER_WRAP)


@lru_cache(maxsize=64)
def _tile(texture: str, canvas_size: int) -> np.ndarray:
    side = round(canvas_size * TILE / UNITS)
    sketch = Sketch()
    ground = _DRAWN[texture](sketch)
    # OpenCV fills polygons askew where the canvas cuts them: the tile is the middle of a larger one.
    margin = side // 4
    canvas = np.full((side + 2 * margin,) * 2 + (3,), ground, np.uint8)
    painter, drawing, start = Painter(canvas, side / TILE), sketch.drawing(), margin * TILE / side
    # What crosses an edge comes in at the opposite one; what is lower lies in front.
    for row in (-1, 0, 1):
        for layer in drawing.layers:
            for column in (-1, 0, 1):
                part = replace(drawing, layers=(layer,))
                painter.draw(part, start + column * TILE, start + row * TILE)
    return canvas[margin : margin + side, margin : margin + side].copy()


def _planks(sketch):
    ground, tones = _OAK
    for row, (tone, joint) in enumerate(zip((0, 2, 1, 2), (5, 21, 13, 29))):
        y = 8 * row
        sketch.shape(box(joint + 0.5, y + 0.5, TILE - 1, 7), tones[tone])
        for x, length, height in ((3, 9, 2.6), (17, 11, 5.0)):
            grain = np.linspace((joint + x, y + height), (joint + x + length, y + height), 3)
            sketch.stroke(grain, 0.6, tuple(0.85 * c for c in tones[tone]))
    return ground


def _diagonal(sketch):
    ground, tones = _OAK
    for board in range(4):
        x = 8 * board
        strip = np.array([(x + 0.7, 0), (x + 7.3, 0), (x + 7.3 + TILE, TILE), (x + 0.7 + TILE, TILE)])
        sketch.shape(strip, tones[(0, 2, 1, 2)[board]])
    return ground


def _herringbone(sketch):
    ground, tones = _OAK
    for row in range(8):
        for column in range(8):
            x, y = 4 * column, 4 * row
            if (column - row) % 4 == 0:
                sketch.shape(box(x + 0.4, y + 0.4, 7.2, 3.2), tones[0])
            elif (column - row) % 4 == 3:
                sketch.shape(box(x + 0.4, y + 0.4, 3.2, 7.2), tones[2])
    return ground


def _wicker(sketch):
    ground, tones = _OAK
    for row in range(6):
        for column in range(6):
            centre = TILE / 6 * np.array([column + 0.5, row + 0.5])
            across = (row + column) % 2 == 0
            half = (2.9, 1.75) if across else (1.75, 2.9)
            sketch.shape(rounded(*half, 1.2) + centre, tones[0 if across else 2])
            shine = rounded(half[0] - 1.1, half[1] - 1.1, 0.4) + centre
            sketch.shape(shine, tones[1])
    return ground


def _terrazzo(sketch):
    ground, (light, mid, dark) = _STONE
    rng, tones = np.random.RandomState(5), (dark, light, mid, (190, 138, 104))
    for i in range(25):
        centre = 6.4 * (np.array(divmod(i, 5)) + rng.uniform(0.3, 0.7, 2))
        turns = np.radians(72 * np.arange(5) + rng.uniform(0, 50, 5))
        chip = np.stack([np.cos(turns), np.sin(turns)], 1) * (1.6, 2.4, 3.4)[i % 3]
        sketch.shape(chip * rng.uniform(0.7, 1.1, 2) + centre, tones[i % 4])
    return ground


def _hexagons(sketch):
    _, tones = _STONE
    corners = np.array([(0, -1), (1, -0.5), (1, 0.5), (0, 1), (-1, 0.5), (-1, -0.5)])
    for row in range(4):
        for column in range(4):
            centre = np.array([8 * column + 4 * (row % 2), 8 * row])
            sketch.shape(corners * np.array([3.4, 4.7]) + centre, tones[0])
    return tones[2]


def _checker(sketch):
    _, tones = _STONE
    for row in range(4):
        for column in range(4):
            if (row + column) % 2:
                sketch.shape(box(8 * column, 8 * row, 8, 8), tones[2])
    return tones[0]


def _bricks(sketch):
    _, tones = _STONE
    for row in range(6):
        for column in range(3):
            x, y = TILE / 3 * (column + 0.5 * (row % 2)), TILE / 6 * row
            sketch.shape(box(x, y, TILE / 3 - 1.2, TILE / 6 - 1.2), tones[1 + (row * 2 + column) % 3 % 2])
    return tones[0]


def _dots(sketch):
    ground, tones = _INDIGO
    for row in range(4):
        for column in range(4):
            sketch.ellipse(8 * column + 4 * (row % 2), 8 * row + 2, 2.1, 2.1, tones[0])
    return ground


def _crosses(sketch):
    ground, tones = _INDIGO
    for row in range(4):
        for column in range(2):
            x, y = 16 * column + 8 * (row % 2), 8 * row + 4
            sketch.shape(box(x - 4, y - 0.9, 8, 1.8), tones[0]).shape(box(x - 0.9, y - 4, 1.8, 8), tones[0])
    return ground


def _waves(sketch):
    ground, tones = _INDIGO
    for row in range(6):
        for column in range(2):
            x, y = 16 * column + 8 * (row % 2), TILE / 6 * row
            for radius, tone in ((8.8, tones[0]), (7.2, ground), (4.6, tones[0]), (3.0, ground)):
                sketch.ellipse(x, y, radius, radius, tone)
    return ground


def _rings(sketch):
    ground, tones = _INDIGO
    for row in range(4):
        for column in range(2):
            x, y = 16 * column + 8 * (row % 2), 8 * row
            sketch.stroke(ellipse(x, y, 8, 8, 0, 0, 359), 1.5, tones[1])
    return ground


def _chevrons(sketch):
    ground, tones = _CLAY
    # Past both edges: where the tile ends there is no end of a zigzag.
    edge = np.array([(x, 5 if x % 16 == 0 else 0) for x in range(-16, TILE + 17, 8)])
    for row in range(4):
        sketch.shape(np.concatenate([edge, edge[::-1] + (0, 4)]) + (0, 8 * row), tones[1 + row % 2])
    return ground


def _gingham(sketch):
    ground, tones = _CLAY
    for i in range(4):
        sketch.shape(box(8 * i, 0, 4, TILE), tones[0]).shape(box(0, 8 * i, TILE, 4), tones[0])
    for row in range(4):
        for column in range(4):
            sketch.shape(box(8 * column, 8 * row, 4, 4), tones[1])
    return ground


def _stripes(sketch):
    ground, tones = _CLAY
    for i in range(3):
        x = TILE / 3 * i
        sketch.shape(box(x, 0, 4.6, TILE), tones[1]).shape(box(x + 6.9, 0, 1.4, TILE), tones[2])
    return ground


def _trellis(sketch):
    ground, tones = _CLAY
    for i in range(2):
        for slope in (1, -1):
            line = np.linspace((16 * i, 0), (16 * i + slope * TILE, TILE), 2)
            sketch.stroke(line, 1.7, tones[2])
        for j in range(4):
            diamond = rotate(box(-1.7, -1.7, 3.4, 3.4), 45) + np.array([16 * i + 8 * (1 - j % 2), 8 * j])
            sketch.shape(diamond, tones[0])
    return ground


_DRAWN = {
    "planks": _planks,
    "diagonal": _diagonal,
    "herringbone": _herringbone,
    "wicker": _wicker,
    "terrazzo": _terrazzo,
    "hexagons": _hexagons,
    "checker": _checker,
    "bricks": _bricks,
    "dots": _dots,
    "crosses": _crosses,
    "waves": _waves,
    "rings": _rings,
    "chevrons": _chevrons,
    "gingham": _gingham,
    "stripes": _stripes,
    "trellis": _trellis,
}
TEXTURES = tuple(_DRAWN)

"""Everything around the dish: tables, vessels, cutlery and garnishes."""

from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np

from fooddit.data.scenes.vector import (
    INK,
    OUTLINE,
    UNITS,
    Drawing,
    Painter,
    Sketch,
    blob,
    box,
    ellipse,
    rotate,
    rounded,
    smooth,
    smooth_path,
)


class Glaze(NamedTuple):
    """Colours of a vessel: its rim, its well, and the light's reflection on the rim."""

    rim: tuple[float, float, float]
    well: tuple[float, float, float]
    shine: tuple[float, float, float]


VESSEL_HALF = {"round": (22.6, 22.6), "square": (20.6, 20.6), "oval": (23.4, 18.2)}
RIM = 4.7
# (rim, well) of each vessel.
VESSEL_COLOURS = {
    "white": ((252, 251, 248), (233, 231, 226)),
    "black": ((40, 39, 44), (70, 69, 77)),
    "blue": ((36, 92, 205), (100, 152, 232)),
    "red": ((208, 38, 44), (238, 112, 104)),
    "green": ((34, 140, 76), (104, 190, 132)),
    "yellow": ((252, 204, 32), (255, 229, 128)),
}
GARNISH_AT = {"round": (15.9, 15.7), "square": (15.6, 15.4), "oval": (17.4, 12.4)}
SAUCER_RADIUS = 6.6
TEXTURE_MARGIN = 2


def vessel_outline(shape: str, inset: float = 0.0) -> np.ndarray:
    """Points of the vessel's outline, moved inwards by `inset` design units."""
    rx, ry = (half - inset for half in VESSEL_HALF[shape])
    return rounded(rx, ry, 6.5 - 0.6 * inset) if shape == "square" else ellipse(0, 0, rx, ry)


@cache
def named_glaze(colour: str) -> Glaze:
    """The glaze of one of VESSEL_COLOURS."""
    shine = (214, 216, 222) if colour == "white" else shine_on(VESSEL_COLOURS[colour][0])
    return Glaze(*VESSEL_COLOURS[colour], shine)


def shine_on(rim: tuple[float, float, float]) -> tuple[float, float, float]:
    """The reflection on a rim of that colour."""
    return tuple(c + 0.72 * (255 - c) for c in rim)


def rim(shape: str, glaze: Glaze, light: str) -> Drawing:
    return _rim(shape, light).coloured(INK, glaze.rim, glaze.shine)


def well(shape: str, glaze: Glaze) -> Drawing:
    return _well(shape).coloured(INK, glaze.well)


@cache
def saucer() -> Drawing:
    sketch = Sketch().ellipse(0, 0, SAUCER_RADIUS - OUTLINE, SAUCER_RADIUS - OUTLINE, (255, 255, 255), OUTLINE)
    return sketch.drawing()


@cache
def garnish(name: str) -> Drawing:
    return {"cilantro": _cilantro, "chili": _chili, "lemon": _lemon, "flower": _flower}[name]().drawing()


@cache
def cutlery(name: str) -> Drawing:
    """Chopsticks (two sticks) or a fork, upright, about 50 units long."""
    return {"chopsticks": _chopsticks, "fork": _fork}[name]().drawing()


@lru_cache(maxsize=32)
def texture(table: str, canvas_size: int) -> np.ndarray:
    """The bare table, uint8 (n, n, 3), with TEXTURE_MARGIN more units on every side than the picture has."""
    pixels = canvas_size / UNITS
    canvas = np.zeros((canvas_size + 2 * round(TEXTURE_MARGIN * pixels),) * 2 + (3,), np.uint8)
    sketch = Sketch()
    {"wood": _wood, "marble": _marble, "slate": _slate, "cloth": _cloth}[table](sketch, np.random.RandomState(7))
    Painter(canvas, pixels).draw(sketch.drawing(), 0, 0)
    return canvas


@cache
def _rim(shape: str, light: str) -> Drawing:
    sketch = Sketch().shape(vessel_outline(shape, OUTLINE), INK, OUTLINE)
    side = {"morning": 180, "noon": 247, "evening": 300}[light]
    rx, ry = (half - RIM / 2 - 0.2 for half in VESSEL_HALF[shape])
    if shape == "square":
        edge = {
            "morning": ((-rx, -2), (-rx, -11)),
            "noon": ((-10, -ry), (-1, -ry)),
            "evening": ((rx, -11), (rx, -2)),
        }[light]
        path = np.linspace(*edge, 4)
    else:
        path = ellipse(0, 0, rx, ry, 0, side, side + 42)
    return sketch.stroke(path, 1.5, INK).drawing()


@cache
def _well(shape: str) -> Drawing:
    return Sketch().shape(vessel_outline(shape, RIM), INK, 0.7).drawing()


def _wood(sketch, rng):
    colours = ((190, 130, 78), (176, 116, 66), (199, 140, 88), (182, 123, 72), (193, 134, 82))
    for row, colour in enumerate(colours):
        y = -6 + 15.5 * row
        sketch.shape(box(0, y, 72, 15.5), colour)
        darker = tuple(c * 0.86 for c in colour)
        for line in range(3):
            x = np.linspace(-4, 74, 12)
            start = y + 3.2 + 4.0 * line
            sketch.stroke(np.stack([x, start + 0.7 * np.sin(x / 9 + rng.rand() * 6)], 1), 0.8, darker)
        sketch.shape(box(0, y, 72, 1.3), (112, 68, 38))
        sketch.shape(box((13, 52, 30, 60, 20)[row], y, 1.2, 15.5), (112, 68, 38))


def _marble(sketch, rng):
    sketch.shape(box(0, 0, 72, 72), (222, 225, 228))
    veins = (
        ((-3, 20), (12, 14), (22, 16), (36, 5), (48, -4)),
        ((-3, 52), (8, 44), (20, 40), (34, 26), (52, 20), (74, 4)),
        ((14, 74), (22, 62), (40, 56), (52, 42), (74, 34)),
        ((44, 74), (54, 66), (60, 56), (74, 52)),
    )
    for vein in veins:
        path = smooth_path(vein)
        sketch.stroke(path, 2.6, (203, 208, 214))
        sketch.stroke(path, 0.9, (150, 158, 170))
    for x, y, dx, dy in ((8, 44, 2, 14), (52, 20, 10, 6), (22, 62, -8, -4), (36, 5, 10, 4)):
        sketch.stroke(np.linspace((x, y), (x + dx, y + dy), 4), 0.8, (168, 175, 186))


def _slate(sketch, rng):
    sketch.shape(box(0, 0, 72, 72), (84, 98, 122))
    for points in (((-2, 12), (20, 9), (44, 13), (74, 8)), ((-2, 61), (30, 65), (50, 60), (74, 64))):
        sketch.stroke(smooth_path(points), 1.0, (62, 74, 96))
    grid = np.stack(np.meshgrid(np.arange(2, 72, 5), np.arange(2, 72, 5)), -1).reshape(-1, 2)
    for i, (x, y) in enumerate(grid + rng.uniform(-1.8, 1.8, grid.shape)):
        colour = ((150, 164, 186), (56, 67, 88), (120, 134, 158))[i % 3]
        sketch.ellipse(x, y, 0.8, 0.65, colour)


def _cloth(sketch, rng):
    sketch.shape(box(0, 0, 72, 72), (255, 244, 236))
    for i in range(10):
        sketch.shape(box(0, 8 * i, 72, 4), (246, 172, 166))
    for i in range(10):
        sketch.shape(box(8 * i, 0, 4, 72), (246, 172, 166))
        for j in range(10):
            sketch.shape(box(8 * i, 8 * j, 4, 4), (226, 104, 106))


def _chopsticks():
    sketch = Sketch()
    for x, lean in ((-2.3, 0.5), (2.3, -0.5)):
        sketch.stroke(np.linspace((x - lean, -24), (x + lean, 24), 3), 2.0, (158, 44, 40), OUTLINE)
        sketch.stroke(np.linspace((x + 0.7 * lean, 16), (x + lean, 24), 3), 2.0, (250, 206, 110))
    return sketch


def _fork():
    steel, sketch = (228, 232, 238), Sketch()
    for x in (-3, 0, 3):
        sketch.stroke(np.linspace((x, -22), (x, -13), 3), 1.2, steel, OUTLINE)
    head = smooth([(-3.6, -15), (3.6, -15), (3.4, -9), (1.2, -6), (-1.2, -6), (-3.4, -9)], 2)
    sketch.shape(head, steel, OUTLINE)
    sketch.stroke(np.linspace((0, -6), (0, 23), 3), 2.2, steel, OUTLINE)
    for x in (-3, 0, 3):
        sketch.stroke(np.linspace((x, -21.5), (x, -12), 3), 1.1, steel)
    return sketch.stroke(np.linspace((0, -8), (0, 22), 3), 1.6, steel).stroke(
        np.linspace((-0.4, 8), (-0.4, 21), 3), 0.7, (255, 255, 255)
    )


def _cilantro():
    leaf, vein, sketch = (92, 210, 66), (40, 146, 48), Sketch()
    sketch.stroke(np.linspace((0, 0.5), (0.4, 5.0), 4), 1.1, vein, 0.5)
    leaves = ((-2.8, 0.2, 2.5, -80), (2.8, 0.2, 2.5, 80), (0, -2.5, 2.8, 0))
    for grow_by in (0.75, 0.0):
        for x, y, r, angle in leaves:
            lobes = rotate(blob(r + grow_by, r + grow_by, 5, 0.17, 0.94), angle) + np.array([x, y])
            sketch.shape(lobes, INK if grow_by else leaf)
    for x, y in ((-3.2, 0.1), (3.2, 0.1), (0, -3.4)):
        sketch.stroke(np.linspace((0, 0.9), (x, y), 3), 0.6, vein)
    return sketch


def _chili():
    sketch = Sketch()
    path = smooth_path(((-4.6, -0.8), (-3.2, 3.0), (0.8, 3.2), (2.6, 0.6), (2.6, -1.6)))
    width = np.interp(np.linspace(0, 1, len(path)), (0.0, 0.3, 0.65, 1.0), (0.7, 2.6, 3.8, 3.8))
    direction = np.gradient(path, axis=0)
    direction /= np.hypot(*direction.T)[:, None]
    normal = np.stack([-direction[:, 1], direction[:, 0]], 1) * width[:, None] / 2
    sketch.stroke(np.linspace((2.5, -2.2), (1.0, -4.7), 3), 1.3, (40, 150, 50), 0.6)
    sketch.shape(smooth(np.concatenate([path + normal, (path - normal)[::-1]]), 1), (232, 28, 32), 0.75)
    sketch.stroke(path[7:-3] + normal[7:-3] * 0.3, 0.7, (255, 150, 140))
    return sketch.ellipse(2.6, -2.0, 2.1, 1.0, (40, 150, 50), 0.5, -6)


def _lemon():
    sketch, lift = Sketch(), np.array([0, -2.6])
    sketch.shape(ellipse(0, 0, 5.0, 6.2, 0, 0, 180) + lift, (255, 200, 0), 0.75)
    sketch.shape(ellipse(0, 0, 4.1, 5.2, 0, 0, 180) + lift, (255, 248, 190))
    for angle in (30, 90, 150):
        wedge = np.array([(0.7, 0), (3.7, -1.6), (4.0, 0), (3.7, 1.6)]) * np.array([1.05, 0.9])
        sketch.shape(rotate(wedge, angle) * np.array([0.92, 1.0]) + lift + np.array([0, 0.3]), (255, 222, 40))
    return sketch


def _flower():
    sketch = Sketch()
    for turn in range(5):
        x, y = 2.9 * np.sin(np.radians(72 * turn)), -2.9 * np.cos(np.radians(72 * turn))
        sketch.ellipse(x, y, 2.1, 2.4, (164, 72, 214), 0.75, 72 * turn)
    for turn in range(5):
        x, y = np.sin(np.radians(72 * turn)), -np.cos(np.radians(72 * turn))
        sketch.ellipse(2.8 * x, 2.8 * y, 2.05, 2.35, (164, 72, 214), 0, 72 * turn)
        sketch.stroke(np.linspace((1.2 * x, 1.2 * y), (3.4 * x, 3.4 * y), 3), 0.8, (226, 170, 250))
    return sketch.ellipse(0, 0, 1.5, 1.5, (255, 214, 60), 0.5)

"""From a spec to pixels, and to maps that follow from the same geometry.

A picture is drawn from the attributes that text names, a glaze and a table; the last two are colours and textures by
name here, and free ones in `styled`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache, partial
from typing import NamedTuple

import cv2
import numpy as np

from fooddit.data.scenes import beds, pieces, surroundings
from fooddit.data.scenes.spec import Dish, SceneSpec
from fooddit.data.scenes.vector import UNITS, Drawing, Painter, rotate

MIN_SIZE = 16
_CENTRE_X = {"left": 24.4, "centre": 32.0, "right": 39.6}
_CENTRE_Y = 31.0
_FREE_SIDE_X = {"left": 55.5, "right": 8.5}
_WITH_CHOPSTICKS = ("noodles", "dumplings", "sushi", "egg_rice", "skewers", "soup")
# (shadow's offset in units, shadow's blur, strength, gain of red, green, blue, brightness at the left and right edge)
_LIGHTS = {
    "morning": ((6.5, 3.0), 1.6, 0.45, (0.87, 0.99, 1.14), (1.05, 0.95)),
    "noon": ((0.0, 3.6), 0.9, 0.50, (1.00, 1.00, 0.99), (1.00, 1.00)),
    "evening": ((-6.5, 3.0), 1.6, 0.48, (1.09, 0.91, 0.69), (0.95, 1.04)),
}


class Segment(IntEnum):
    """Labels of Scene.segmentation."""

    TABLE = 0
    CUTLERY = 1
    VESSEL = 2
    FOOD = 3
    PIECE = 4
    GARNISH = 5


@dataclass(frozen=True)
class Scene:
    """A picture and its exact maps, all of one size.

    image: uint8 (H, W, 3) RGB. segmentation: uint8 (H, W), labels of Segment. depth: float32 (H, W) in [0, 1], nearer
    to the camera is larger, the table is 0. edges: bool (H, W), True where the right or lower neighbour belongs to
    another object.
    """

    image: np.ndarray
    segmentation: np.ndarray
    depth: np.ndarray
    edges: np.ndarray


class Look(NamedTuple):
    """What is free besides: the vessel's glaze, and the bare table.

    `table` is called with the side of the canvas in pixels and two numbers in [-1, 1) that shift it, (x, y); it gives
    uint8 (n, n, 3) that the caller may write to.
    """

    glaze: surroundings.Glaze
    table: Callable[[int, tuple[float, float]], np.ndarray]


@dataclass(frozen=True)
class _Placed:
    drawing: Drawing
    x: float
    y: float
    angle: float
    segment: Segment
    base: float
    dome: float


class _Nuisance(NamedTuple):
    """What the seed varies, in design units and degrees; `phase` is in [-1, 1), pieces have (x, y, turn in [-1, 1])."""

    phase: tuple[float, float]
    shift: tuple[float, float]
    cutlery_angle: float
    garnish_angle: float
    pieces: tuple[tuple[float, float, float], ...]


def render_image(spec: SceneSpec, size: int = 64) -> np.ndarray:
    """The picture alone, uint8 (size, size, 3) RGB; the same pixels as render(spec, size).image."""
    return draw_image(spec, _look(spec), size)


def render(spec: SceneSpec, size: int = 64) -> Scene:
    """The picture and its maps, all (size, size); a label is that of the pixel's centre."""
    return draw(spec, _look(spec), size)


def draw_image(dish: Dish, look: Look, size: int) -> np.ndarray:
    """`render_image` with any glaze and table."""
    nuisance = _nuisance(dish.seed)
    canvas = look.table(_canvas_size(size), nuisance.phase)
    _cast_shadow(canvas, dish, nuisance)
    painter = Painter(canvas)
    for item in _arrange(dish, look.glaze, nuisance):
        painter.draw(item.drawing, item.x, item.y, item.angle)
    image = cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA)
    return cv2.multiply(image, _light_gain(dish.light, size), dst=image, scale=1 / 128)


def draw(dish: Dish, look: Look, size: int) -> Scene:
    """`render` with any glaze and table."""
    items = list(_arrange(dish, look.glaze, _nuisance(dish.seed)))
    owner = _owners(items, size)
    segments = np.array([Segment.TABLE] + [item.segment for item in items], np.uint8)
    return Scene(draw_image(dish, look, size), segments[owner], _depth(items, owner), _edges(owner))


def _look(spec: SceneSpec) -> Look:
    return Look(surroundings.named_glaze(spec.vessel_colour), partial(_table, spec.table))


def _arrange(dish: Dish, glaze: surroundings.Glaze, nuisance: _Nuisance):
    """Every object from back to front."""
    dx, dy = nuisance.shift
    x, y = _CENTRE_X[dish.placement] + dx, _CENTRE_Y + dy
    shape = dish.vessel_shape
    if dish.placement != "centre":
        drawing = surroundings.cutlery(_cutlery_name(dish.kind))
        yield _Placed(
            drawing, _FREE_SIDE_X[dish.placement] + dx, 32 + dy, nuisance.cutlery_angle, Segment.CUTLERY, 0.06, 0.04
        )
    yield _Placed(surroundings.rim(shape, glaze, dish.light), x, y, 0.0, Segment.VESSEL, 0.30, 0.05)
    yield _Placed(surroundings.well(shape, glaze), x, y, 0.0, Segment.VESSEL, 0.22, -0.06)
    bed = beds.bed(dish.kind, shape)
    if bed is not None:
        yield _Placed(bed, x, y, 0.0, Segment.FOOD, 0.26, 0.12)
    turn = 2.0 if dish.kind in pieces.IN_ROWS else 5.0
    layout = pieces.layout(dish.kind, shape, dish.count)
    for (px, py, drawing), (jx, jy, angle) in zip(layout, nuisance.pieces):
        yield _Placed(drawing, x + px + jx, y + py + jy, turn * angle, Segment.PIECE, 0.40, 0.35)
    gx, gy = surroundings.GARNISH_AT[shape]
    yield _Placed(surroundings.saucer(), x + gx, y + gy, 0.0, Segment.GARNISH, 0.50, 0.0)
    yield _Placed(
        surroundings.garnish(dish.garnish), x + gx, y + gy, nuisance.garnish_angle, Segment.GARNISH, 0.60, 0.20
    )


def _cutlery_name(kind: str) -> str:
    return "chopsticks" if kind in _WITH_CHOPSTICKS else "fork"


def _nuisance(seed: int) -> _Nuisance:
    """The same numbers for a seed whatever the attributes, so that one attribute can be changed alone."""
    u = _uniform(seed, 15)
    phase, shift = (u[0], u[1]), (0.5 * u[2], 0.5 * u[3])
    jitter = tuple((0.4 * u[i], 0.4 * u[i + 1], u[i + 2]) for i in (6, 9, 12))
    return _Nuisance(phase, shift, 2.0 * u[4], 5.0 * u[5], jitter)


def _uniform(seed: int, count: int) -> list[float]:
    """Numbers in [-1, 1) from splitmix64, which costs far less to start than a numpy generator."""
    mask, state, numbers = (1 << 64) - 1, seed, []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & mask
        z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        numbers.append(((z ^ (z >> 31)) >> 11) * 2.0**-52 - 1.0)
    return numbers


def _canvas_size(size: int) -> int:
    """Pixels are averaged from 4 x 4 samples; from fewer in large pictures, where it is seen less and costs more."""
    if size < MIN_SIZE:
        raise ValueError(f"a scene of {size} pixels was asked for; the smallest is {MIN_SIZE}")
    return size * (4 if size <= 128 else 3 if size <= 256 else 2)


def _table(table: str, canvas_size: int, shift: tuple[float, float]) -> np.ndarray:
    big = surroundings.texture(table, canvas_size)
    margin = (big.shape[0] - canvas_size) // 2
    x, y = (round(margin + 1.4 * share * canvas_size / UNITS) for share in shift)
    return big[y : y + canvas_size, x : x + canvas_size].copy()


def _cast_shadow(canvas: np.ndarray, dish: Dish, nuisance: _Nuisance):
    cutlery = "" if dish.placement == "centre" else _cutlery_name(dish.kind)
    n = canvas.shape[0]
    big = _shadow(dish.vessel_shape, dish.placement, cutlery, dish.light, n)
    margin = (big.shape[0] - n) // 2
    x, y = (margin - round(shift * n / UNITS) for shift in nuisance.shift)
    shadow = cv2.cvtColor(big[y : y + n, x : x + n], cv2.COLOR_GRAY2RGB)
    cv2.multiply(canvas, shadow, dst=canvas, scale=1 / 255)


@lru_cache(maxsize=96)
def _shadow(shape: str, placement: str, cutlery: str, light: str, canvas_size: int) -> np.ndarray:
    """What is left of the table's brightness, 255 = all: uint8 (n, n) with a unit of margin on every side."""
    (offset_x, offset_y), blur, strength, *_ = _LIGHTS[light]
    pixels = canvas_size / UNITS
    margin = round(pixels)
    mask = np.zeros((canvas_size + 2 * margin,) * 2, np.uint8)
    painter, at = Painter(mask, pixels), margin / pixels
    vessel = surroundings.well(shape, surroundings.named_glaze("white"))
    # A few copies along the way make one swept shadow.
    for share in np.linspace(0.25, 1.0, 5):
        x, y = at + share * offset_x, at + share * offset_y
        painter.draw(vessel, x + _CENTRE_X[placement], y + _CENTRE_Y, number=255, scale=1.24)
        if cutlery:
            x, y = at + 0.3 * share * offset_x, at + 0.3 * share * offset_y
            painter.draw(surroundings.cutlery(cutlery), x + _FREE_SIDE_X[placement], y + 32, number=255)
    mask = cv2.GaussianBlur(mask, (0, 0), blur * pixels)
    return (255 - mask * strength).astype(np.uint8)


@lru_cache(maxsize=64)
def _light_gain(light: str, size: int) -> np.ndarray:
    """Tint and fall-off of the light, uint8 (n, n, 3), 128 = unchanged."""
    *_, tint, (left, right) = _LIGHTS[light]
    fall = np.linspace(left, right, size)[None, :, None] * np.ones((size, 1, 1))
    return np.clip(np.rint(128 * fall * np.array(tint)), 0, 255).astype(np.uint8)


def _owners(items: list[_Placed], size: int) -> np.ndarray:
    """Which item is seen at the centre of each pixel, 1-based; 0 is the table. uint8 (n, n)."""
    fine = np.zeros((size * 5,) * 2, np.uint8)
    painter = Painter(fine)
    for number, item in enumerate(items, start=1):
        painter.draw(item.drawing, item.x, item.y, item.angle, number)
    return fine[2::5, 2::5].copy()


def _depth(items: list[_Placed], owner: np.ndarray) -> np.ndarray:
    """Each item is a plateau with an elliptical dome (a bowl where the dome is negative)."""
    depth = np.zeros(owner.shape, np.float32)
    scale = UNITS / owner.shape[0]
    for number, item in enumerate(items, start=1):
        rows, columns = np.nonzero(owner == number)
        offset = np.stack([(columns + 0.5) * scale - item.x, (rows + 0.5) * scale - item.y], axis=1)
        radius = (rotate(offset, -item.angle) / item.drawing.extent) ** 2
        depth[rows, columns] = item.base + item.dome * np.sqrt(np.maximum(0, 1 - radius.sum(axis=1)))
    return depth


def _edges(owner: np.ndarray) -> np.ndarray:
    edges = np.zeros(owner.shape, bool)
    edges[:, :-1] |= owner[:, :-1] != owner[:, 1:]
    edges[:-1] |= owner[:-1] != owner[1:]
    return edges

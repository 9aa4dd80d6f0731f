"""From a spec to pixels, and to maps that follow from the same geometry."""

from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np

from fooddit.data.scenes import beds, pieces, surroundings
from fooddit.data.scenes.spec import SceneSpec
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
    """What the seed varies, in design units and degrees; pieces have (x, y, turn in [-1, 1]) each."""

    phase: tuple[float, float]
    shift: tuple[float, float]
    cutlery_angle: float
    garnish_angle: float
    pieces: tuple[tuple[float, float, float], ...]


def render_image(spec: SceneSpec, size: int = 64) -> np.ndarray:
    """The picture alone, uint8 (size, size, 3) RGB; the same pixels as render(spec, size).image."""
    nuisance = _nuisance(spec.seed)
    canvas = _table(spec.table, _canvas_size(size), nuisance)
    _cast_shadow(canvas, spec, nuisance)
    painter = Painter(canvas)
    for item in _arrange(spec, nuisance):
        painter.draw(item.drawing, item.x, item.y, item.angle)
    image = cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA)
    return cv2.multiply(image, _light_gain(spec.light, size), dst=image, scale=1 / 128)


def render(spec: SceneSpec, size: int = 64) -> Scene:
    """The picture and its maps, all (size, size); a label is that of the pixel's centre."""
    items = list(_arrange(spec, _nuisance(spec.seed)))
    owner = _owners(items, size)
    segments = np.array([Segment.TABLE] + [item.segment for item in items], np.uint8)
    return Scene(render_image(spec, size), segments[owner], _depth(items, owner), _edges(owner))


def _arrange(spec: SceneSpec, nuisance: _Nuisance):
    """Every object from back to front."""
    dx, dy = nuisance.shift
    x, y = _CENTRE_X[spec.placement] + dx, _CENTRE_Y + dy
    shape, colour = spec.vessel_shape, spec.vessel_colour
    if spec.placement != "centre":
        drawing = surroundings.cutlery(_cutlery_name(spec.kind))
        yield _Placed(
            drawing, _FREE_SIDE_X[spec.placement] + dx, 32 + dy, nuisance.cutlery_angle, Segment.CUTLERY, 0.06, 0.04
        )
    yield _Placed(surroundings.rim(shape, colour, spec.light), x, y, 0.0, Segment.VESSEL, 0.30, 0.05)
    yield _Placed(surroundings.well(shape, colour), x, y, 0.0, Segment.VESSEL, 0.22, -0.06)
    bed = beds.bed(spec.kind, shape)
    if bed is not None:
        yield _Placed(bed, x, y, 0.0, Segment.FOOD, 0.26, 0.12)
    turn = 2.0 if spec.kind in pieces.IN_ROWS else 5.0
    layout = pieces.layout(spec.kind, shape, spec.count)
    for (px, py, drawing), (jx, jy, angle) in zip(layout, nuisance.pieces):
        yield _Placed(drawing, x + px + jx, y + py + jy, turn * angle, Segment.PIECE, 0.40, 0.35)
    gx, gy = surroundings.GARNISH_AT[shape]
    yield _Placed(surroundings.saucer(), x + gx, y + gy, 0.0, Segment.GARNISH, 0.50, 0.0)
    yield _Placed(
        surroundings.garnish(spec.garnish), x + gx, y + gy, nuisance.garnish_angle, Segment.GARNISH, 0.60, 0.20
    )


def _cutlery_name(kind: str) -> str:
    return "chopsticks" if kind in _WITH_CHOPSTICKS else "fork"


def _nuisance(seed: int) -> _Nuisance:
    """The same numbers for a seed whatever the attributes, so that one attribute can be changed alone."""
    u = _uniform(seed, 15)
    phase, shift = (1.4 * u[0], 1.4 * u[1]), (0.5 * u[2], 0.5 * u[3])
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


def _table(table: str, canvas_size: int, nuisance: _Nuisance) -> np.ndarray:
    big = surroundings.texture(table, canvas_size)
    margin = (big.shape[0] - canvas_size) // 2
    x, y = (round(margin + phase * canvas_size / UNITS) for phase in nuisance.phase)
    return big[y : y + canvas_size, x : x + canvas_size].copy()


def _cast_shadow(canvas: np.ndarray, spec: SceneSpec, nuisance: _Nuisance):
    cutlery = "" if spec.placement == "centre" else _cutlery_name(spec.kind)
    n = canvas.shape[0]
    big = _shadow(spec.vessel_shape, spec.placement, cutlery, spec.light, n)
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
    # A few copies along the way make one swept shadow.
    for share in np.linspace(0.25, 1.0, 5):
        x, y = at + share * offset_x, at + share * offset_y
        painter.draw(surroundings.well(shape, "white"), x + _CENTRE_X[placement], y + _CENTRE_Y, number=255, scale=1.24)
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

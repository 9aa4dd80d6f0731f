"""Flat-colour vector drawings: built once in design units, then painted at any position, angle and resolution.

The design is 64 units wide, whatever the resolution of the picture. A drawing is a stack of filled polygons; outlines
are larger polygons in ink below them. The same painter fills either colours (the image) or one instance number (the
maps), which is what keeps the two aligned.
"""

from dataclasses import dataclass, replace
from math import cos, pi, radians, sin

import cv2
import numpy as np

UNITS = 64
INK = (48, 32, 34)
OUTLINE = 0.9
_SHIFT = 4


@dataclass(frozen=True)
class Drawing:
    """Filled polygons: points (n, 2) float32 in design units around (0, 0), and (colour, contours) per layer."""

    points: np.ndarray
    layers: tuple
    extent: tuple[float, float]

    def coloured(self, *colours) -> "Drawing":
        """The same polygons in other colours, one for each layer from back to front."""
        layers = ((tuple(map(float, colour)), spans) for colour, (_, spans) in zip(colours, self.layers, strict=True))
        return replace(self, layers=tuple(layers))


class Sketch:
    """Collects shapes from back to front and turns them into a Drawing."""

    def __init__(self):
        self._layers = []

    def shape(self, points, colour, outline: float = 0.0, holes=()):
        """A closed polygon, with ink of the given width around it (and inside its holes)."""
        points = np.asarray(points, np.float32)
        if outline:
            self._layers.append((INK, [grow(points, outline)] + [grow(hole, -outline) for hole in holes]))
        self._layers.append((colour, [points, *holes]))
        return self

    def ellipse(self, x, y, rx, ry, colour, outline: float = 0.0, angle: float = 0.0):
        return self.shape(ellipse(x, y, rx, ry, angle), colour, outline)

    def stroke(self, points, width, colour, outline: float = 0.0):
        """A line with round ends through the points."""
        if outline:
            self._layers.append((INK, [thick(points, width + 2 * outline)]))
        self._layers.append((colour, [thick(points, width)]))
        return self

    def drawing(self) -> Drawing:
        layers, contours, start = [], [], 0
        for colour, polygons in self._layers:
            spans = []
            for polygon in polygons:
                spans.append((start, start + len(polygon)))
                start += len(polygon)
                contours.append(np.asarray(polygon, np.float32))
            layers.append((tuple(float(c) for c in colour), tuple(spans)))
        points = np.concatenate(contours)
        return Drawing(points, tuple(layers), tuple(np.abs(points).max(axis=0).tolist()))


class Painter:
    """Paints drawings on a canvas of shape (n, n, 3) with their colours, or (n, n) with one number each."""

    def __init__(self, canvas: np.ndarray, pixels_per_unit: float | None = None):
        self.canvas = canvas
        self._pixels = pixels_per_unit or canvas.shape[0] / UNITS

    def draw(self, drawing, x: float, y: float, angle: float = 0.0, number: int | None = None, scale: float = 1.0):
        """Puts the drawing's (0, 0) at (x, y), in design units; the angle is in degrees, clockwise."""
        unit = self._pixels * (1 << _SHIFT)
        points = drawing.points
        if angle:
            c, s = cos(radians(angle)), sin(radians(angle))
            points = points @ np.array([[c, s], [-s, c]], np.float32)
        # OpenCV's integer coordinates are pixel centres, hence the half pixel.
        half = 0.5 * (1 << _SHIFT)
        points = points * np.float32(unit * scale)
        points += np.array([x * unit - half, y * unit - half], np.float32)
        points = np.rint(points).astype(np.int32)
        for colour, spans in drawing.layers:
            polygons = [points[start:stop] for start, stop in spans]
            cv2.fillPoly(self.canvas, polygons, colour if number is None else number, cv2.LINE_8, _SHIFT)


def ellipse(x, y, rx, ry, angle: float = 0.0, start: float = 0.0, stop: float = 360.0) -> np.ndarray:
    """Points of an ellipse (or of the part between two angles, in degrees, clockwise from the right)."""
    steps = max(12, int(8 * max(rx, ry) ** 0.6 + 6))
    t = np.radians(np.linspace(start, stop, steps, endpoint=stop - start < 360))
    local = np.stack([rx * np.cos(t), ry * np.sin(t)], axis=1)
    return rotate(local, angle) + np.array([x, y])


def box(x, y, width, height) -> np.ndarray:
    """A rectangle with its left upper corner at (x, y)."""
    return np.array([(x, y), (x + width, y), (x + width, y + height), (x, y + height)], np.float32)


def rounded(half_width, half_height, radius) -> np.ndarray:
    """A rectangle with round corners, centred on (0, 0)."""
    w, h = half_width - radius, half_height - radius
    corners = ((w, h, 0), (-w, h, 90), (-w, -h, 180), (w, -h, 270))
    return np.concatenate([ellipse(x, y, radius, radius, 0, a, a + 90) for x, y, a in corners])


def blob(radius_x, radius_y, lobes: int, depth: float, phase: float = 0.0, points: int = 0) -> np.ndarray:
    """An ellipse whose radius waves `lobes` times by the fraction `depth`."""
    t = np.linspace(0, 2 * pi, points or 8 * lobes, endpoint=False)
    r = 1 + depth * np.cos(lobes * (t + phase))
    return np.stack([radius_x * r * np.cos(t), radius_y * r * np.sin(t)], axis=1)


def smooth(points, times: int = 2) -> np.ndarray:
    """Chaikin's corner cutting of a closed polygon."""
    points = np.asarray(points, np.float64)
    for _ in range(times):
        following = np.roll(points, -1, axis=0)
        points = np.stack([0.75 * points + 0.25 * following, 0.25 * points + 0.75 * following], 1).reshape(-1, 2)
    return points


def smooth_path(points, times: int = 2) -> np.ndarray:
    """Chaikin's corner cutting of an open line; the ends stay."""
    points = np.asarray(points, np.float64)
    for _ in range(times):
        near, far = 0.75 * points[:-1] + 0.25 * points[1:], 0.25 * points[:-1] + 0.75 * points[1:]
        points = np.concatenate([points[:1], np.stack([near, far], 1).reshape(-1, 2), points[-1:]])
    return points


def rotate(points, angle: float) -> np.ndarray:
    """Points turned around (0, 0) by an angle in degrees, clockwise on the screen."""
    c, s = cos(radians(angle)), sin(radians(angle))
    return np.asarray(points) @ np.array([[c, s], [-s, c]])


def grow(points, distance: float) -> np.ndarray:
    """The polygon with every side moved outwards by a distance; corners are cut when they get too long."""
    points = np.asarray(points, np.float64)
    side = np.roll(points, -1, axis=0) - points
    keep = np.hypot(side[:, 0], side[:, 1]) > 1e-6
    points = points[keep]
    side = np.roll(points, -1, axis=0) - points
    x, y = points.T
    area = np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)
    normal = np.stack([side[:, 1], -side[:, 0]], axis=1) * np.sign(area)
    normal /= np.hypot(normal[:, 0], normal[:, 1])[:, None]
    corner = normal + np.roll(normal, 1, axis=0)
    squared = np.maximum((corner**2).sum(axis=1), 0.8)
    return points + 2 * distance * corner / squared[:, None]


def thick(points, width: float) -> np.ndarray:
    """The outline of a line of the given width through the points, with round ends."""
    points = np.asarray(points, np.float64)
    direction = np.gradient(points, axis=0)
    direction /= np.hypot(direction[:, 0], direction[:, 1])[:, None]
    normal = np.stack([-direction[:, 1], direction[:, 0]], axis=1) * (width / 2)
    return np.concatenate(
        [
            points + normal,
            _cap(points[-1], direction[-1], width),
            (points - normal)[::-1],
            _cap(points[0], -direction[0], width),
        ]
    )


def _cap(end, direction, width) -> np.ndarray:
    angle = np.degrees(np.arctan2(direction[1], direction[0]))
    return end + rotate(ellipse(0, 0, width / 2, width / 2, 0, 90, -90)[3:-3:2], angle)

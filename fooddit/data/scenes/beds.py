"""What fills the vessel under the counted pieces: noodles, rice, leaves, soup, a mat or a paper doily.

Beds are drawn in a unit disc that `_fit` stretches over the well of the vessel.
"""

from functools import cache

import numpy as np

from fooddit.data.scenes.surroundings import RIM, VESSEL_HALF
from fooddit.data.scenes.vector import Drawing, Sketch, blob, ellipse, rotate


@cache
def bed(kind: str, shape: str) -> Drawing | None:
    """What lies in the vessel under the pieces; None for a dish that lies on the bare vessel."""
    if kind not in _BEDS:
        return None
    sketch = Sketch()
    _BEDS[kind](sketch, lambda points: _fit(points, shape))
    return sketch.drawing()


def _fit(points, shape: str) -> np.ndarray:
    points = np.asarray(points, np.float64)
    if shape == "square":
        squared = (np.abs(points) ** 5).sum(axis=1) ** 0.2
        points = points * (np.hypot(*points.T) / np.maximum(squared, 1e-9))[:, None]
    return points * (np.array(VESSEL_HALF[shape]) - RIM)


def _circle(points=40):
    return blob(1, 1, 1, 0, 0, points)


def _noodles_bed(sketch, fit):
    sketch.shape(fit(_circle() * 0.97), (186, 92, 30))
    sketch.shape(fit(_circle() * 0.86), (250, 206, 92), 0.7)
    for radius in (0.72, 0.54, 0.36, 0.18):
        for start in (20, 140, 260):
            t = np.radians(np.linspace(start, start + 100, 10) + 60 * radius)
            sketch.stroke(fit(np.stack([np.cos(t), np.sin(t)], 1) * radius), 0.9, (205, 138, 34))
    for x, y in ((0.1, -0.78), (-0.74, 0.25), (0.66, 0.1), (-0.2, 0.78)):
        centre = fit([(x, y)])[0]
        sketch.ellipse(*centre, 1.5, 1.5, (64, 170, 70), 0.5).ellipse(*centre, 0.6, 0.6, (222, 246, 190))


def _dumplings_bed(sketch, fit):
    sketch.shape(fit(_circle() * 0.93), (206, 152, 82), 0.7)
    for x in np.linspace(-0.66, 0.66, 6):
        reach = 0.86 * np.sqrt(1 - x * x)
        sketch.stroke(fit(np.linspace((x, -reach), (x, reach), 7)), 0.8, (160, 108, 52))


def _sushi_bed(sketch, fit):
    sketch.shape(fit(blob(0.93, 0.93, 22, 0.045)), (44, 122, 66), 0.7)
    for x in np.linspace(-0.6, 0.6, 5):
        reach = 0.8 * np.sqrt(1 - x * x)
        sketch.stroke(fit(np.linspace((x, -reach), (x, reach), 7)), 0.7, (82, 164, 92))


def _rice_bed(sketch, fit):
    sketch.shape(fit(blob(0.92, 0.92, 13, 0.03)), (240, 214, 160), 0.8)
    rng = np.random.RandomState(3)
    for i in range(46):
        radius, turn = 0.86 * np.sqrt((i + 0.5) / 46), 2.39996 * i
        grain = rotate([(-0.055, 0), (0.055, 0)], rng.uniform(0, 180))
        start, stop = fit(grain + radius * np.array([np.cos(turn), np.sin(turn)]))
        colour = ((255, 246, 220), (206, 168, 104), (255, 246, 220), (240, 130, 40), (255, 246, 220), (84, 176, 70))[
            i % 6
        ]
        sketch.stroke(np.linspace(start, stop, 2), 1.1, colour)


def _cake_bed(sketch, fit):
    sketch.shape(fit(blob(0.93, 0.93, 18, 0.04)), (255, 206, 222), 0.6)
    for turn in np.arange(18) * 20 + 10:
        centre = fit([(0.8 * np.cos(np.radians(turn)), 0.8 * np.sin(np.radians(turn)))])[0]
        sketch.ellipse(*centre, 0.8, 0.8, (255, 255, 255))


def _salad_bed(sketch, fit):
    sketch.shape(fit(blob(0.96, 0.96, 15, 0.055)), (84, 170, 50), 0.8)
    for i, turn in enumerate(range(10, 370, 45)):
        centre = fit([(0.56 * np.cos(np.radians(turn)), 0.56 * np.sin(np.radians(turn)))])[0]
        leaf = rotate(blob(5.4, 3.7, 7, 0.1), turn) + centre
        sketch.shape(leaf, ((164, 216, 84), (112, 196, 64))[i % 2], 0.55)
        spine = rotate([(-3.6, 0), (3.8, 0)], turn) + centre
        sketch.stroke(np.linspace(*spine, 3), 0.7, (232, 246, 176))
    sketch.shape(blob(4.6, 4.2, 7, 0.1), (190, 230, 110), 0.55)
    for turn in (35, 150, 265):
        centre = fit([(0.62 * np.cos(np.radians(turn)), 0.62 * np.sin(np.radians(turn)))])[0]
        sketch.shape(ellipse(*centre, 2.3, 2.3), (150, 60, 150)).ellipse(*centre, 1.5, 1.5, (244, 224, 246))


def _soup_bed(sketch, fit):
    sketch.shape(fit(_circle() * 0.97), (196, 62, 26))
    sketch.shape(fit(_circle() * 0.87), (228, 92, 36))
    for radius, start, sweep in ((0.7, 190, 90), (0.7, 20, 60), (0.42, 150, 150), (0.42, 10, 90)):
        t = np.radians(np.linspace(start, start + sweep, 12))
        sketch.stroke(fit(np.stack([np.cos(t), np.sin(t)], 1) * radius), 1.1, (250, 150, 74))
    for x, y in ((0.55, -0.45), (-0.62, 0.3), (0.02, -0.66), (-0.5, -0.55), (0.4, 0.4)):
        sketch.ellipse(*fit([(x, y)])[0], 0.9, 0.9, (92, 176, 60))


_BEDS = {
    "noodles": _noodles_bed,
    "dumplings": _dumplings_bed,
    "sushi": _sushi_bed,
    "egg_rice": _rice_bed,
    "cake": _cake_bed,
    "salad": _salad_bed,
    "soup": _soup_bed,
}

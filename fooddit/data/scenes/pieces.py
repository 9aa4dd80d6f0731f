"""The counted pieces of a dish: how each is drawn, and where they lie in the vessel.

Pieces are drawn for a size in design units, so that outlines keep their width when pieces get smaller.
"""

from functools import cache

import numpy as np

from fooddit.data.scenes.vector import OUTLINE, Drawing, Sketch, blob, ellipse, rotate, rounded, smooth, smooth_path

# Centres of the pieces and their size, by vessel shape and count.
_CLUSTER = {
    "round": {
        1: (((0, 0),), 29.5),
        2: (((-9.6, 0), (9.6, 0)), 18.8),
        3: (((-8.8, -6.6), (8.8, -6.6), (-1, 8.4)), 15.6),
    },
    "square": {
        1: (((0, 0),), 29.0),
        2: (((-9.2, 0), (9.2, 0)), 18.0),
        3: (((-8.4, -7), (8.4, -7), (-1.5, 8)), 15.2),
    },
    "oval": {
        1: (((0, 0),), 26.5),
        2: (((-10.2, 0), (10.2, 0)), 19.6),
        3: (((-11.8, -3.2), (10.8, -4.2), (-0.4, 3.8)), 14.2),
    },
}
# Rows of long pieces: (x, y, length) of each, and their height.
_ROWS = {
    "round": {
        1: (((0, 0, 38),), 17.4),
        2: (((0, -7.4, 33), (-1.2, 7.4, 32)), 12.6),
        3: (((0, -10.2, 29), (0, 0, 35), (-2, 10.2, 27)), 8.6),
    },
    "square": {
        1: (((0, 0, 35),), 17.4),
        2: (((0, -7.4, 33), (-1.2, 7.4, 32)), 12.6),
        3: (((0, -10, 31), (0, 0, 32), (-2.2, 10, 28)), 8.6),
    },
    "oval": {
        1: (((0, 0, 40),), 16.4),
        2: (((0, -6.2, 36), (-1.5, 6.2, 34)), 10.6),
        3: (((0, -8.4, 29), (0, 0, 37), (-2.4, 8.4, 27)), 7.2),
    },
}
IN_ROWS = ("skewers", "fish")
# Toppings are smaller than the pieces that are a dish of their own.
_PIECE_SCALE = {"noodles": 0.72, "salad": 0.66, "soup": 0.7, "egg_rice": 0.94}


def layout(kind: str, shape: str, count: int) -> tuple[tuple[float, float, Drawing], ...]:
    """(x, y, drawing) of each counted piece, relative to the vessel's centre."""
    if kind in IN_ROWS:
        places, height = _ROWS[shape][count]
        return tuple((x, y, piece(kind, height, length)) for x, y, length in places)
    places, size = _CLUSTER[shape][count]
    # A single topping would hide the bed at full size.
    scale = _PIECE_SCALE.get(kind, 1.0) * (0.8 if count == 1 and kind in ("noodles", "salad", "soup") else 1.0)
    return tuple((x, y, piece(kind, size * scale)) for x, y in places)


@cache
def piece(kind: str, size: float, length: float = 0.0) -> Drawing:
    sketch = Sketch()
    if kind in IN_ROWS:
        _PIECES[kind](sketch, length / 2, size / 2)
    else:
        _PIECES[kind](sketch, size / 2)
    return sketch.drawing()


def _fish_cake(sketch, r):
    sketch.shape(blob(r - OUTLINE, r - OUTLINE, 10, 0.07), (255, 250, 246), OUTLINE)
    t = np.linspace(0, 3.4 * np.pi, 26)
    spiral = np.stack([np.cos(t), np.sin(t)], 1) * (0.08 + 0.052 * t)[:, None] * r
    sketch.stroke(spiral, 0.2 * r, (240, 92, 140))


def _dumpling(sketch, r):
    # A crescent whose upper edge is crimped into pleats.
    t = np.radians(np.linspace(180, 360, 43))
    crimp = 1 + 0.05 * np.cos(14 * t)
    x, y = (0.98 * r - OUTLINE) * crimp * np.cos(t), 0.46 * r + 1.16 * r * crimp * np.sin(t)
    belly = smooth_path([(0.96, 0.46), (0.6, 0.72), (0, 0.8), (-0.6, 0.72), (-0.96, 0.46)])[1:-1] * r
    sketch.shape(np.concatenate([np.stack([x, y], 1), belly]), (255, 246, 222), OUTLINE)
    golden = [(0.88, 0.4), (0.5, 0.5), (0, 0.53), (-0.5, 0.5), (-0.88, 0.4), (-0.55, 0.69), (0, 0.77), (0.55, 0.69)]
    sketch.shape(smooth(np.array(golden) * r, 2), (226, 150, 64))
    for turn in (208, 232, 256, 284, 308, 332):
        cosine, sine = np.cos(np.radians(turn)), np.sin(np.radians(turn))
        start, stop = (0.9 * cosine, 0.46 + 1.06 * sine), (0.56 * cosine, 0.4 + 0.66 * sine)
        sketch.stroke(np.linspace(start, stop, 3) * r, max(0.75, 0.08 * r), (206, 150, 88))


def _pizza(sketch, r):
    wedge = smooth(
        [(-0.86 * r, -0.62 * r), (0, -0.84 * r), (0.86 * r, -0.62 * r), (0.06 * r, 0.98 * r), (-0.06 * r, 0.98 * r)], 2
    )
    sketch.shape(wedge, (255, 204, 72), OUTLINE)
    crust = smooth_path([(-0.8 * r, -0.62 * r), (-0.35 * r, -0.84 * r), (0.35 * r, -0.84 * r), (0.8 * r, -0.62 * r)])
    sketch.stroke(crust, 0.3 * r, (208, 128, 56), OUTLINE)
    sketch.stroke(crust + np.array([0, -0.05 * r]), 0.09 * r, (240, 184, 112))
    for x, y in ((-0.34, -0.26), (0.36, -0.2), (0.0, 0.3)):
        sketch.ellipse(x * r, y * r, 0.235 * r, 0.235 * r, (206, 44, 36), 0.06 * r)
    for x, y in ((0.02, -0.42), (-0.1, 0.0), (0.17, 0.62)):
        sketch.ellipse(x * r, y * r, 0.1 * r, 0.07 * r, (62, 140, 54))


def _sushi(sketch, r):
    sketch.shape(rounded(0.92 * r, 0.62 * r, 0.36 * r) + np.array([0, 0.16 * r]), (255, 253, 246), OUTLINE)
    sketch.shape(
        rounded(0.98 * r - OUTLINE / 2, 0.52 * r, 0.34 * r) + np.array([0, -0.16 * r]), (250, 118, 62), OUTLINE * 0.7
    )
    for x in (-0.62, -0.2, 0.22, 0.64):
        stripe = smooth_path([((x + 0.14) * r, -0.58 * r), (x * r, -0.2 * r), ((x + 0.1) * r, 0.24 * r)], 1)
        sketch.stroke(stripe, max(0.9, 0.1 * r), (255, 208, 178))


def _egg(sketch, r):
    white = blob(0.94 * r - OUTLINE, 0.9 * r - OUTLINE, 5, 0.07, 0.4, 40)
    sketch.shape(white, (214, 150, 70), OUTLINE * 0.8)
    sketch.shape(white * 0.9, (255, 255, 255))
    sketch.ellipse(0, 0, 0.44 * r, 0.44 * r, (255, 176, 16), 0.6)
    sketch.ellipse(-0.14 * r, -0.16 * r, 0.14 * r, 0.1 * r, (255, 240, 190), 0, -35)


def _cake(sketch, r):
    # A wedge seen from above and in front: the top, then the cut side with its layers of cream.
    left, right, tip = (np.array(at) * r for at in ((-0.94, -0.44), (0.8, -0.66), (0.26, 0.24)))
    down = np.array((0, 0.62 * r))
    sketch.shape(np.array([left, right, right + down, tip + down, left + down]), (98, 54, 34), OUTLINE)
    for top, bottom in ((0.36, 0.58), (0.8, 0.94)):
        for a, b in ((left, tip), (tip, right)):
            sketch.shape(
                np.array([a + down * top, b + down * top, b + down * bottom, a + down * bottom]), (255, 240, 222)
            )
    sketch.shape(np.array([left, right, tip]), (150, 86, 52), 0.5)
    back = np.array([left, right]) + np.array([0, 0.04 * r])
    sketch.stroke(np.linspace(*back, 5), 0.26 * r, (255, 240, 222), 0.6)
    sketch.ellipse(0.06 * r, -0.44 * r, 0.29 * r, 0.29 * r, (224, 30, 52), 0.7)
    sketch.ellipse(-0.03 * r, -0.53 * r, 0.09 * r, 0.09 * r, (255, 200, 200))


def _skewer(sketch, half_length, r):
    sketch.stroke(np.linspace((-half_length + 0.6, 0), (half_length - 0.6, 0), 3), 1.3, (240, 208, 150), 0.7)
    body = half_length * 0.84
    step = 2 * body / 5
    for i in range(5):
        x = -body + step * (i + 0.5) - 0.3
        half = step / 2 - 0.25
        if i % 2:
            colour, spot = (((78, 170, 62), (150, 214, 110)), ((236, 60, 44), (255, 150, 120)))[i // 2]
            sketch.shape(rounded(half * 0.86, r * 0.78, min(half, r) * 0.5) + np.array([x, 0]), colour, 0.8)
        else:
            colour, spot = (150, 78, 36), (206, 128, 70)
            sketch.shape(rounded(half, r - OUTLINE, min(half, r) * 0.4) + np.array([x, 0]), colour, 0.8)
        sketch.stroke(np.linspace((x - half * 0.35, -0.45 * r), (x + half * 0.2, -0.5 * r), 2), 0.26 * r, spot)


def _tomato(sketch, r):
    sketch.ellipse(0, 0, r - OUTLINE, r - OUTLINE, (232, 40, 40), OUTLINE)
    sketch.ellipse(-0.34 * r, -0.36 * r, 0.24 * r, 0.17 * r, (255, 206, 196), 0, -40)
    star = np.array(
        [
            (0.48 if k % 2 == 0 else 0.16) * r * np.array((np.cos(k * np.pi / 5), np.sin(k * np.pi / 5)))
            for k in range(10)
        ]
    )
    sketch.shape(star + np.array((0.12 * r, 0.1 * r)), (36, 122, 44))


def _tofu(sketch, r):
    # A cube seen from above and in front.
    top = np.array([(-0.86, -0.5), (0.0, -0.86), (0.86, -0.5), (0.0, -0.1)]) * r
    left = np.array([(-0.86, -0.5), (0.0, -0.1), (0.0, 0.86), (-0.86, 0.42)]) * r
    right = np.array([(0.86, -0.5), (0.86, 0.42), (0.0, 0.86), (0.0, -0.1)]) * r
    hull = np.array([(-0.86, -0.5), (0.0, -0.86), (0.86, -0.5), (0.86, 0.42), (0.0, 0.86), (-0.86, 0.42)]) * r
    sketch.shape(hull, (255, 255, 250), OUTLINE)
    sketch.shape(top, (255, 255, 250)).shape(left, (246, 232, 204)).shape(right, (222, 200, 164))


def _burger(sketch, r):
    bottom = rounded(0.86 * r, 0.2 * r, 0.18 * r) + np.array([0, 0.68 * r])
    sketch.shape(bottom, (224, 148, 66), OUTLINE)
    sketch.shape(rounded(0.9 * r, 0.17 * r, 0.15 * r) + np.array([0, 0.42 * r]), (104, 54, 32), 0.7)
    cheese = (
        np.array([(-0.9, 0.14), (0.9, 0.14), (0.9, 0.28), (0.5, 0.32), (0.3, 0.54), (0.08, 0.32), (-0.9, 0.28)]) * r
    )
    sketch.shape(cheese, (255, 206, 40))
    t = np.linspace(-0.94, 0.94, 25)
    lettuce = np.stack([t * r, (0.12 + 0.06 * np.cos(t * 20)) * r], 1)
    sketch.stroke(lettuce, 0.2 * r, (110, 196, 60), 0.6)
    dome = np.concatenate(
        [ellipse(0, 0, 0.9 * r, 0.84 * r, 0, 180, 360), ellipse(0, 0, 0.9 * r, 0.1 * r, 0, 0, 180)[1:-1]]
    )
    sketch.shape(dome, (232, 152, 62), OUTLINE)
    sketch.stroke(ellipse(0, 0, 0.66 * r, 0.62 * r, 0, 195, 235), 0.12 * r, (250, 200, 128))
    for x, y in ((-0.2, -0.56), (0.2, -0.62), (0.0, -0.32), (0.42, -0.34), (-0.4, -0.24)):
        sketch.ellipse(x * r, y * r, max(0.5, 0.085 * r), max(0.4, 0.06 * r), (255, 244, 214))


def _fish(sketch, half_length, r):
    nose, tail = -half_length + OUTLINE, half_length - OUTLINE
    h = r - OUTLINE
    back = 0.52 * tail
    sketch.shape(
        smooth([(back - 0.5, 0), (tail, -1.0 * h), (tail - 0.16 * half_length, 0), (tail, 1.0 * h)], 1),
        (70, 128, 166),
        OUTLINE,
    )
    sketch.shape(
        smooth([(-0.3 * half_length, -0.6 * h), (0.0, -1.02 * h), (0.3 * half_length, -0.6 * h)], 1),
        (70, 128, 166),
        0.7,
    )
    body = smooth(
        [
            (nose, 0),
            (nose * 0.72, -0.8 * h),
            (-0.1 * half_length, -1.0 * h),
            (0.3 * half_length, -0.7 * h),
            (back + 1.2, -0.14 * h),
            (back + 1.2, 0.14 * h),
            (0.3 * half_length, 0.72 * h),
            (-0.1 * half_length, 1.02 * h),
            (nose * 0.72, 0.82 * h),
        ],
        2,
    )
    sketch.shape(body, (134, 190, 218), OUTLINE)
    belly = smooth(
        [
            (nose * 0.9, 0.12 * h),
            (0, 0.26 * h),
            (back, 0.0),
            (0.3 * half_length, 0.6 * h),
            (-0.1 * half_length, 0.9 * h),
            (nose * 0.7, 0.72 * h),
        ],
        2,
    )
    sketch.shape(belly, (226, 240, 246))
    gill = ellipse(nose * 0.62, 0, 0.16 * half_length, 0.62 * h, 0, -80, 80)
    sketch.stroke(gill, 0.8, (48, 92, 128))
    for x in (-0.18, 0.04, 0.26):
        sketch.stroke(ellipse(x * half_length, -0.14 * h, 0.1 * half_length, 0.36 * h, 0, -75, 75), 0.8, (70, 128, 166))
    sketch.ellipse(nose * 0.76, -0.2 * h, max(0.9, 0.17 * h), max(0.9, 0.17 * h), (255, 255, 255), 0.3)
    sketch.ellipse(nose * 0.76, -0.2 * h, max(0.55, 0.09 * h), max(0.55, 0.09 * h), (20, 20, 30))


def _donut(sketch, r):
    hole = ellipse(0, 0, 0.25 * r, 0.25 * r)
    sketch.shape(ellipse(0, 0, r - OUTLINE, r - OUTLINE), (222, 152, 78), OUTLINE, [hole])
    sketch.shape(blob(0.82 * r, 0.82 * r, 9, 0.04), (246, 130, 180), 0, [ellipse(0, 0, 0.34 * r, 0.34 * r)])
    sketch.stroke(ellipse(0, 0, 0.72 * r, 0.72 * r, 0, 200, 245), 0.09 * r, (255, 214, 232))
    colours = ((255, 255, 255), (255, 226, 60), (70, 180, 230), (140, 80, 200))
    for i, turn in enumerate(np.arange(8) * 45 + 15):
        x, y = np.cos(np.radians(turn)), np.sin(np.radians(turn))
        dash = rotate([(-0.09 * r, 0), (0.09 * r, 0)], turn + 60 + 40 * (i % 3)) + 0.57 * r * np.array([x, y])
        sketch.stroke(np.linspace(*dash, 2), max(0.85, 0.095 * r), colours[i % 4])


_PIECES = {
    "noodles": _fish_cake,
    "dumplings": _dumpling,
    "pizza": _pizza,
    "sushi": _sushi,
    "egg_rice": _egg,
    "cake": _cake,
    "skewers": _skewer,
    "salad": _tomato,
    "soup": _tofu,
    "burger": _burger,
    "fish": _fish,
    "donut": _donut,
}

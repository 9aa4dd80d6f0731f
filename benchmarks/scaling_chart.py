"""The picture of `scaling.py`: images a second a chip, and milliseconds a step, over chips."""

import math
from pathlib import Path

from canvas import HEIGHT, INK, MUTED, RULE, WIDTH, Canvas

WEAK, STRONG = "#2f7672", "#b2502a"
TOP, BOTTOM = 92, 330


def draw_chart(weak: list[dict], strong: list[dict], ticks: tuple[int, ...], slice_chips: int, path: Path) -> None:
    """Writes the PNG. Of each list: results of `scaling.figures`, by chips."""
    canvas = Canvas(WIDTH, HEIGHT)
    across = lambda left: lambda chips: left + 340 * math.log(chips / ticks[0]) / math.log(ticks[-1] / ticks[0])  # noqa: E731
    series = ((WEAK, weak, "8 pictures a chip"), (STRONG, strong, "a batch of 4,096"))
    speed = lambda r: r["images_per_second_per_chip"]  # noqa: E731
    alone = lambda r: r["batch"] / (r["compute_seconds"] + r["interconnect_seconds"]) / r["chips"]  # noqa: E731
    _frame(canvas, "Images a second a chip, at most", across(52), ticks, slice_chips, (0, 100, 200, 300, 400))
    _legend(canvas, 20, [(c, label, False) for c, _, label in series] + [(MUTED, "if nothing overlaps", True)])
    for colour, rows, _ in series:
        _curve(canvas, [(across(52)(r["chips"]), _height(speed(r), 450)) for r in rows], colour)
        _curve(canvas, [(across(52)(r["chips"]), _height(alone(r), 450)) for r in rows], colour, dashed=True)
    compute, sending = (lambda r: r["compute_seconds"] * 1e3), (lambda r: r["interconnect_seconds"] * 1e3)
    _frame(canvas, "Milliseconds a step", across(466), ticks, slice_chips, (0, 10, 20, 30, 40))
    _legend(canvas, 434, [(MUTED, "compute", False), (MUTED, "links and network", True)])
    for colour, rows, _ in series:
        _curve(canvas, [(across(466)(r["chips"]), _height(compute(r), 42)) for r in rows], colour)
        _curve(canvas, [(across(466)(r["chips"]), _height(sending(r), 42)) for r in rows], colour, dashed=True)
    caption = (
        "The xl train step of stage 1 on v6e, by the compiler's figures. Right of the vertical line: slices of 16x16 "
        "chips, joined by the data-center network."
    )
    canvas.text(20, HEIGHT - 18, caption, size=11)
    canvas.save(path)


def _height(value: float, most: float) -> float:
    return BOTTOM - (BOTTOM - TOP) * value / most


def _frame(canvas: Canvas, title: str, across, ticks, slice_chips: int, levels: tuple[int, ...]) -> None:
    left, right, most = across(ticks[0]), across(ticks[-1]), {400: 450, 40: 42}[levels[-1]]
    canvas.text(left - 32, 34, title, size=17, colour=INK)
    for level in levels:
        y = _height(level, most)
        canvas.line([(left - 8, y), (right + 8, y)], RULE)
        canvas.text(left - 13, y + 4, str(level), anchor="rs")
    canvas.line([(across(slice_chips), TOP - 6), (across(slice_chips), BOTTOM)], RULE, 2)
    for chips in ticks:
        canvas.text(across(chips), BOTTOM + 20, f"{chips:,}", size=10.5, anchor="ms")
    canvas.text((left + right) / 2, BOTTOM + 40, "v6e chips", anchor="ms")


def _legend(canvas: Canvas, x: float, entries: list[tuple[str, str, bool]]) -> None:
    for colour, label, dashed in entries:
        _curve(canvas, [(x, 56), (x + 18, 56)], colour, dashed, dots=False)
        x += 24 + canvas.text(x + 24, 60, label) + 18


def _curve(canvas: Canvas, points, colour: str, dashed: bool = False, dots: bool = True) -> None:
    for (x1, y1), (x2, y2) in zip(points, points[1:]):
        count = max(round(math.hypot(x2 - x1, y2 - y1) / 6), 1) if dashed else 1
        for i in range(count):
            start, end = i / count, (i + (0.55 if dashed else 1)) / count
            at = lambda f: (x1 + f * (x2 - x1), y1 + f * (y2 - y1))  # noqa: B023, E731
            canvas.line([at(start), at(end)], colour, 1.6 if dashed else 2.5)
    for x, y in points if dots and not dashed else ():
        canvas.dot(x, y, 3, colour)

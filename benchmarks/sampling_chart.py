"""The picture of `sampling.py`: alignment against network evaluations, and against when guidance is on."""

import math
from pathlib import Path

from canvas import HEIGHT, INK, RULE, WIDTH, Canvas

METHODS = {"euler": ("#b2502a", "Euler"), "dpmpp_2m": ("#2f7672", "DPM-Solver++ 2M"), "heun": ("#5559a6", "Heun")}
GUIDED = "#96751b"
TICKS = (4, 6, 8, 12, 16, 24, 40, 80)


def draw_chart(results: dict, path: Path) -> None:
    """Writes the PNG; settings that were not measured are left out."""
    canvas = Canvas(WIDTH, HEIGHT)
    rows = results["rows"]
    steps = [r for r in rows if _guided_throughout(r["sampling"])]
    when = [r for r in rows if r["sampling"]["method"] == "euler" and r["sampling"]["steps"] == 20]
    _steps_panel(canvas, steps)
    _interval_panel(canvas, when)
    caption = (
        f"Pictures of {results['num']} held-out prompts with all eight attributes as asked, and 95% Wilson intervals; "
        f"the quickstart's model after {results['checkpoint']} of {results['train_steps']} steps."
    )
    canvas.text(20, HEIGHT - 18, caption, size=11)
    canvas.save(path)


def _guided_throughout(sampling: dict) -> bool:
    return (sampling["guidance_low"], sampling["guidance_high"]) == (0, 1) and sampling["guidance_scale"] != 1


def _steps_panel(canvas: Canvas, rows: list[dict]) -> None:
    """A line a method over a logarithmic axis of network evaluations."""
    left, right, top, bottom = 56, 396, 84, 336
    canvas.text(20, 34, "How many steps", size=17, colour=INK)
    x = 20.0
    measured = {r["sampling"]["method"] for r in rows}
    for colour, label in (METHODS[method] for method in METHODS if method in measured):
        canvas.line([(x, 54), (x + 14, 54)], colour, 2.5)
        x += 20 + canvas.text(x + 20, 58, label) + 16
    highest = _ceiling(rows)
    across = lambda n: left + 8 + math.log(n / TICKS[0]) / math.log(TICKS[-1] / TICKS[0]) * (right - left - 16)
    up = lambda share: bottom - share / highest * (bottom - top)
    for share in _shares(highest):
        canvas.line([(left, up(share)), (right, up(share))], RULE)
        canvas.text(left - 8, up(share), f"{share:.0%}", anchor="rm")
    for tick in TICKS:
        canvas.text(across(tick), bottom + 18, str(tick), anchor="ms")
    canvas.text((left + right) / 2, bottom + 36, "network evaluations for a picture, two a guided step", anchor="ms")
    # Apart by a hair, so that whiskers of the same evaluations stand side by side.
    for offset, (method, (colour, _)) in zip((-2.5, 2.5, 0), METHODS.items()):
        of_method = sorted((r for r in rows if r["sampling"]["method"] == method), key=lambda r: r["evaluations"])
        points = [(across(r["evaluations"]) + offset, up(r["all_exact"])) for r in of_method]
        for (x, _), row in zip(points, of_method):
            canvas.whisker(x, *(up(bound) for bound in row["interval"]), _pale(colour))
        if len(points) > 1:
            canvas.line(points, colour, 2)
        for x, y in points:
            canvas.dot(x, y, 3, colour)


def _interval_panel(canvas: Canvas, rows: list[dict]) -> None:
    """A row an interval: when guidance is on, the alignment, what it costs."""
    track, track_end, left, right, top = 452, 548, 574, 742, 108
    canvas.text(452, 34, "When to guide", size=17, colour=INK)
    canvas.text(452, 58, "20 Euler steps; guidance is on in the filled part of the way")
    canvas.text(track, 90, "noise")
    canvas.text(track_end, 90, "picture", anchor="rs")
    canvas.text(left, 90, "as asked")
    canvas.text(810, 90, "evaluations", anchor="rs")
    if not rows:
        return
    highest = _ceiling(rows)
    along = lambda share: left + share / highest * (right - left)
    height = (336 - top) / len(rows)
    for share in _shares(highest)[:: 2 if len(_shares(highest)) > 4 else 1]:
        canvas.line([(along(share), top - 4), (along(share), 340)], RULE)
        canvas.text(along(share), 354, f"{share:.0%}", anchor="ms")
    for number, row in enumerate(sorted(rows, key=lambda r: r["all_exact"], reverse=True)):
        y, s = top + (number + 0.5) * height, row["sampling"]
        canvas.box(track, y - 4, track_end, y + 4, RULE)
        if s["guidance_scale"] != 1:
            # The way goes from time 1, noise, to 0.
            at = lambda t: track + (1 - t) * (track_end - track)
            canvas.box(at(s["guidance_high"]), y - 4, at(s["guidance_low"]), y + 4, GUIDED)
        canvas.line([(along(bound), y) for bound in row["interval"]], _pale(METHODS["euler"][0]), 1.5)
        canvas.dot(along(row["all_exact"]), y, 3.5, METHODS["euler"][0])
        canvas.text(810, y, str(row["evaluations"]), colour=INK, anchor="rm")


def _ceiling(rows: list[dict]) -> float:
    """The top of an axis of shares: the next tenth above all intervals."""
    return min(1.0, math.ceil(10 * max((row["interval"][1] for row in rows), default=1.0)) / 10)


def _shares(highest: float) -> list[float]:
    step = 0.2 if highest > 0.5 else 0.1
    return [i * step for i in range(int(highest / step + 1e-9) + 1)]


def _pale(colour: str) -> str:
    """Half way to the paper."""
    mixed = [(int(colour[i : i + 2], 16) + int(PAPER[i : i + 2], 16)) // 2 for i in (1, 3, 5)]
    return "#" + "".join(f"{value:02x}" for value in mixed)

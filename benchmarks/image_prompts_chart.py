"""The picture of `image_prompts.py`: shares over image_scale, and pictures drawn at each scale."""

from pathlib import Path

import numpy as np
from canvas import INK, RULE, WIDTH, Canvas
from PIL import Image, ImageFont

from fooddit.data.lettering import wrap
from fooddit.evaluation.alignment import wilson

TITLE = "One picture says what the text does not"
LINES = {
    "style": ("#b2502a", "style of the reference"),
    "named_exact": ("#2f7672", "all six attributes of the text"),
    "copied": ("#5559a6", "the reference's attributes instead"),
}
LEFT, TOP, PANEL, ABOVE, SIDE, ROW = 56, 116, 330, 44, 66, 76


def draw_chart(
    results: dict[str, list[dict]], arms: dict[str, str], prompts: list[str], pictures: np.ndarray, path: Path
) -> None:
    """Writes the PNG.

    Args:
      results: rows, one a scale, by "ARM, seed N".
      arms: a panel's title by the name of its arm.
      pictures: uint8 (rows, 1 + scales, height, width, 3), the reference first; prompts: one a row.
    """
    scales = sorted({row["image_scale"] for rows in results.values() for row in rows})
    grid = TOP + 190 + 80
    canvas = Canvas(WIDTH, grid + len(prompts) * ROW + 40)
    canvas.text(20, 34, TITLE, size=17, colour=INK)
    x = 20.0
    for colour, label in LINES.values():
        canvas.line([(x, 54), (x + 14, 54)], colour, 2.5)
        x += 20 + canvas.text(x + 20, 58, label) + 16
    for number, (arm, title) in enumerate(arms.items()):
        rows = [row for key, found in results.items() if key.startswith(f"{arm}, seed ") for row in found]
        _panel(canvas, LEFT + number * (PANEL + ABOVE), title, scales, rows)
    _grid(canvas, grid, scales, prompts, pictures)
    count = next(iter(results.values()))[0]["n"]
    caption = (
        f"{count} pictures a seed, of styles never seen, and 95% Wilson intervals; the texts contradict their "
        "references in all that they name."
    )
    canvas.text(20, grid + len(prompts) * ROW + 22, caption, size=11)
    canvas.save(path)


def _panel(canvas: Canvas, left: float, title: str, scales: list[float], rows: list[dict]) -> None:
    bottom, width = TOP + 190, PANEL - 20
    across = lambda scale: left + 8 + scale / scales[-1] * (width - 16)
    up = lambda share: bottom - share * (bottom - TOP)
    canvas.text(left, TOP - 20, title, colour=INK)
    for share in (0, 0.25, 0.5, 0.75, 1):
        canvas.line([(left, up(share)), (left + width, up(share))], RULE)
        canvas.text(left - 8, up(share), f"{share:.0%}", anchor="rm")
    for scale in scales:
        canvas.text(across(scale), bottom + 18, f"{scale:g}", anchor="ms")
    canvas.text(left + width / 2, bottom + 36, "image_scale", anchor="ms")
    for offset, (name, (colour, _)) in zip((-2.5, 0, 2.5), LINES.items()):
        points = []
        for scale in scales:
            found = [row for row in rows if row["image_scale"] == scale]
            if found:
                values = [row["copied"] if name == "copied" else row["shares"][name] for row in found]
                total = sum(row["n"] for row in found)
                low, high = wilson(round(sum(v * row["n"] for v, row in zip(values, found))), total)
                x = across(scale) + offset
                canvas.whisker(x, up(low), up(high), colour)
                points.append((x, up(float(np.mean(values)))))
        if len(points) > 1:
            canvas.line(points, colour, 2)
        for x, y in points:
            canvas.dot(x, y, 3, colour)


def _grid(canvas: Canvas, top: float, scales: list[float], prompts: list[str], pictures: np.ndarray) -> None:
    columns = [WIDTH - 20 - (len(scales) + 1 - i) * (SIDE + 8) + 8 for i in range(len(scales) + 1)]
    for x, label in zip(columns, ["reference", *(f"{scale:g}" for scale in scales)]):
        # The reference stands a little apart from what was drawn.
        canvas.text(x - (6 if label == "reference" else 0), top - 8, label)
    for number, (prompt, row) in enumerate(zip(prompts, pictures, strict=True)):
        y = top + number * ROW
        for i, line in enumerate(wrap(prompt, ImageFont.load_default(11.5), columns[0] - 6 - 20 - 14)):
            canvas.text(20, y + 12 + i * 15, line, colour=INK)
        for i, (x, picture) in enumerate(zip(columns, row)):
            canvas.paste(Image.fromarray(picture), x - (6 if i == 0 else 0), y, SIDE)

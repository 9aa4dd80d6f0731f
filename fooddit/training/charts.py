"""Line charts and bars as inline SVG and HTML: no script, no fonts, colours from the page's CSS variables."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

Point = tuple[float, float]

# The size of a chart in its own units; it scales to the width it is given. Text is readable at 320 px and at 560.
_WIDTH, _HEIGHT = 440, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 8, 10, 26
_MOST_POINTS = 400


@dataclass(frozen=True)
class Series:
    """A line of (step, value) points in order; non-finite ones leave a gap. faint: raw values behind a smooth line."""

    label: str
    points: Sequence[Point]
    colour: str = "var(--series-1)"
    faint: bool = False


def line_chart(
    title: str, series: Sequence[Series], *, unit: str = "", log: bool | None = None, zero: bool = False
) -> str:
    """A figure with a legend that gives each line's last value; unit "%" shows shares (0 to 1) as per cent.

    log: a logarithmic axis; None: if the values are positive and span more than 1 to 30. zero: the axis starts there.
    Returns "" if no value is finite.
    """
    lines = [Series(s.label, _thin(s.points), s.colour, s.faint) for s in series]
    finite = [point for line in lines for point in line.points if math.isfinite(point[1])]
    if not finite:
        return ""
    values = sorted(value for _, value in finite)
    log = (values[0] > 0 and values[-1] / values[0] > 30) if log is None else log and values[0] > 0
    low, high = _limits(values, log, unit, zero)
    first, last = min(x for x, _ in finite), max(x for x, _ in finite)
    across = _scale(first, last if last > first else first + 1, _LEFT, _WIDTH - _RIGHT)
    up = _scale(*((math.log10(low), math.log10(high)) if log else (low, high)), _HEIGHT - _BOTTOM, _TOP)

    def place(point: Point) -> tuple[float, float]:
        value = min(max(point[1], low), high)
        return across(point[0]), up(math.log10(value) if log else value)

    ticks = _log_ticks(low, high) if log else _ticks(low, high, 4)
    body = [_grid_line(place((first, tick))[1], _number(tick, unit)) for tick in ticks]
    body += [_step_label(across(tick), tick) for tick in _ticks(first, last, 4)]
    body += [_path(line, place) for line in lines]
    named = [line for line in series if not line.faint]
    legend = "".join(_legend(line, unit, alone=len(named) == 1) for line in named)
    small = "<small>log scale</small>" if log else ""
    return (
        f'<figure class="chart"><figcaption><b>{html.escape(title)}</b>{small}<span class="legend">{legend}</span>'
        f'</figcaption><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{html.escape(title)}">'
        f"{''.join(body)}</svg></figure>"
    )


def bars(rows: Sequence[tuple[str, float, float | None]]) -> str:
    """Shares (0 to 1) as horizontal bars: (label, value, mark); the mark is a tick, as of chance."""
    lines = []
    for label, value, mark in rows:
        tick = "" if mark is None else f'<i style="left:{100 * mark:.2f}%" title="chance {mark:.1%}"></i>'
        lines.append(
            f'<div class="bar"><span>{html.escape(label)}</span>'
            f'<div><b style="width:{100 * min(max(value, 0), 1):.2f}%"></b>{tick}</div><em>{value:.1%}</em></div>'
        )
    return f'<div class="bars">{"".join(lines)}</div>'


def stacked_bar(parts: Sequence[tuple[str, float, str, str]]) -> str:
    """What a whole is made of, as one bar and a list: (label, share in 0 to 1, text beside it, colour)."""
    pieces = "".join(
        f'<b style="width:{100 * share:.3f}%;background:{colour}" title="{html.escape(label)} {share:.1%}"></b>'
        for label, share, _, colour in parts
    )
    rows = "".join(
        f'<li><i style="background:{colour}"></i><span>{html.escape(label)}</span><em>{html.escape(text)}</em>'
        f"<em>{share:.1%}</em></li>"
        for label, share, text, colour in parts
    )
    return f'<div class="stack">{pieces}</div><ul class="stack-parts">{rows}</ul>'


def smooth(points: Sequence[Point], share: float = 0.04) -> list[Point]:
    """Exponential average over about `share` of the points, without bias to the first; only finite ones are kept."""
    finite = [point for point in points if math.isfinite(point[1])]
    keep = 1 - 1 / max(1.0, share * len(finite))
    total = weight = 0.0
    result = []
    for step, value in finite:
        total, weight = keep * total + value, keep * weight + 1
        result.append((step, total / weight))
    return result


def _thin(points: Sequence[Point]) -> list[Point]:
    """At most _MOST_POINTS points, each the mean of its neighbours; a non-finite one stays, as a gap."""
    size = math.ceil(len(points) / _MOST_POINTS)
    groups = [points[i : i + size] for i in range(0, len(points), size)] if size > 1 else [[p] for p in points]
    return [(group[-1][0], sum(value for _, value in group) / len(group)) for group in groups]


def _limits(values: list[float], log: bool, unit: str, zero: bool) -> tuple[float, float]:
    """Range of the axis: of all values if few, else without the outermost hundredth (the first steps' peak)."""
    cut = len(values) // 100
    low, high = values[cut], values[-1 - cut]
    if log:
        return low / 1.15, high * 1.15
    if unit == "%":
        return 0.0, min(1.0, max(1.15 * high, 0.01)) if high <= 1 else high * 1.05
    if low >= 0 and (zero or low < 0.4 * high):
        low = 0.0
    room = (high - low) * 0.06 or abs(high) * 0.05 or 1.0
    return (low if low == 0 else low - room), high + room


def _scale(low: float, high: float, start: float, end: float):
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _ticks(low: float, high: float, count: int) -> list[float]:
    """Round values (1, 2, 2.5 or 5 times a power of ten) inside the range."""
    if high <= low:
        return [low]
    rough = (high - low) / count
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough * 0.999)
    return [i * step for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    few = len(decades) <= 3
    ticks = [m * 10.0**d for d in decades for m in ((1, 2, 5) if few else (1,)) if low <= m * 10.0**d <= high]
    return ticks[:: math.ceil(len(ticks) / 6)] if ticks else [low, high]


def _grid_line(y: float, label: str) -> str:
    return (
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text x="{_LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{label}</text>'
    )


def _step_label(x: float, step: float) -> str:
    anchor = "end" if x > _WIDTH - 30 else "middle"
    return f'<text x="{x:.1f}" y="{_HEIGHT - 8}" text-anchor="{anchor}">{_number(step, "")}</text>'


def _path(line: Series, place) -> str:
    commands, pen = [], "M"
    for point in line.points:
        if not math.isfinite(point[1]):
            pen = "M"
            continue
        x, y = place(point)
        commands.append(f"{pen}{x:.1f} {y:.1f}")
        pen = "L"
    kind = "faint" if line.faint else "line"
    path = f'<path class="{kind}" style="stroke:{line.colour}" d="{"".join(commands)}"/>'
    if len(line.points) > 16:
        return path
    spots = [place(point) for point in line.points if math.isfinite(point[1])]
    return path + "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" style="fill:{line.colour}"/>' for x, y in spots)


def _legend(line: Series, unit: str, alone: bool) -> str:
    last = next(value for _, value in reversed(line.points) if math.isfinite(value))
    label = "" if alone else f'<i style="background:{line.colour}"></i>{html.escape(line.label)} '
    return f"<span>{label}<b>{_number(last, unit, digits=3)}</b></span>"


def _number(value: float, unit: str, digits: int = 6) -> str:
    if unit == "%":
        return f"{100 * value:.{1 if digits == 3 else 6}f}".rstrip("0").rstrip(".") + "%"
    if value and (abs(value) < 0.0099 or abs(value) >= 1e7):
        mantissa, exponent = f"{value:.{min(digits, 3) - 1}e}".split("e")
        return f"{mantissa.rstrip('0').rstrip('.') if '.' in mantissa else mantissa}e{int(exponent)}"
    if abs(value) >= 1000:
        return f"{value:,.0f}" if abs(value) < 100_000 else f"{value / 1000:,.4g}k"
    return f"{value:.{digits}g}"

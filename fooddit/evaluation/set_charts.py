"""Estimates as rows of an HTML page: values with their intervals on one axis, tables, numbers in words."""

import html
from collections.abc import Mapping, Sequence

STYLE = """
.figures { grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); }
h3 { font: 600 15px/1.3 var(--sans); margin: 28px 0 12px; }
.figures dd.beside { font: 13px/1.4 var(--sans); color: var(--muted); white-space: normal; }
.cards { display: grid; gap: 26px 24px; }
.pairs { grid-template-columns: repeat(auto-fill, minmax(min(100%, 228px), 1fr)); }
.singles { grid-template-columns: repeat(auto-fill, minmax(min(44%, 140px), 1fr)); }
.fours { grid-template-columns: repeat(auto-fill, minmax(min(100%, 420px), 1fr)); }
.card > div { display: grid; grid-auto-flow: column; grid-auto-columns: minmax(0, 1fr); gap: 3px; }
.card img { border-radius: 0; } .card img:first-child { border-radius: 6px 0 0 6px; }
.card img:last-child { border-radius: 0 6px 6px 0; } .card img:only-child { border-radius: 6px; }
img.small { image-rendering: pixelated; }
.card figcaption { font-size: 13px; line-height: 1.45; margin-top: 8px; display: -webkit-box; overflow: hidden;
  -webkit-box-orient: vertical; -webkit-line-clamp: 3; }
.card small { display: block; color: var(--muted); font-size: 12px; margin-top: 3px; }
.wide td, .wide th { white-space: nowrap; } .wide { width: 100%; }
.wide th:not(:first-child) { text-align: right; } .wide td.text { white-space: normal; min-width: 15em; }
.wide .muted { color: var(--muted); }
.spreads { display: grid; gap: 10px; }
.spread { display: grid; grid-template-columns: 224px minmax(0, 1fr) 64px 132px; gap: 16px; align-items: center;
  font-size: 14px; }
.spread > span { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.spread > span small { color: var(--muted); margin-left: 6px; }
.spread > div { position: relative; height: 14px; border-radius: 3px; background: var(--rule); }
.spread s { position: absolute; top: 5px; height: 4px; min-width: 2px; border-radius: 2px; background: var(--series-2);
  opacity: .5; }
.spread b { position: absolute; top: 2px; width: 10px; height: 10px; margin-left: -5px; border-radius: 5px;
  background: var(--series-2); }
.spread.tail s, .spread.tail b { background: var(--series-1); }
.spread i { position: absolute; top: -3px; bottom: -3px; width: 2px; margin-left: -1px; background: var(--ink);
  opacity: .5; }
.spread em { font-style: normal; text-align: right; white-space: nowrap; }
.spread em:last-child { font-size: 13px; color: var(--muted); }
@media (max-width: 720px) {
  .figures, .pairs { grid-template-columns: repeat(2, minmax(0, 1fr)); } .cards { gap: 20px 14px; }
  .spread { grid-template-columns: 112px minmax(0, 1fr) 54px; gap: 10px; } .spread em:last-child { display: none; }
}
"""


def spreads(rows: Sequence[tuple[str, Mapping, str, bool]], *, mark: float | None = None, digits: int = 0) -> str:
    """Estimates with their intervals on one axis: (label, estimate, beside the label, in the other colour)."""
    if not rows:
        return ""
    ends = [0.0 if mark is None else mark, 0.0]
    for _, e, _, _ in rows:
        ends += [e["value"]] + [e[end] for end in ("low", "high") if e[end] is not None]
    low, high = min(ends), max(ends)
    place = lambda value: 100 * (value - low) / ((high - low) or 1)
    tick = "" if mark is None else f'<i style="left:{place(mark):.2f}%"></i>'
    lines = []
    for label, e, beside, other in rows:
        bar = ""
        if e["low"] is not None:
            width = place(e["high"]) - place(e["low"])
            bar = f'<s style="left:{place(e["low"]):.2f}%;width:{width:.2f}%"></s>'
        lines.append(
            f'<div class="spread{" tail" * other}"><span title="{html.escape(label)}">{html.escape(label)}'
            f"<small>{html.escape(beside)}</small></span><div>{tick}{bar}"
            f'<b style="left:{place(e["value"]):.2f}%"></b></div>'
            f"<em>{number(e['value'], digits)}</em><em>{interval(e, digits)}</em></div>"
        )
    return f'<div class="spreads">{"".join(lines)}</div>'


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of texts, the first column of words and the others of numbers."""
    top = "".join(f"<th>{html.escape(text)}</th>" for text in head)
    body = "".join("<tr>" + "".join(_cell(i, text) for i, text in enumerate(row)) + "</tr>" for row in rows)
    return f'<div class="scroll"><table class="wide"><tr>{top}</tr>{body}</table></div>'


def _cell(column: int, text: str) -> str:
    return (
        f'<td class="text">{html.escape(text)}</td>' if column == 0 else f'<td class="number">{html.escape(text)}</td>'
    )


def with_interval(estimate: Mapping, digits: int = 0) -> str:
    """0.12 (0.1 to 0.14)."""
    return f"{number(estimate['value'], digits)} ({interval(estimate, digits) or 'no interval'})"


def interval(estimate: Mapping, digits: int = 0) -> str:
    """Its ends, or nothing where it has none."""
    if estimate["low"] is None:
        return ""
    return f"{number(estimate['low'], digits)} to {number(estimate['high'], digits)}"


def number(value: float, digits: int = 0) -> str:
    """Three significant digits, or so many decimals."""
    if digits:
        return f"{value:.{digits}f}"
    if value and abs(value) < 0.001:
        return f"{value:.2g}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"

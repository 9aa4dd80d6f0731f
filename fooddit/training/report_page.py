"""The look of report.html: one style sheet, light and dark, laptop and phone, nothing from the network."""

import html

_STYLE = """
:root {
  --paper: #fbfaf7; --raised: #ffffff; --ink: #23201c; --muted: #766f66; --rule: #e5e0d8; --accent: #b2502a;
  --series-1: #b2502a; --series-2: #2f7672; --series-3: #96751b; --series-4: #5559a6; --series-5: #8d4770;
  --series-6: #57803a; --series-7: #3c7fb1; --series-8: #7a6a5a;
  --serif: "Iowan Old Style", "Palatino Linotype", Palatino, "Book Antiqua", Georgia, serif;
  --sans: system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Noto Sans CJK SC", "PingFang SC", sans-serif;
  --mono: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
  color-scheme: light dark;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #181614; --raised: #211f1c; --ink: #ece7df; --muted: #a0978b; --rule: #37332e; --accent: #e58a5f;
    --series-1: #e58a5f; --series-2: #63b3ad; --series-3: #d3ad4e; --series-4: #979be6; --series-5: #d68cb6;
    --series-6: #97c274; --series-7: #7cb8e6; --series-8: #b9a896;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 var(--sans);
  font-variant-numeric: tabular-nums; -webkit-text-size-adjust: 100%; }
main { max-width: 1080px; margin: 0 auto; padding: 56px 32px 80px; }
header { margin-bottom: 36px; }
h1 { font: 400 clamp(30px, 5vw, 44px)/1.15 var(--serif); margin: 0 0 8px; letter-spacing: -.01em;
  overflow-wrap: anywhere; }
h2 { font: 400 24px/1.25 var(--serif); margin: 60px 0 18px; padding-top: 18px; border-top: 1px solid var(--rule); }
header p, .note { color: var(--muted); margin: 0; max-width: 68ch; }
.note { margin: 0 0 18px; }
.figures { display: grid; grid-template-columns: repeat(4, minmax(0, 1fr)); gap: 22px 28px; margin: 0; }
.figures dt { color: var(--muted); font-size: 13px; }
.figures dd { margin: 2px 0 0; font: 400 27px/1.2 var(--serif); white-space: nowrap; }
.figures dd small { font: 14px var(--sans); color: var(--muted); }
.path { margin: 26px 0 0; font-size: 14px; color: var(--muted); }
code, pre, .config { font-family: var(--mono); font-size: 13px; }
code { overflow-wrap: anywhere; color: var(--ink); }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr)); gap: 34px 36px; }
figure { margin: 0; min-width: 0; }
.chart { display: flex; flex-direction: column; justify-content: space-between; }
.chart figcaption { display: flex; flex-wrap: wrap; align-items: baseline; gap: 2px 10px; margin-bottom: 6px;
  font-size: 14px; }
.chart figcaption > b { font-weight: 600; font-size: 15px; }
.chart small { color: var(--muted); font-size: 12px; }
.legend { display: flex; flex-wrap: wrap; gap: 0 14px; margin-left: auto; color: var(--muted); font-size: 13px; }
.legend i { display: inline-block; width: 14px; height: 3px; border-radius: 2px; margin-right: 6px;
  vertical-align: 3px; }
.legend b { font-weight: 500; color: var(--ink); }
svg { display: block; width: 100%; height: auto; overflow: visible; }
svg text { fill: var(--muted); font: 12px var(--sans); }
.grid { stroke: var(--rule); }
.line, .faint { fill: none; stroke-linejoin: round; stroke-linecap: round; stroke-width: 2; }
.faint { stroke-width: 1; opacity: .32; }
.newest { display: grid; grid-template-columns: minmax(0, 3fr) minmax(0, 2fr); gap: 28px; }
.newest.alone { grid-template-columns: minmax(0, 1fr); max-width: 640px; }
img { display: block; width: 100%; height: auto; border-radius: 6px; background: var(--raised); }
figure.sample figcaption { color: var(--muted); font-size: 13px; margin-top: 6px; }
.prompts { margin: 0; padding-left: 2.1em; font-size: 14px; overflow-y: auto;
  height: 0; min-height: max(100%, 280px); }
.prompts li { padding: 3px 0; }
.prompts li::marker { color: var(--muted); font-size: 12px; }
.strip { display: flex; gap: 16px; overflow-x: auto; padding: 22px 0 10px; scroll-snap-type: x proximity; }
.strip figure { flex: 0 0 190px; scroll-snap-align: start; }
.bars { display: grid; gap: 9px; max-width: 720px; }
.bar { display: grid; grid-template-columns: 128px minmax(0, 1fr) 58px; gap: 14px; align-items: center;
  font-size: 14px; }
.bar > span { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.bar > div { position: relative; height: 12px; border-radius: 3px; background: var(--rule); }
.bar b { display: block; height: 100%; border-radius: 3px; background: var(--series-2); }
.bar i { position: absolute; top: -3px; bottom: -3px; width: 2px; background: var(--ink); opacity: .65; }
.bar em { font-style: normal; text-align: right; }
.stack { display: flex; gap: 2px; height: 18px; max-width: 720px; border-radius: 4px; overflow: hidden; }
.stack b { display: block; min-width: 1px; }
.stack-parts { list-style: none; margin: 14px 0 0; padding: 0; max-width: 720px; font-size: 14px;
  display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 300px), 1fr)); gap: 4px 36px; }
.stack-parts li { display: grid; grid-template-columns: 12px minmax(0, 1fr) auto 58px; gap: 10px; align-items: center; }
.stack-parts i { width: 10px; height: 10px; border-radius: 2px; }
.stack-parts em { font-style: normal; text-align: right; } .stack-parts em:first-of-type { color: var(--muted); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 14px; min-width: 50%; }
th { text-align: left; font-weight: 500; color: var(--muted); }
th, td { padding: 7px 18px 7px 0; border-bottom: 1px solid var(--rule); vertical-align: middle; }
td.number { text-align: right; } td img { width: 96px; max-width: none; }
details { border-top: 1px solid var(--rule); margin-top: 60px; padding-top: 18px; }
details + details { margin-top: 20px; }
summary { font: 400 24px/1.25 var(--serif); cursor: pointer; }
summary::marker { color: var(--muted); font-size: 17px; }
details > :not(summary) { margin-top: 20px; }
.config { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 3px 24px; }
.config dt { color: var(--muted); } .config dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 720px) {
  main { padding: 30px 18px 56px; }
  h2 { margin-top: 44px; }
  .figures { grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 16px 20px; }
  .figures dd { font-size: 23px; }
  .newest { grid-template-columns: minmax(0, 1fr); }
  .prompts { height: 300px; min-height: 0; }
  .strip figure { flex-basis: 150px; }
  .bar { grid-template-columns: 104px minmax(0, 1fr) 52px; gap: 10px; }
  .config { grid-template-columns: minmax(0, 1fr); gap: 0; } .config dd { margin-bottom: 7px; }
}
@media print { details > :not(summary) { display: revert; } h2, figure { break-inside: avoid; } }
"""


def page(title: str, subtitle: str, sections: list[str], style: str = "") -> str:
    """A whole HTML document around sections that are HTML already; title and subtitle are text, `style` more CSS."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}{style}</style></head><body><main>"
        f"<header><h1>{html.escape(title)}</h1><p>{html.escape(subtitle)}</p></header>\n"
        + "\n".join(filter(None, sections))
        + "\n</main></body></html>\n"
    )

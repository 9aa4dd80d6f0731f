"""report.html: what a run did, on one page that needs nothing but itself."""

import base64
import html
import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from fooddit.training.charts import Point, Series, bars, line_chart, smooth, stacked_bar
from fooddit.training.goodput import LEDGER_FILE, read_goodput
from fooddit.training.metrics import METRICS_FILE, SAMPLES, read_metrics
from fooddit.training.report_page import page

# As many grids as show how it went without a page of tens of megabytes.
_MOST_GRIDS = 10
_COLOURS = [f"var(--series-{i})" for i in range(1, 9)]
_COOL_TO_WARM = [f"var(--series-{i})" for i in (7, 2, 6, 3, 1)]
# Names with a chart of their own: (title, how it is drawn).
_CHARTS: dict[str, tuple[str, dict[str, Any]]] = {
    "train/grad_norm": ("Gradient norm", {}),
    "train/learning_rate": ("Learning rate", {"log": False}),
    "train/images_per_second": ("Images per second", {"log": False, "zero": True}),
    "train/data_wait": ("Time spent waiting for data", {"log": False, "unit": "%"}),
    "train/utilization": ("Share of the peak arithmetic used", {"log": False, "unit": "%"}),
}
# Of the ledger: what each kind of time is called, and its colour; greys are for what nobody wants.
_TIMES = {
    "step": ("Steps", "var(--series-2)"),
    "data_wait": ("Waiting for data", "var(--series-3)"),
    "evaluate": ("Evaluation", "var(--series-7)"),
    "save": ("Saving", "var(--series-4)"),
    "restore": ("Restoring", "var(--series-5)"),
    "compile": ("Compiling", "var(--series-1)"),
    "init": ("Starting", "var(--series-8)"),
    "redone": ("Steps redone", "var(--muted)"),
    "idle": ("Between processes", "var(--rule)"),
}
# Smooth already.
_EXACT = ("train/learning_rate",)


def write_report(workdir: str | os.PathLike) -> Path:
    """Writes WORKDIR/report.html from metrics.jsonl and, where they are there, config.json, summary.json, goodput.jsonl
    and samples/.

    Of summary.json it shows the numbers, `alignment` (per_attribute, chance, ...) and `nearest_training`: a list of
    rows, whose values may name pictures in the workdir. Raises FileNotFoundError without metrics.
    """
    workdir = Path(workdir).absolute()
    if not (workdir / METRICS_FILE).exists():
        raise FileNotFoundError(f"{workdir / METRICS_FILE}: not found, expected the metrics of a run; is it a workdir?")
    records = read_metrics(workdir / METRICS_FILE)
    config, summary = _load(workdir / "config.json"), _load(workdir / "summary.json")
    curves = _curves(records)
    sections = [
        _figures(workdir, records, curves, summary),
        _samples(workdir),
        _alignment(summary.get("alignment")),
        _charts(curves),
        _table(workdir, "Nearest training pictures", summary.get("nearest_training")),
        _goodput(workdir),
        _others(curves),
        _config(config),
    ]
    path, temporary = workdir / "report.html", workdir / "report.html.tmp"
    temporary.write_text(page(workdir.name, _subtitle(records, config), sections), encoding="utf-8")
    os.replace(temporary, path)
    return path


def _curves(records: Sequence[Mapping[str, Any]]) -> dict[str, list[Point]]:
    """Points by name in order of steps; of a step that was reported twice the later value."""
    values: dict[str, dict[int, float]] = {}
    for record in records:
        for name, value in record.items():
            if name not in ("step", "time"):
                values.setdefault(name, {})[record["step"]] = value
    return {name: sorted(points.items()) for name, points in values.items()}


def _subtitle(records: Sequence[Mapping[str, Any]], config: Mapping[str, Any]) -> str:
    parts = [f"task {config['task']}"] if isinstance(config.get("task"), str) and config["task"] else []
    if records:
        start, end = (time.strftime("%d %B %Y, %H:%M", time.localtime(records[i]["time"])) for i in (0, -1))
        parts.append(start if start == end else f"{start} to {end if end[:-7] != start[:-7] else end[-5:]}")
    return " · ".join(parts) or "no metrics yet"


def _figures(workdir: Path, records, curves: Mapping[str, list[Point]], summary: Mapping[str, Any]) -> str:
    seconds = summary.get("seconds") or (records[-1]["time"] - records[0]["time"] if records else 0)
    rates = _finite(curves.get("train/images_per_second", ()))
    waits = _finite(curves.get("train/data_wait", ()))
    losses = smooth(curves.get("train/loss", ()))
    alignment = summary.get("alignment") or {}
    figures = {
        "Steps": f"{summary.get('steps') or (records[-1]['step'] if records else 0):,}",
        "Final loss": f"{losses[-1][1]:.4f}" if losses else None,
        "Prompts met exactly": f"{alignment['all_exact']:.1%}" if "all_exact" in alignment else None,
        "Time": _duration(seconds),
        "Images per second": f"{summary.get('images_per_second') or median(rates):,.0f}" if rates else None,
        "Waiting for data": f"{sum(waits) / len(waits):.1%}" if waits else None,
        "Parameters": _count(summary["parameters"]) if "parameters" in summary else None,
    }
    skipped = sum(_finite(curves.get("train/skipped", ())))
    if skipped:
        figures["Non-finite steps"] = f"{skipped:.0f}"
    cells = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in figures.items() if value)
    checkpoint = summary.get("checkpoint") or _newest_checkpoint(workdir)
    where = f'<p class="path">Checkpoint <code>{html.escape(str(checkpoint))}</code></p>' if checkpoint else ""
    return f'<dl class="figures">{cells}</dl>{where}'


def _samples(workdir: Path) -> str:
    grids = sorted((workdir / SAMPLES).glob("step_*.png"), key=lambda path: int(path.stem.removeprefix("step_")))
    if not grids:
        return ""
    spread = sorted({round(i * (len(grids) - 1) / (_MOST_GRIDS - 1)) for i in range(_MOST_GRIDS)})
    *earlier, newest = [grids[i] for i in spread] if len(grids) > _MOST_GRIDS else grids
    about = _load(newest.with_suffix(".json"))
    prompts = "".join(f"<li>{html.escape(str(prompt))}</li>" for prompt in about.get("prompts", ()))
    listed = f'<ol class="prompts">{prompts}</ol>' if prompts else ""
    alone = "" if prompts else " alone"
    strip = f'<div class="strip">{"".join(map(_sample, earlier))}</div>' if earlier else ""
    note = "From the averaged weights; prompts in reading order." if prompts else "From the averaged weights."
    return (
        f'<h2>Samples</h2><p class="note">{note}</p><div class="newest{alone}">{_sample(newest)}{listed}</div>{strip}'
    )


def _sample(path: Path) -> str:
    step = int(path.stem.removeprefix("step_"))
    return f'<figure class="sample">{_picture(path)}<figcaption>step {step:,}</figcaption></figure>'


def _alignment(alignment: Mapping[str, Any] | None) -> str:
    if not alignment:
        return ""
    by_attribute = alignment.get("chance_per_attribute", {})
    rows = [(_words(k), v, by_attribute.get(k)) for k, v in alignment.get("per_attribute", {}).items()]
    if "all_exact" in alignment:
        rows.append(("all of them", alignment["all_exact"], alignment.get("chance")))
    beside = {
        "shuffled_all_exact": "with the prompts shuffled {:.1%} are exact",
        "oracle_all_exact": "the reader itself reads {:.1%} of real pictures exactly",
    }
    facts = [text.format(alignment[key]) for key, text in beside.items() if key in alignment]
    pictures = f"{alignment['n']:,} pictures" if "n" in alignment else "Pictures"
    about = "; ".join([f"{pictures} of held-out prompts, read back from their pixels", *facts])
    marks = " The tick is chance." if any(mark is not None for _, _, mark in rows) else ""
    return f'<h2>Does it follow the prompt?</h2><p class="note">{about}.{marks}</p>{bars(rows)}'


def _charts(curves: Mapping[str, list[Point]]) -> str:
    charts = []
    if "train/loss" in curves:
        charts.append(_smoothed("Training loss", curves["train/loss"]))
    validation = [name for name in curves if name.startswith("val/loss")]
    if validation:
        charts.append(line_chart("Validation loss by timestep", _validation(curves, validation), log=False))
    # The attributes one by one are among the other metrics: their lines would be more than there are colours.
    aligned = [name for name in curves if _is_alignment(name)]
    if aligned:
        lines = [Series(_words(n[6:]), curves[n], _COLOURS[i % len(_COLOURS)]) for i, n in enumerate(aligned)]
        charts.append(line_chart("Prompt alignment", lines, unit="%"))
    for name, (title, options) in _CHARTS.items():
        if name in curves:
            draw = _plain if name in _EXACT else _smoothed
            charts.append(draw(title, curves[name], **options))
    return f'<h2>Curves</h2><div class="charts">{"".join(charts)}</div>' if any(charts) else ""


def _is_alignment(name: str) -> bool:
    return name.startswith("align/") and name.endswith("all_exact")


def _validation(curves: Mapping[str, list[Point]], names: list[str]) -> list[Series]:
    """The mean in ink, the bins from cool (little noise) to warm (nearly all noise)."""
    bins = sorted(name for name in names if name.startswith("val/loss_t"))
    lines = []
    for name in bins:
        low, high = name.removeprefix("val/loss_t").split("-")
        colour = _COOL_TO_WARM[round(float(low) * (len(_COOL_TO_WARM) - 1))]
        lines.append(Series(f"t {low}–{high}", curves[name], colour))
    return lines + ([Series("all", curves["val/loss"], "var(--ink)")] if "val/loss" in curves else [])


def _smoothed(title: str, points: list[Point], **options: Any) -> str:
    return line_chart(title, [Series("raw", points, faint=True), Series(title, smooth(points))], **options)


def _plain(title: str, points: list[Point], **options: Any) -> str:
    return line_chart(title, [Series(title, points)], **options)


def _goodput(workdir: Path) -> str:
    """Where the time went since the first start, useful steps first."""
    goodput = read_goodput(workdir / LEDGER_FILE)
    if goodput is None:
        return ""
    parts = [
        (title, goodput.seconds[name] / goodput.total, _duration(goodput.seconds[name]), colour)
        for name, (title, colour) in _TIMES.items()
        if goodput.seconds[name] >= 0.0005 * goodput.total
    ]
    starts = "one start" if goodput.starts == 1 else f"{goodput.starts} starts"
    lost = " Redone are steps that a restart from an older checkpoint took again." if goodput.seconds["redone"] else ""
    return (
        f'<h2>Goodput {goodput.share:.1%}</h2><p class="note">The share of {_duration(goodput.total)} since the first '
        f"start that went into steps of the result; {starts}.{lost}</p>{stacked_bar(parts)}"
    )


def _others(curves: Mapping[str, list[Point]]) -> str:
    """Whatever else the task reported."""
    known = {"train/loss", "train/skipped", *_CHARTS}
    shown = lambda name: name in known or name.startswith("val/loss") or _is_alignment(name)
    names = [name for name in curves if not shown(name)]
    charts = "".join(_plain(name, curves[name], log=False) for name in sorted(names) if len(curves[name]) > 1)
    return f'<details><summary>Other metrics</summary><div class="charts">{charts}</div></details>' if charts else ""


def _table(workdir: Path, title: str, rows: Sequence[Mapping[str, Any]] | None) -> str:
    if not rows:
        return ""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    head = "".join(f"<th>{html.escape(_words(column))}</th>" for column in columns)
    body = "".join("<tr>" + "".join(_cell(workdir, row.get(c, "")) for c in columns) + "</tr>" for row in rows)
    return f'<h2>{html.escape(title)}</h2><div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def _cell(workdir: Path, value: Any) -> str:
    if isinstance(value, float):
        return f'<td class="number">{value:.4g}</td>'
    if isinstance(value, str) and value.endswith((".png", ".jpg")) and (workdir / value).is_file():
        return f"<td>{_picture(workdir / value)}</td>"
    return f"<td>{html.escape(str(value))}</td>"


def _config(config: Mapping[str, Any]) -> str:
    if not config:
        return ""
    rows = "".join(f"<dt>{html.escape(k)}</dt><dd>{html.escape(v)}</dd>" for k, v in _flat(config))
    return f'<details><summary>Config</summary><dl class="config">{rows}</dl></details>'


def _flat(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows = []
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            rows += _flat(value, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", json.dumps(value, ensure_ascii=False)))
    return rows


def _picture(path: Path) -> str:
    kind = "jpeg" if path.suffix == ".jpg" else "png"
    content = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="{html.escape(path.stem)}" src="data:image/{kind};base64,{content}">'


def _load(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _newest_checkpoint(workdir: Path) -> Path | None:
    from fooddit.training.checkpoint_layout import FOLDER, list_steps

    steps = list_steps(workdir / FOLDER)
    return workdir / FOLDER / str(steps[-1]) if steps else None


def _finite(points: Sequence[Point]) -> list[float]:
    return [value for _, value in points if math.isfinite(value)]


def _words(name: str) -> str:
    return name.replace("_", " ")


def _count(number: float) -> str:
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.0f}"


def _duration(seconds: float) -> str:
    hours, minutes, rest = int(seconds // 3600), int(seconds // 60 % 60), int(seconds % 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"

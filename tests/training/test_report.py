import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from fooddit.training.charts import Series, bars, line_chart, smooth
from fooddit.training.metrics import MetricWriter
from fooddit.training.report import write_report

VOID = {"meta", "img", "line", "path", "circle"}

# Times that no example of the hold-out fell into (here the lowest) are not there.
BINS = {f"val/loss_t{i / 5:.1f}-{(i + 1) / 5:.1f}": 0.1 * i for i in range(1, 5)}


class _Page(HTMLParser):
    """Text, attributes, and whether every tag is closed."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.links, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.links += [value for name, value in attributes if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data + " "


def _run(workdir: Path, steps: int = 200) -> Path:
    writer = MetricWriter(workdir)
    for step in range(10, steps + 1, 10):
        loss = math.nan if step == 100 else 1 / step
        writer.scalars(step, {"train/loss": loss, "train/data_wait": 0.01, "train/images_per_second": 640.0})
        writer.scalars(step, {"train/grad_norm": 1.0, "train/learning_rate": 1e-3, "train/odd_number": step})
        if step % 100 == 0:
            writer.scalars(step, {"val/loss": 0.5, **BINS, "align/kind": 0.9, "align/all_exact": 0.8})
            grid = np.full((8, 8, 3), step % 256, np.uint8)
            writer.image(step, "samples", grid, prompts=["<b>ramen</b>", "一碗拉面"])
    writer.close()
    config = {"task": "denoise", "data": {"source": "scenes:<20>"}}
    (workdir / "config.json").write_text(json.dumps(config))
    return workdir


def _page(workdir: Path) -> _Page:
    page = _Page(write_report(workdir).read_text(encoding="utf-8"))
    assert not page.open
    return page


def test_a_whole_run_is_on_one_page(tmp_path):
    summary = {
        "seconds": 512.3,
        "steps": 200,
        "parameters": 1_234_567,
        "images_per_second": 843.2,
        "checkpoint": "runs/x/checkpoints/200",
        "alignment": {
            "all_exact": 0.873,
            "per_attribute": {"vessel_shape": 0.95},
            "chance": 0.001,
            "chance_per_attribute": {"vessel_shape": 0.2},
        },
        "nearest_training": [{"picture": "samples/step_000200.png", "distance": 0.1234}],
    }
    _run(tmp_path)
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    page = _page(tmp_path)
    for text in ("8 min 32 s", "843", "1.23 M", "runs/x/checkpoints/200", "87.3%", "vessel shape", "0.1234"):
        assert text in page.text, text
    for text in ("Training loss", "Validation loss by timestep", "t 0.8–1.0", "Gradient norm", "Learning rate"):
        assert text in page.text, text
    assert "t 0.2–0.4" in page.text and "t 0.0–0.2" not in page.text
    for text in (
        "Prompt alignment",
        "align/kind",
        "train/odd_number",
        "<b>ramen</b>",
        "一碗拉面",
        "data.source",
        "scenes:<20>",
    ):
        assert text in page.text, text
    assert page.text.count("step 200") == 1 and page.text.count("step 100") == 1


def test_it_needs_nothing_but_itself(tmp_path):
    page = _page(_run(tmp_path))
    assert page.links and all(link.startswith("data:image/png;base64,") for link in page.links)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "http" not in text and "url(" not in text and "<script" not in text


def test_a_run_that_only_began_has_a_page(tmp_path):
    writer = MetricWriter(tmp_path)
    writer.close()
    assert "no metrics yet" in _page(tmp_path).text
    writer = MetricWriter(tmp_path)
    writer.scalars(1, {"train/loss": math.nan})
    writer.close()
    assert "Training loss" not in _page(tmp_path).text


def test_a_folder_that_is_no_workdir_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="metrics.jsonl: not found"):
        write_report(tmp_path)


def test_of_many_grids_some_are_shown_and_always_the_newest(tmp_path):
    writer = MetricWriter(tmp_path)
    for step in range(0, 3100, 100):
        writer.image(step, "samples", np.zeros((2, 2, 3), np.uint8))
    writer.close()
    shown = re.findall(r"step ([\d,]+)", _page(tmp_path).text)
    assert len(shown) == 10 and shown[0] == "3,000" and shown[1] == "0"


def test_a_value_reported_twice_counts_once(tmp_path):
    writer = MetricWriter(tmp_path)
    for value in (9.0, 0.125):
        writer.scalars(10, {"train/loss": value})
    writer.close()
    assert "0.1250" in _page(tmp_path).text


def _points(chart: str, kind: str = "line") -> list[tuple[float, float]]:
    path = re.search(rf'<path class="{kind}"[^>]* d="([^"]*)"', chart).group(1)
    return [(float(x), float(y)) for x, y in re.findall(r"[ML]([\d.]+) ([\d.]+)", path)]


def test_a_line_lies_where_its_values_are():
    points = _points(line_chart("x", [Series("x", [(0, 0.0), (50, 5.0), (100, 10.0)])], log=False))
    (x0, y0), (x1, y1), (x2, y2) = points
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2) and y0 - y1 == pytest.approx(y1 - y2, abs=0.2)
    assert x0 < x2 and y0 > y2


def test_a_logarithmic_axis_makes_a_power_law_straight():
    chart = line_chart("x", [Series("x", [(i, 10.0**-i) for i in range(5)])])
    heights = [y for _, y in _points(chart)]
    assert "log scale" in chart
    assert np.diff(heights) == pytest.approx([np.diff(heights)[0]] * 4, abs=0.2)


def test_a_value_that_is_not_finite_leaves_a_gap():
    chart = line_chart("x", [Series("x", [(0, 1.0), (1, 2.0), (2, math.nan), (3, 1.5), (4, 1.0)])])
    assert re.search(r'd="M[^M]*L[^M]*M[^M]*L[^M]*"', chart) and "nan" not in chart
    assert line_chart("x", [Series("x", [(0, math.nan)])]) == ""


def test_a_constant_and_a_single_point_can_be_drawn():
    assert len(_points(line_chart("x", [Series("x", [(0, 3.0), (1, 3.0)])]))) == 2
    assert len(_points(line_chart("x", [Series("x", [(7, 0.0)])]))) == 1


def test_long_curves_are_thinned_to_their_means():
    points = _points(line_chart("x", [Series("x", [(i, float(i % 2)) for i in range(10_000)])], log=False))
    assert len(points) <= 400 and len({y for _, y in points}) <= 2


def test_smoothing_keeps_a_constant_and_quietens_noise():
    assert smooth([(i, 2.0) for i in range(100)]) == [(i, pytest.approx(2.0)) for i in range(100)]
    noise = [(i, float(i % 2)) for i in range(1000)]
    assert all(abs(value - 0.5) < 0.05 for _, value in smooth(noise)[200:])


def test_bars_show_value_and_chance():
    chart = bars([("kind", 0.9, 0.25)])
    assert "width:90.00%" in chart and "left:25.00%" in chart and "90.0%" in chart

import json
import threading
import time

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from fooddit.training.metrics import METRICS_FILE, MetricWriter, read_metrics


class _Recorder:
    def __init__(self):
        self.values, self.closed = [], False

    def scalars(self, step, values, seconds):
        self.values.append((step, dict(values)))

    def image(self, step, name, image):
        self.values.append((step, name))

    def close(self):
        self.closed = True


class _Broken(_Recorder):
    def scalars(self, step, values, seconds):
        raise OSError("no space left on device")


def _lines(workdir) -> list[dict]:
    return [json.loads(line) for line in (workdir / METRICS_FILE).read_text().splitlines()]


def test_numbers_and_arrays_become_lines(tmp_path):
    writer = MetricWriter(tmp_path)
    writer.scalars(1, {"train/loss": jnp.float32(0.5), "train/data_wait": 0.25})
    writer.scalars(2, {"train/loss": np.float32(0.25)})
    writer.close()
    first, second = _lines(tmp_path)
    assert abs(first.pop("time") - time.time()) < 60
    assert first == {"step": 1, "train/loss": 0.5, "train/data_wait": 0.25}
    assert second["step"] == 2 and second["train/loss"] == 0.25
    assert list((tmp_path / "tensorboard").glob("events.*"))


def test_values_that_json_does_not_know_survive(tmp_path):
    writer = MetricWriter(tmp_path)
    writer.scalars(1, {"a": float("nan"), "b": jnp.inf, "c": -np.inf})
    writer.close()

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    line = json.loads((tmp_path / METRICS_FILE).read_text(), parse_constant=refuse)
    assert (line["a"], line["b"], line["c"]) == ("NaN", "Infinity", "-Infinity")
    (record,) = read_metrics(tmp_path / METRICS_FILE)
    assert np.isnan(record["a"]) and record["b"] == np.inf and record["c"] == -np.inf


def test_a_resumed_run_drops_what_it_takes_again(tmp_path):
    writer = MetricWriter(tmp_path)
    for step in (10, 20, 30):
        writer.scalars(step, {"loss": step})
    writer.close()
    with (tmp_path / METRICS_FILE).open("a") as file:
        file.write('{"step": 40, "lo')  # killed in the middle of a line
    said = []
    writer = MetricWriter(tmp_path, resume_step=20, log=said.append)
    writer.scalars(30, {"loss": 31})
    writer.close()
    assert [(line["step"], line["loss"]) for line in _lines(tmp_path)] == [(10, 10), (20, 20), (30, 31)]
    assert len(said) == 1 and "1 unreadable lines left out" in said[0]


def test_a_new_run_starts_an_empty_file(tmp_path):
    for _ in range(2):
        writer = MetricWriter(tmp_path, resume_step=0)
        writer.scalars(0, {"val/loss": 1.0})
        writer.close()
    assert len(_lines(tmp_path)) == 1


def test_writing_does_not_wait_for_a_slow_sink(tmp_path):
    release = threading.Event()

    class Slow(_Recorder):
        def scalars(self, step, values, seconds):
            release.wait(10)
            super().scalars(step, values, seconds)

    sink = Slow()
    writer = MetricWriter(tmp_path, sinks=[sink])
    start = time.perf_counter()
    for step in range(100):
        writer.scalars(step, {"loss": step})
    assert time.perf_counter() - start < 1 and not sink.values
    release.set()
    writer.close()
    assert [step for step, _ in sink.values] == list(range(100)) and sink.closed


def test_a_failing_sink_is_reported_once_and_the_others_go_on(tmp_path):
    said, sink = [], _Recorder()
    writer = MetricWriter(tmp_path, sinks=[_Broken(), sink], log=said.append)
    for step in range(3):
        writer.scalars(step, {"loss": 1.0})
    writer.close()
    assert len(sink.values) == 3
    assert said == [
        "metrics: _Broken failed, values are missing there (OSError: no space left on device)",
        "metrics: 3 writes to _Broken failed in all",
    ]


def test_a_value_that_is_no_number_is_reported(tmp_path):
    said = []
    writer = MetricWriter(tmp_path, log=said.append)
    writer.scalars(1, {"loss": jnp.ones(3)})
    writer.scalars(2, {"loss": 1.0})
    writer.close()
    assert "loss: found shape (3,), expected one number" in said[0]
    assert [line["step"] for line in _lines(tmp_path)] == [2]


def test_sample_grids_lie_in_the_workdir(tmp_path):
    grid = np.random.default_rng(0).integers(0, 256, (8, 16, 3)).astype(np.uint8)
    writer = MetricWriter(tmp_path)
    writer.image(20, "samples", grid, prompts=["a bowl of ramen", "一碗拉面"])
    writer.close()
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "samples/step_000020.png")), grid)
    about = json.loads((tmp_path / "samples/step_000020.json").read_text(encoding="utf-8"))
    assert about == {"step": 20, "name": "samples", "prompts": ["a bowl of ramen", "一碗拉面"]}


def test_pictures_that_are_not_uint8_are_refused_at_once(tmp_path):
    writer = MetricWriter(tmp_path)
    with pytest.raises(ValueError, match=r"samples: found float32\[4, 4, 3\], expected uint8"):
        writer.image(1, "samples", np.zeros((4, 4, 3), np.float32))
    writer.close()


def test_a_line_in_the_middle_that_is_no_json_is_named(tmp_path):
    path = tmp_path / METRICS_FILE
    path.write_text('{"step": 1}\nrubbish\n{"step": 2}\n')
    with pytest.raises(ValueError, match="line 2: found 'rubbish'"):
        read_metrics(path)

import io

import pytest

from fooddit.training.progress import DATA_WAIT_PATIENCE, Progress
from fooddit.training.throughput import Peak, peak_flops, utilization


class _Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _progress(stream=None, **arguments) -> tuple[Progress, io.StringIO, _Clock]:
    stream, clock = io.StringIO() if stream is None else stream, _Clock()
    return Progress(100, stream=stream, clock=clock, **arguments), stream, clock


def _values(**values: float) -> dict:
    return {f"train/{name}": value for name, value in values.items()}


def test_plain_lines_come_at_an_interval():
    progress, stream, clock = _progress(interval=10, label="MFU")
    for step in range(1, 31):
        clock.now = float(step)
        progress.update(step, _values(loss=1 / step, images_per_second=128, data_wait=0.01, utilization=0.415))
    lines = stream.getvalue().splitlines()
    assert [line.split()[0] for line in lines] == ["step=1/100", "step=11/100", "step=21/100"]
    assert lines[1] == "step=11/100 loss=0.090909 images_per_second=128 data_wait=0.010 mfu=0.415 eta_seconds=89"


def test_the_last_step_is_always_shown():
    progress, stream, _ = _progress(interval=1000)
    progress.update(1, {})
    progress.update(2, {})
    progress.update(100, _values(loss=0.5))
    assert stream.getvalue().splitlines()[-1].startswith("step=100/100 loss=0.5")


def test_a_terminal_sees_one_line_redrawn(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    progress, stream, clock = _progress(_Terminal(), label="% of CPU peak")
    for step in (25, 50):
        clock.now += 5
        progress.update(step, _values(loss=0.25, images_per_second=512.4, data_wait=0.012, utilization=0.41, other=3))
    progress.message("saved")
    progress.close()
    text = stream.getvalue()
    assert text.count("\n") == 2 and "saved\n" in text
    last = "━━━━━━╌╌╌╌╌╌ 50/100 · loss 0.25 · 512 img/s · wait 1.2% · 41% of CPU peak · ETA 0:10"
    assert text.endswith(last + "\n")


def test_a_narrow_terminal_gets_a_line_that_fits(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    progress, stream, _ = _progress(_Terminal())
    progress.update(25, _values(loss=0.25, images_per_second=512.4, data_wait=0.012, utilization=0.41))
    assert len(stream.getvalue().removeprefix("\r\x1b[2K")) == 39


def test_the_eta_forgets_the_compilation():
    progress, _, clock = _progress()
    assert progress.eta(0) is None
    clock.now = 60.0  # the first stretch holds the compilation
    progress.update(10, {})
    clock.now = 61.0
    progress.update(20, {})
    assert progress.eta(20) == pytest.approx(8.0)


def test_a_resumed_run_counts_from_where_it_starts():
    progress, _, clock = _progress(start=80)
    clock.now = 10.0
    progress.update(90, {})
    assert progress.eta(90) == pytest.approx(10.0)


def test_waiting_for_data_is_warned_of_once_and_only_if_it_lasts():
    progress, stream, clock = _progress(interval=1e9)
    for second in range(int(3 * DATA_WAIT_PATIENCE)):
        clock.now = float(second)
        progress.update(second % 99, _values(data_wait=0.01 if second == 30 else 0.2))
        if second == 30 + DATA_WAIT_PATIENCE:
            assert "warning" not in stream.getvalue()
    assert stream.getvalue().count("warning: 20% of the time goes to waiting for data") == 1


def test_other_processes_print_nothing():
    progress, stream, _ = _progress(enabled=False)
    progress.update(100, _values(loss=1.0, data_wait=1.0))
    progress.message("x")
    progress.close()
    assert stream.getvalue() == ""


class _Device:
    def __init__(self, kind: str, platform: str = "tpu"):
        self.device_kind, self.platform, self.process_index = kind, platform, 0


@pytest.mark.parametrize(
    "kind, flops",
    [("TPU v4", 275e12), ("TPU v5", 459e12), ("TPU v5 lite", 197e12), ("TPU v6 lite", 918e12), ("TPU7x", 1153.5e12)]
    + [("NVIDIA H100 80GB HBM3", 989e12), ("NVIDIA H100 PCIe", 756e12), ("NVIDIA A100-SXM4-80GB", 312e12)],
)
def test_peaks_of_known_devices(kind, flops):
    assert peak_flops([_Device(kind)] * 4) == Peak(4 * flops, "MFU")


def test_the_cpu_is_measured_and_counts_once():
    one = peak_flops()
    assert one.label == "% of CPU peak" and 1e9 < one.flops < 1e14
    assert peak_flops() == one


def test_utilization_is_a_share_of_the_peak():
    assert utilization(50.0, 0.5, Peak(200.0, "MFU")) == 0.5

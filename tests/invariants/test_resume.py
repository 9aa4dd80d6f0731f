"""Invariant 1: a resumed run equals the uninterrupted one, bit for bit: stage 2's, which has all that stage 1 has, and
references, frozen towers and what is dropped by example besides."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from fooddit.training.checkpoint import Checkpointer, load_parameters, parameters_hash
from fooddit.training.metrics import read_metrics

ROOT = Path(__file__).resolve().parents[2]
STEPS = 12


def command(workdir, records):
    return [
        sys.executable,
        str(ROOT / "main.py"),
        f"--config={ROOT / 'configs/stage2.py'}:tiny",
        f"--workdir={workdir}",
        f"--config.data.source={records}",
        f"--config.train.steps={STEPS}",
        "--config.checkpoint.every=3",
        "--config.train.log_every=1",
        "--config.evaluation.samples=0",
        "--config.evaluation.alignment=0",
        "--config.evaluation.distance=0",
    ]


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    from fooddit.data.prepare import prepare

    folder = tmp_path_factory.mktemp("records") / "styles"
    prepare("styles:32", folder, size=64, progress=False)
    return folder


def test_kill_9_in_the_middle_then_the_same_command_gives_the_same_bits(tmp_path, records):
    environment = {**os.environ, "XLA_FLAGS": "", "PYTHONPATH": str(ROOT)}
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    subprocess.run(command(straight, records), check=True, env=environment, capture_output=True)

    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command(killed, records), env=environment, stdout=log, stderr=log)
        wait_for_step(killed / "metrics.jsonl", 7, process)
        process.send_signal(signal.SIGKILL)
        process.wait()
    left = Checkpointer(killed / "checkpoints").steps()
    assert left and left[-1] in (3, 6, 9), left
    subprocess.run(command(killed, records), check=True, env=environment, capture_output=True)

    assert parameters_hash(killed, STEPS) == parameters_hash(straight, STEPS)
    for averaged in (True, False):
        a, about = load_parameters(killed, ema=averaged)
        b, other = load_parameters(straight, ema=averaged)
        compare(a, b)
        assert about["data"] == other["data"]
    # Losses are of the same batches with the same noise, from the first step to the last.
    losses = [
        {line["step"]: line["train/loss"] for line in read_metrics(folder / "metrics.jsonl") if "train/loss" in line}
        for folder in (killed, straight)
    ]
    assert losses[0] == losses[1] and sorted(losses[0]) == list(range(1, STEPS + 1))


def wait_for_step(path: Path, step: int, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        if path.exists() and any(line["step"] >= step for line in read_metrics(path)):
            return
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.01)
    raise AssertionError(f"no step {step} within four minutes")


def compare(a, b) -> None:
    assert a.keys() == b.keys()
    for name in a:
        if isinstance(a[name], dict):
            compare(a[name], b[name])
        else:
            np.testing.assert_array_equal(a[name], b[name])

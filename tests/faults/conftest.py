"""Runs that fail on purpose, beside one that does not."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from fooddit.training.checkpoint import load_parameters, parameters_hash, verify
from fooddit.training.metrics import read_metrics
from tests.conftest import FLAGS

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
STEPS, EVERY = 12, 3


@dataclass(frozen=True)
class Trainer:
    """Starts short runs on the same records; `straight` is one that nothing disturbed."""

    folder: Path
    records: Path
    xla_flags: str

    @property
    def straight(self) -> Path:
        return self.folder / "straight"

    def run(
        self, workdir: Path, *flags: str, prefix: tuple[str, ...] = (), about: Path | None = None, **scenario
    ) -> subprocess.CompletedProcess:
        """One start of the run in `workdir`, with a fault (tests/faults/child.py); its output is text."""
        command = [*prefix, *self.command(workdir, *flags, about=about, **scenario)]
        environment = {**os.environ, "XLA_FLAGS": self.xla_flags, "PYTHONPATH": str(ROOT)}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180)

    def command(self, workdir: Path, *flags: str, about: Path | None = None, **scenario) -> list[str]:
        about = workdir.parent / f"{workdir.name}-scenario.json" if about is None else about
        about.write_text(json.dumps({"ids": str(self.ids(workdir)), **scenario}))
        return [
            sys.executable,
            str(HERE / "child.py"),
            str(about),
            f"--config={ROOT / 'configs/stage1.py'}:tiny",
            f"--workdir={workdir}",
            f"--config.data.source={self.records}",
            f"--config.train.steps={STEPS}",
            f"--config.checkpoint.every={EVERY}",
            "--config.train.log_every=1",
            "--config.evaluate_every=4",
            "--config.evaluation.samples=2",
            "--config.evaluation.batch_size=2",
            "--config.evaluation.nearest=False",
            *flags,
        ]

    def ids(self, workdir: Path) -> Path:
        return workdir.parent / f"{workdir.name}-ids.txt"

    def assert_equals_straight(self, workdir: Path, ids: Path | None = None) -> None:
        """Parameters, averages, optimizer, every batch's ids, every line of metrics: the same bits."""
        assert parameters_hash(workdir, STEPS) == parameters_hash(self.straight, STEPS)
        assert verify(workdir) == []
        for averaged in (True, False):
            found, about = load_parameters(workdir, ema=averaged)
            expected, also = load_parameters(self.straight, ema=averaged)
            assert about["data"] == also["data"]
            for name, leaf in flat(expected).items():
                np.testing.assert_array_equal(flat(found)[name], leaf, err_msg=name)
        assert last(ids or self.ids(workdir)) == last(self.ids(self.straight))
        assert values(workdir) == values(self.straight)


def flat(tree: dict, path: str = "") -> dict[str, np.ndarray]:
    leaves = {}
    for name, node in tree.items():
        leaves |= flat(node, f"{path}/{name}") if isinstance(node, dict) else {f"{path}/{name}": node}
    return leaves


def last(*ids: Path) -> dict[tuple[int, str], str]:
    """The hash of every example, by position and number; one that was drawn twice must be the same."""
    found: dict[tuple[int, str], str] = {}
    for line in "".join(path.read_text() for path in ids).splitlines():
        position, *examples = line.split()
        for number, digest in (example.split(":") for example in examples):
            assert found.setdefault((int(position), number), digest) == digest, position
    # Batches that were read ahead and never used come after the last step.
    return {key: digest for key, digest in found.items() if key[0] <= STEPS}


def values(workdir: Path) -> dict[tuple[int, str], float]:
    """What the metrics say of every step, times and speeds left out."""
    timed = ("time", "evaluate/seconds", "train/images_per_second", "train/data_wait", "train/step_seconds")
    return {
        (record["step"], name): value
        for record in read_metrics(workdir / "metrics.jsonl")
        for name, value in record.items()
        if name not in (*timed, "train/utilization")
    }


@pytest.fixture(scope="session")
def trainer(tmp_path_factory, soak) -> Trainer:
    from fooddit.data.prepare import prepare

    folder = tmp_path_factory.mktemp("faults")
    prepare("scenes:32", folder / "records", size=64, progress=False)
    # The long form runs the programs that users get; the short one, programs that compile fast.
    fast = " ".join(flag for flag in FLAGS if "device_count" not in flag)
    made = Trainer(folder, folder / "records", "" if soak else fast)
    done = made.run(made.straight)
    assert done.returncode == 0, done.stderr
    return made


@pytest.fixture
def draws(request) -> random.Random:
    return random.Random(request.node.name)


@pytest.fixture(scope="session")
def report(request) -> Callable[[str], None]:
    """Prints a line of the long form's report."""
    capture = request.config.pluginmanager.getplugin("capturemanager")

    def write(line: str) -> None:
        if request.config.getoption("--soak"):
            with capture.global_and_fixture_disabled():
                print(f"\n{line}", end="", flush=True)

    return write

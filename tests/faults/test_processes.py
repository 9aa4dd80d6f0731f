"""Several processes, one run: they equal one process, stop together, and outlive the death of any of them."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fooddit.training.checkpoint import list_steps
from launch.local import PATIENCE
from tests.faults.conftest import ROOT, STEPS, last, values

HEARTBEAT = 10
RUN_LOCAL = """
import sys
from launch.local import Local, supervise
count, restarts, *command = sys.argv[1:]
sys.exit(supervise(Local(tuple(command), int(count), {heartbeat}, int(restarts))))
"""


def start(trainer, workdir: Path, count: int, *flags: str, restarts: int = 0, **scenario) -> subprocess.Popen:
    """The launcher, with `count` processes of a run and a fault in one of them."""
    flags = (*flags, f"--config.train.heartbeat_seconds={HEARTBEAT}")
    command = trainer.command(workdir, *flags, **scenario)
    launcher = [sys.executable, "-c", RUN_LOCAL.format(heartbeat=HEARTBEAT), str(count), str(restarts)]
    environment = {**os.environ, "XLA_FLAGS": trainer.xla_flags, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [*launcher, *command], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def run(*args, **options) -> tuple[int, str]:
    """Exit code and all that was said."""
    process = start(*args, **options)
    said, _ = process.communicate(timeout=240)
    return process.returncode, said


def assert_near(found: Path, expected: Path) -> None:
    """All losses, of training and of the hold-out, to 1e-5."""
    found, expected = values(found), values(expected)
    losses = [key for key in expected if "loss" in key[1]]
    assert found.keys() == expected.keys() and len(losses) > STEPS
    np.testing.assert_allclose([found[k] for k in losses], [expected[k] for k in losses], rtol=1e-5)


def ids(trainer, workdir: Path, count: int) -> list[Path]:
    base = trainer.ids(workdir)
    return [base] if count == 1 else [base.with_name(f"{base.name}.{i}") for i in range(count)]


def test_two_processes_equal_one(trainer, tmp_path):
    workdir = tmp_path / "two"
    code, said = run(trainer, workdir, 2)
    assert code == 0, said
    assert_near(workdir, trainer.straight)
    parts = [last(path) for path in ids(trainer, workdir, 2)]
    # No example is read by both.
    assert not parts[0].keys() & parts[1].keys() and len(parts[0]) == len(parts[1])
    assert parts[0] | parts[1] == last(trainer.ids(trainer.straight))
    # One speaks for both.
    assert said.count('"steps"') == 1


def test_four_processes_then_two_then_one(trainer, tmp_path):
    workdir, drawn, before = tmp_path / "fewer", {}, 0
    for count, nth in ((4, 2), (2, 2), (1, None)):
        fault = {"process": 0, "signal": signal.SIGTERM, "phase": "step", "nth": nth} if nth else {}
        code, said = run(trainer, workdir, count, **fault)
        assert code == (42 if nth else 0), said
        saved = list_steps(workdir / "checkpoints")[-1]
        assert before < saved <= STEPS
        part = last(*ids(trainer, workdir, count))
        for path in ids(trainer, workdir, count):
            path.unlink()
        # Each goes on where the last one ended; what comes after was read ahead, and is read again.
        assert min(position for position, _ in part) == before + 1
        drawn |= {key: digest for key, digest in part.items() if before < key[0] <= saved}
        before = saved
    assert drawn == last(trainer.ids(trainer.straight))
    assert_near(workdir, trainer.straight)


@pytest.mark.parametrize("process", [0, 1])
@pytest.mark.parametrize("phase", ["compile", "step", "evaluate"])
def test_sigterm_to_one_stops_all_at_the_same_step(trainer, tmp_path, soak, phase, process):
    if not soak and (phase, process) not in (("step", 1), ("evaluate", 0)):
        pytest.skip("in the long form: make soak")
    # In the step after the evaluation at step 4: within one, or a moment before it is left, they would end at once.
    workdir, nth = tmp_path / "run", 7 if phase == "step" else 1
    code, said = run(trainer, workdir, 2, process=process, signal=signal.SIGTERM, phase=phase, nth=nth)
    assert code == 42, said
    assert said.count("ended with 42") == 2 and "Traceback" not in said, said
    if phase == "step":
        stops = re.findall(r"SIGTERM: saved step (\d+)", said)
        assert len(stops) == 2 and len({*stops}) == 1, said
        assert list_steps(workdir / "checkpoints")[-1] == int(stops[0])
    code, said = run(trainer, workdir, 2)
    assert code == 0, said
    assert_near(workdir, trainer.straight)


@pytest.fixture(scope="module")
def straight_pair(trainer) -> Path:
    """Two processes that nothing disturbed: what a restarted pair must equal bit for bit."""
    workdir = trainer.folder / "pair"
    code, said = run(trainer, workdir, 2)
    assert code == 0, said
    return workdir


@pytest.mark.parametrize("process, name", [(1, "a worker"), (0, "the coordinator")])
def test_kill_9_of_one_ends_all_and_the_restart_has_the_same_bits(
    trainer, straight_pair, tmp_path, draws, process, name
):
    from fooddit.training.checkpoint import parameters_hash

    workdir, nth = tmp_path / "run", draws.randint(4, STEPS - 3)
    fault = {"signal": signal.SIGKILL, "phase": "step", "nth": nth, "once": str(tmp_path / "was killed")}
    code, said = run(trainer, workdir, 2, restarts=1, process=process, **fault)
    assert code == 0, said
    assert f"process {process} of 2 ended with 137 (SIGKILL): killed from outside" in said, said
    assert f"process {1 - process} of 2 ended with 134 (SIGABRT): ended by JAX" in said, said
    # Within the heartbeat and ten seconds, or the launcher would have ended the other one.
    assert f"the others have {HEARTBEAT + PATIENCE:.0f} s to end" in said and "has not ended" not in said, said
    assert said.count("launch: restart 1 of at most 1") == 1, said
    assert parameters_hash(workdir, STEPS) == parameters_hash(straight_pair, STEPS)
    assert values(workdir) == values(straight_pair)


def test_an_error_of_one_ends_all_with_its_code(trainer, tmp_path):
    code, said = run(trainer, tmp_path / "run", 2, "--config.data.source=/nowhere", restarts=3)
    assert code == 1 and "restart" not in said.replace("restart me", ""), said
    assert "/nowhere" in said and "Traceback" not in said, said

"""Kills, signals and hangs at random moments: the same command then ends with the same bits as a run left in peace."""

import re
import signal

import pytest

from fooddit.training.checkpoint import list_steps
from fooddit.training.goodput import read_goodput
from tests.faults.conftest import EVERY, STEPS

# Phase, entries into it that a run of twelve steps makes (the end included), and how long it lasts here at most.
PHASES = {
    "init": (1, 0.3),
    "restore": (1, 0.3),
    "compile": (1, 2.0),
    "data_wait": (12, 0.01),
    "step": (12, 0.1),
    "save": (4, 0.15),
    "evaluate": (3, 1.5),
}


def moment(phase: str, draws) -> dict:
    entries, seconds = PHASES[phase]
    return {"phase": phase, "nth": draws.randint(1, entries), "delay": round(draws.uniform(0, seconds), 4)}


def test_kill_9_at_random_moments(trainer, tmp_path, draws, soak, report):
    phases = [phase for phase in PHASES for _ in range(3)][:20] if soak else ["save", "evaluate"]
    for number, phase in enumerate(phases):
        workdir, when = tmp_path / f"{number}-{phase}", moment(phase, draws)
        if phase == "restore":
            # There must be something to restore: killed twice.
            trainer.run(workdir, signal=signal.SIGKILL, step_seconds=0.3, phase="step", nth=draws.randint(8, 11))
        # Steps that take a while, as real ones do: a save is over before the next one is due.
        killed = trainer.run(workdir, signal=signal.SIGKILL, step_seconds=0.3, **when)
        # A moment late in a short phase may come when the run is over already.
        assert killed.returncode in (-signal.SIGKILL, 0), killed.stderr
        taken = last_step(workdir)
        left = list_steps(workdir / "checkpoints")
        # An interval, and the steps that were taken while the last save was being written.
        assert taken - (left[-1] if left else 0) <= EVERY + 2, (when, taken, left)
        again = trainer.run(workdir)
        assert again.returncode == 0, again.stderr
        trainer.assert_equals_straight(workdir)
        report(
            f"kill -9 in {phase} (entry {when['nth']}, +{when['delay']:.2f} s): step {taken}, kept {left}, same bits"
        )


def last_step(workdir) -> int:
    """Steps that were finished for certain when the process died: of the batch drawn last all but one."""
    path = workdir.parent / f"{workdir.name}-ids.txt"
    lines = path.read_text().splitlines() if path.exists() else []
    return max((int(line.split()[0]) - 1 for line in lines), default=0)


@pytest.mark.parametrize("phase", ["compile", "step", "evaluate"])
def test_sigterm_saves_and_asks_for_a_restart(trainer, tmp_path, draws, soak, report, phase):
    for number in range(4 if soak else 1):
        workdir, when = tmp_path / f"{number}", moment(phase, draws)
        if phase == "evaluate":
            when["nth"] = 1 + number % 2  # Not the last one, after which there is little left to be asked.
        if phase == "step":
            when["nth"] = draws.randint(2, STEPS - 3)
        stopped = trainer.run(workdir, signal=signal.SIGTERM, **when)
        assert stopped.returncode == 42, (when, stopped.stderr)
        assert "SIGTERM" in stopped.stderr and "Traceback" not in stopped.stderr, stopped.stderr
        left = list_steps(workdir / "checkpoints")
        if phase == "compile":
            assert left == [] and "nothing was lost" in stopped.stderr
        else:
            # Not a step is lost.
            assert left[-1] >= last_step(workdir), (left, last_step(workdir))
        assert trainer.run(workdir).returncode == 0
        trainer.assert_equals_straight(workdir)
        report(f"SIGTERM in {phase} (+{when['delay']:.2f} s): exit 42, kept {left}, same bits")


def test_a_hang_ends_with_42_and_the_run_goes_on(trainer, tmp_path, report):
    workdir = tmp_path / "hang"
    hung = trainer.run(workdir, "--config.train.hang_seconds=120", hang_at=8)
    assert hung.returncode == 42, hung.stderr
    assert re.search(r"no progress for \d+ s in data wait after step 8", hung.stderr) and "in drawing" in hung.stderr
    assert "in drawing" in next(workdir.glob("hang-*.txt")).read_text()
    assert trainer.run(workdir).returncode == 0
    trainer.assert_equals_straight(workdir)
    report("hang of the input pipeline: stacks of all threads, exit 42, same bits")


def test_the_ledger_knows_every_start(trainer, tmp_path):
    workdir = tmp_path / "run"
    trainer.run(workdir, signal=signal.SIGKILL, phase="step", nth=9)
    done = trainer.run(workdir)
    goodput = read_goodput(workdir / "goodput.jsonl")
    assert goodput.starts == 2 and sum(goodput.seconds.values()) == pytest.approx(goodput.total)
    assert re.search(r"goodput \d+\.\d%: 2 starts", done.stdout), done.stdout
    assert "Goodput" in (workdir / "report.html").read_text(encoding="utf-8")

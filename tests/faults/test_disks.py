"""Disks that are full, and disks that forget."""

import json
import random
import shutil
import subprocess
import sys

import pytest

from fooddit.training.checkpoint import list_steps, verify
from tests.faults.conftest import HERE, STEPS

NAMESPACE = ("unshare", "--map-root-user", "--mount")


def may_mount() -> bool:
    try:
        return subprocess.run([*NAMESPACE, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not may_mount(), reason="needs a small disk: unshare --map-root-user --mount is not allowed here")
@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_full_disk_is_said_and_the_run_goes_on_when_there_is_room(trainer, tmp_path, soak, report, when):
    """Seen before a step is written, or (as something else fills the disk) while it is, on another thread."""
    if when == "meanwhile" and not soak:
        pytest.skip("the long form has it: make soak")
    disk, out = tmp_path / "disk", tmp_path / "out"
    small = (*NAMESPACE, sys.executable, str(HERE / "full_disk.py"), str(disk), str(out), "4m")
    about = tmp_path / "scenario.json"
    assert trainer.run(disk / "run", about=about, prefix=small, blind=when == "meanwhile").returncode == 0
    full, roomy = json.loads((out / "result.json").read_text())
    assert full["code"] == 1 and "could not be saved: no space left on the disk of" in full["err"], full["err"]
    assert when == "meanwhile" or ("Traceback" not in full["err"] and "bytes, " in full["err"]), full["err"]
    left = list_steps(out / "0/run/checkpoints")
    assert left and left[-1] < STEPS and [verify(out / "0/run/checkpoints", step) for step in left] == [[]] * len(left)
    assert roomy["code"] == 0, roomy["err"]
    trainer.assert_equals_straight(out / "1/run", out / "1/run-ids.txt")
    report(f"disk full {when} a save: exit 1, kept {left}; with room: same bits")


def damage(path, how: str, draws: random.Random) -> str:
    content = path.read_bytes()
    if how == "flip":
        bit = draws.randrange(8 * len(content))
        content = content[: bit // 8] + bytes([content[bit // 8] ^ 1 << bit % 8]) + content[bit // 8 + 1 :]
    else:
        content = content[: draws.randrange(len(content))]
    path.write_bytes(content)
    return f"{how} {path.parent.name}/{path.name} ({len(content):,} bytes)"


@pytest.mark.parametrize("how", ["flip", "truncate"])
def test_bit_rot_in_the_newest_step_is_passed_over_with_a_loud_line(trainer, tmp_path, draws, soak, report, how):
    """Of the whole program: found on restore, the step before taken, and the end has the same bits."""
    # Every file weighs the same: most bytes lie in a few, which tests/training/test_checkpoint.py goes through.
    for number in range(20 if soak else 1):
        workdir = tmp_path / str(number)
        shutil.copytree(trainer.straight, workdir)
        shutil.copy(trainer.ids(trainer.straight), trainer.ids(workdir))
        (workdir / "summary.json").unlink()
        newest = workdir / "checkpoints" / str(STEPS)
        files = sorted(path for path in newest.rglob("*") if path.is_file() and path.stat().st_size)
        what = damage(draws.choice(files), how, draws)
        assert verify(workdir, STEPS) != [], what
        if soak and number % 5:
            continue  # The whole program four times; the restore every time.
        done = trainer.run(workdir)
        assert done.returncode == 0, done.stderr
        assert f"checkpoints/{STEPS} is damaged" in done.stderr and f"going on from step {STEPS - 3}" in done.stderr
        assert (workdir / "checkpoints/damaged" / str(STEPS)).is_dir()
        trainer.assert_equals_straight(workdir)
        report(f"{what}: found, step {STEPS - 3} taken, same bits")


def test_none_whole_is_exit_3_and_nothing_is_begun_from_scratch(trainer, tmp_path, draws):
    workdir = tmp_path / "run"
    shutil.copytree(trainer.straight, workdir)
    (workdir / "summary.json").unlink()
    for step in list_steps(workdir / "checkpoints"):
        damage(next((workdir / "checkpoints" / str(step) / "state/d").iterdir()), "flip", draws)
    for _ in range(2):
        refused = trainer.run(workdir)
        assert refused.returncode == 3 and "none of the 3 saved steps" in refused.stderr, refused.stderr
        assert "Traceback" not in refused.stderr

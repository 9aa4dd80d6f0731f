"""`fooddit checkpoint`: what it prints and with which code it ends."""

import argparse
import shutil
from pathlib import Path

import jax.numpy as jnp
import pytest

from fooddit.training import checkpoint_command
from fooddit.training.checkpoint import CheckpointConfig, CheckpointCorrupted, Checkpointer, parameters_hash
from fooddit.training.seal import SEAL


@pytest.fixture
def saved(tmp_path) -> Path:
    """A folder of the steps 1 and 2."""
    writer = Checkpointer(tmp_path / "checkpoints", CheckpointConfig(every=1))
    for step in (1, 2):
        writer.save(step, {"params": {"a": jnp.full((3,), step, jnp.float32)}}, {"task": "denoise", "step": step})
    writer.close()
    return tmp_path / "checkpoints"


def _command(*words: str) -> int:
    parser = argparse.ArgumentParser()
    checkpoint_command.add_arguments(parser)
    return checkpoint_command.run(parser.parse_args([str(word) for word in words]))


def test_the_command_lists_and_hashes(saved, capsys):
    assert _command("list", saved) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["step", "saved", "size", "arrays", "task"]
    assert [(row.split()[0], row.split()[-1]) for row in rows] == [("1", "denoise"), ("2", "denoise")]
    assert _command("hash", saved, "--step", "1") == 0
    assert capsys.readouterr().out.split()[0] == parameters_hash(saved, 1)


def test_the_command_tells_whole_steps_from_damaged_ones(saved, capsys):
    assert _command("verify", saved) == 0
    capsys.readouterr()
    for seal in saved.glob(f"*/{SEAL}"):
        seal.unlink()  # As after a kill before it was written: the record has to find it.
    path = saved / "2/metadata/metadata"
    path.write_text(path.read_text().replace("denoise", "denoisy"))
    assert _command("verify", saved) == 1
    out = capsys.readouterr().out
    assert (
        "1  whole (its arrays; no seal)" in out
        and "2  DAMAGED" in out
        and "2: metadata/metadata: does not match its checksum" in out
    )
    assert _command("verify", saved, "--step", "1") == 0
    assert _command("list", saved) == 0
    assert "damaged: run verify" in capsys.readouterr().out


def test_a_missing_file_is_named_before_any_array_is_read(saved, monkeypatch):
    monkeypatch.setattr("fooddit.training.checkpoint_layout.read_record", lambda *_: pytest.fail("read"))
    path = next(path for path in (saved / "2/state/d").iterdir() if path.is_file())
    path.unlink()
    with pytest.raises(CheckpointCorrupted, match=f"state/d/{path.name}: No such file"):
        parameters_hash(saved)


def test_a_step_that_a_run_removes_meanwhile_is_not_damaged(saved, monkeypatch, capsys):
    def read(directory, step, *_):
        if step == 1:
            shutil.rmtree(directory / "1")
            raise CheckpointCorrupted(directory, step, ["state: cannot be read"])
        return {}

    monkeypatch.setattr("fooddit.training.checkpoint_layout.read_arrays", read)
    assert _command("verify", saved) == 0
    out = capsys.readouterr().out
    assert "1: removed meanwhile" in out and "2  whole" in out and "DAMAGED" not in out

"""main.py as users start it: what can be mended is one line, not a traceback."""

import dataclasses
import os
import re
import subprocess
import sys
import typing
from pathlib import Path

import pytest

from fooddit.tasks.denoise_step import DenoiseExperiment

ROOT = Path(__file__).resolve().parents[1]


def count(cls) -> int:
    """Keys of a config's dataclass, those of its sections included."""
    hints = typing.get_type_hints(cls)
    fields = [hints[field.name] for field in dataclasses.fields(cls)]
    return sum(count(hint) if dataclasses.is_dataclass(hint) else 1 for hint in fields)


def run(*arguments: str) -> subprocess.CompletedProcess:
    config = (
        [] if any(a.startswith("--config=") for a in arguments) else [f"--config={ROOT / 'configs/stage1.py'}:tiny"]
    )
    command = [sys.executable, str(ROOT / "main.py"), *config, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})


def one_line(*arguments: str) -> str:
    done = run(*arguments)
    assert done.returncode == 1 and done.stdout == "", done.stdout
    assert done.stderr.startswith("main.py: ") and done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def test_print_config_prints_every_key_with_type_and_value():
    done = run("--print_config", "--config.train.steps=7", "--config.optimizer.learning_rate=1")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert all(
        re.fullmatch(r"config(\.\w+)+: (str|int|float|bool|tuple\[str, \.\.\.\]) = .+", line) for line in lines
    ), lines
    assert "config.train.steps: int = 7" in lines
    assert "config.optimizer.learning_rate: float = 1.0" in lines
    keys = [line.split(":")[0] for line in lines]
    assert len(keys) == len(set(keys)) == count(DenoiseExperiment)
    assert {"config.train.seed", "config.checkpoint.every", "config.data.source", "config.init_from"} <= set(keys)


def test_an_unknown_key_is_one_line_with_the_nearest_one():
    assert "stpes" in (error := one_line("--config.train.stpes=3")) and '"steps"' in error


def test_a_negative_number_of_steps_is_one_line():
    error = one_line("--config.train.steps=-3", "--workdir=/nonexistent")
    assert "train.steps must be at least 1, found -3" in error


def test_data_that_is_not_there_is_one_line(tmp_path):
    error = one_line(f"--config.data.source={tmp_path / 'none'}", f"--workdir={tmp_path / 'run'}")
    assert str(tmp_path / "none") in error


def test_what_cannot_be_a_config_is_one_line(tmp_path):
    assert "config.task: found 'foo', expected one of denoise" in one_line("--config.task=foo")
    text = tmp_path / "notes.md"
    text.write_text("No Python here.\n")
    assert f"--config: {text}, line 1: no Python" in one_line(f"--config={text}")
    # ml_collections would take of the second what it has, and the rest of the first.
    assert "--config is given 2 times: --config=a.py --config=b.py" in one_line("--config=a.py", "--config=b.py")


@pytest.mark.parametrize(
    "lines, expected",
    [
        ("def get_config():\n    return 1 / 0", ", line 2: ZeroDivisionError: division by zero"),
        ("import fooddit.nothing", ", line 1: ModuleNotFoundError: No module named 'fooddit.nothing'"),
        ("def config(): pass", "the file has no function get_config"),
        ("def get_config():\n    return {'task': 'denoise'}", r"get_config\(\) returned a dict, expected a ConfigDict"),
    ],
)
def test_a_config_that_fails_is_one_line_with_its_place(tmp_path, lines, expected):
    path = tmp_path / "mine.py"
    path.write_text(lines)
    error = one_line(f"--config={path}", f"--workdir={tmp_path / 'run'}")
    assert re.search(f"--config: .*{expected}", error), error


def test_an_export_that_will_not_come_is_refused_before_the_training(tmp_path):
    error = one_line(f"--export={tmp_path / 'w.safetensors'}", f"--workdir={tmp_path / 'run'}")
    assert "the task 'denoise' has no weights to export" in error and not (tmp_path / "run").exists()


def test_weights_that_are_none_are_one_line(tmp_path):
    text = tmp_path / "w.safetensors"
    text.write_text("nothing")
    error = one_line(f"--config.space.autoencoder={text}", f"--workdir={tmp_path / 'run'}")
    assert f"{text}: expected weights written by fooddit" in error


@pytest.mark.parametrize(
    "flag, expected",
    [
        ("--config.init_from=runs/none", "config.init_from: .*runs/none is no folder; expected a workdir"),
        ("--config.init_from=tests", "config.init_from: .*tests holds no checkpoints"),
        ("--config.mesh.data=12345", "config.mesh: .*does not fit; found .* devices"),
    ],
)
def test_what_cannot_run_is_said_before_anything_is_rendered(tmp_path, flag, expected):
    error = one_line(flag, f"--workdir={tmp_path / 'run'}")
    assert re.search(expected, error), error
    assert not list((tmp_path / "run").glob("records*"))

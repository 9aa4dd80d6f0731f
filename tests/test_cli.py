"""The command line: quick to start, errors in one line."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fooddit.cli import COMMANDS, main

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("jax", "flax", "optax", "orbax", "grain", "cv2", "tokenizers", "numpy", "PIL")


def seconds(*arguments: str, tries: int = 3) -> float:
    """The fastest of some runs of `python ARGUMENTS`: what it costs when the machine has nothing else to do."""
    best = float("inf")
    for _ in range(tries):
        begin = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True, env=environment())
        best = min(best, time.perf_counter() - begin)
    return best


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def one_line(capsys) -> str:
    out, err = capsys.readouterr()
    assert err.count("\n") == 1 and "Traceback" not in err, err
    return err


def test_help_takes_under_half_a_second():
    assert seconds("-m", "fooddit", "--help") < 0.5


def test_import_takes_under_two_seconds():
    assert seconds("-c", "import fooddit") < 2.0


def test_the_pipeline_is_there_when_it_is_asked_for():
    code = "import sys, fooddit; assert 'jax' not in sys.modules; print(fooddit.Pipeline.__module__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment())
    assert done.stdout == "fooddit.pipeline\n", done.stderr


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in COMMANDS)], ids=" ".join)
def test_help_names_every_command_and_imports_nothing_heavy(arguments):
    code = (
        "import sys\nimport fooddit, fooddit.cli\n"
        f"try: fooddit.cli.main({arguments})\n"
        f"finally: print('HEAVY', [name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment())
    assert done.returncode == 0 and done.stdout.endswith("HEAVY []\n"), done.stdout + done.stderr
    if arguments == ["--help"]:
        assert all(re.search(rf"^ +{name}\b", done.stdout, re.MULTILINE) for name in COMMANDS), done.stdout
    else:
        assert f"usage: fooddit {arguments[0]}" in done.stdout


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["generate", "--checkpoint", "{tmp}/none", "--prompt", "soup", "--out", "{tmp}/out"], "none"),
        (["generate", "--checkpoint", "{tmp}", "--out", "{tmp}/out"], "no prompt"),
        (["generate", "--checkpoint", "{tmp}", "--prompt-file", "{tmp}/p.txt", "--out", "{tmp}/out"], "p.txt"),
        (["generate", "--checkpoint", "{tmp}", "--prompt-file", "{tmp}/empty", "--out", "{tmp}/out"], "no prompts"),
        (["generate", "--checkpoint", "{tmp}", "--prompt-file", "{tmp}/gbk", "--out", "{tmp}/out"], "UTF-8"),
        (["checkpoint", "list", "{tmp}/none"], "none"),
        (["prepare", "{tmp}/none", "{tmp}/out"], "none"),
        (["prepare", "scenes:many", "{tmp}/out"], "many"),
    ],
)
def test_bad_input_is_one_line_on_stderr_and_exit_code_2(arguments, message, tmp_path, capsys):
    (tmp_path / "empty").write_text("\n\n")
    (tmp_path / "gbk").write_bytes("三个饺子".encode("gbk"))
    assert main([argument.format(tmp=tmp_path) for argument in arguments]) == 2
    error = one_line(capsys)
    assert error.startswith(f"fooddit {arguments[0]}: ") and message in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["bake"],
        ["generate"],
        ["generate", "--checkpoint", "a", "--out", "b", "--prompt", "c", "--size", "big"],
        ["generate", "--checkpoint", "a", "--out", "b", "--prompt", "c", "--num", "many"],
        ["generate", "--checkpoint", "a", "--out", "b", "--image", "c", "--image", "d"],
        ["checkpoint", "burn", "a"],
        ["prepare", "a", "b", "--where", "novalue"],
    ],
)
def test_a_command_that_cannot_be_read_is_exit_code_2(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2 and "usage:" in capsys.readouterr().err

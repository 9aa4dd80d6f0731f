"""The local launcher, on processes that end as they are told; real runs are in tests/faults/test_processes.py."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launch.exit_codes import explain, restarts, signal_of
from launch.local import Local, commands, supervise

ROOT = Path(__file__).resolve().parents[2]
# Each process does what its part of the environment's PLAN says at each start: "CODE,CODE;CODE" are the starts of
# process 0 and of process 1; k is a kill -9 of itself, s sleeps.
CHILD = """
import os, signal, sys, time
from pathlib import Path
index = int(sys.argv[-1].rsplit(",", 1)[1]) if sys.argv[-1].startswith("--distributed=") else 0
seen = Path(sys.argv[1]) / str(index)
start = len(seen.read_text()) if seen.exists() else 0
seen.write_text("x" * (start + 1))
word = os.environ["PLAN"].split(";")[index].split(",")[start]
print(f"process {index} says 你好", flush=True)
if word == "k":
    os.kill(os.getpid(), signal.SIGKILL)
if word == "s":
    time.sleep(60)
sys.exit(int(word))
"""


def run(tmp_path, plan: str, count: int = 2, restarts: int = 3) -> int:
    command = (sys.executable, "-c", CHILD, str(tmp_path))
    return supervise(Local(command, count, heartbeat_seconds=-9, max_restarts=restarts, env=(("PLAN", plan),)))


def test_each_process_is_told_which_one_it_is():
    made = commands(Local(("python", "main.py"), 3), 1234)
    assert made[2] == ["python", "main.py", "--distributed=127.0.0.1:1234,3,2"]
    assert commands(Local(("python", "main.py"), 1), 1234) == [["python", "main.py"]]


@pytest.mark.parametrize(
    "plan, code, starts",
    [
        ("0;0", 0, 1),
        ("42,0;42,0", 0, 2),
        ("k,0;42,0", 0, 2),
        # A person has to mend it, whatever the others died of.
        ("1;42", 1, 1),
        ("3;k", 3, 1),
        ("42,42,42,42;42,42,42,42", 42, 4),
    ],
)
def test_what_restarts_and_what_does_not(tmp_path, capfd, plan, code, starts):
    assert run(tmp_path, plan) == code
    assert [len((tmp_path / name).read_text()) for name in "01"] == [starts] * 2
    said = capfd.readouterr()
    assert said.err.count("launch: restart ") == starts - 1
    assert "[1] process 1 says 你好" in said.err and "process 0 says 你好" in said.out
    if "k" in plan:
        assert "137 (SIGKILL): killed from outside: out of memory, a machine taken away, or kill -9" in said.err


def test_who_does_not_end_after_the_others_is_killed(tmp_path, capfd):
    began = time.monotonic()
    assert run(tmp_path, "42;s", restarts=0) == 42
    assert time.monotonic() - began < 15
    assert "process 1 has not ended 1 s after another one: killed" in capfd.readouterr().err


def test_the_launchers_own_sigterm_goes_to_all_and_nothing_restarts(tmp_path):
    code = "import sys; from launch.local import *; sys.exit(supervise(Local(tuple(sys.argv[1:]), 2)))"
    command = [sys.executable, "-c", code, sys.executable, "-c", CHILD, str(tmp_path)]
    environment = {**os.environ, "PLAN": "s;s", "PYTHONPATH": str(ROOT)}
    launcher = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    while not all((tmp_path / name).exists() for name in "01"):
        time.sleep(0.05)
    time.sleep(0.3)
    launcher.send_signal(signal.SIGTERM)
    _, said = launcher.communicate(timeout=30)
    assert launcher.returncode == 143 and "restart" not in said
    assert said.count("ended with 143 (SIGTERM)") == 2


@pytest.mark.parametrize(
    "code, words, again",
    [
        (0, "0: done", False),
        (1, "1: an error that a person has to mend", False),
        (3, "3: no checkpoint in the workdir is whole", False),
        (42, "42: stopped where the same command goes on", True),
        (130, "130 (SIGINT): Ctrl-C, and saved", True),
        (134, "134 (SIGABRT): ended by JAX", True),
        (137, "137 (SIGKILL): killed from outside: out of memory", True),
        (-9, "137 (SIGKILL)", True),
        (143, "143 (SIGTERM): ended before it could hear", True),
        (127, "127: unknown to main.py", True),
    ],
)
def test_exit_codes_in_words(code, words, again):
    assert explain(code).startswith(words) and restarts(code) == again
    assert signal_of(code) == {130: 2, 134: 6, 137: 9, -9: 9, 143: 15}.get(code)

"""The supervisor in processes of its own: signals in every kind of stretch, and a hang."""

import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# A main thread that sits in one long call, as in a compiler: no Python signal handler runs before it returns.
PROGRAM = """
import signal, sys, time
from pathlib import Path
from fooddit.training.goodput import Ledger
from fooddit.training.supervisor import Stopped, Supervisor

workdir = Path(sys.argv[1])
signal.signal(signal.SIGHUP, HANGUP)  # The suite itself may run under nohup, or in the background of a shell.
signal.signal(signal.SIGINT, signal.default_int_handler)

def long_call(seconds):
    # A sleep with signals masked for this thread: C code that nothing interrupts.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT])
    print("ready", flush=True)
    time.sleep(seconds)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM, signal.SIGINT])

ledger = Ledger(workdir / "goodput.jsonl")
try:
    with Supervisor(ledger, workdir, hang_seconds=HANG) as supervisor:
        BODY
except Stopped as stopped:
    print(stopped)
    sys.exit(stopped.code)
except KeyboardInterrupt:
    sys.exit(99)
"""


def start(tmp_path, body: str, hang: float = 0.0, hangup: str = "signal.SIG_DFL") -> subprocess.Popen:
    body = textwrap.indent(textwrap.dedent(body), " " * 8).strip()
    code = PROGRAM.replace("HANGUP", hangup).replace("HANG", str(hang)).replace("BODY", body)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, **pipes)


def send(process: subprocess.Popen, number: int) -> tuple[int, str, str]:
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    return process.returncode, out, err


def test_before_the_first_step_a_signal_ends_the_process_at_once(tmp_path):
    code, _, err = send(start(tmp_path, "ledger.enter('compile'); long_call(60)"), signal.SIGTERM)
    assert code == 42 and "SIGTERM in compile" in err and "nothing was lost" in err
    assert (tmp_path / "goodput.jsonl").exists()


def test_while_the_state_rests_it_is_saved_from_the_other_thread(tmp_path):
    body = """
        supervisor.started()
        ledger.enter('evaluate', 7)
        with supervisor.safe(lambda: (workdir / 'saved').write_text('whole')):
            long_call(60)
    """
    code, _, err = send(start(tmp_path, body), signal.SIGTERM)
    assert code == 42 and "in evaluate after step 7: saved" in err
    assert (tmp_path / "saved").read_text() == "whole"


def test_a_save_that_fails_is_said_and_does_not_ask_for_a_restart(tmp_path):
    body = """
        supervisor.started()
        with supervisor.safe(lambda: 1 / 0):
            long_call(60)
    """
    code, _, err = send(start(tmp_path, body), signal.SIGTERM)
    assert code == 1 and "NOT saved, ZeroDivisionError" in err


@pytest.mark.parametrize(
    "number, expected",
    [(signal.SIGTERM, 42), (signal.SIGHUP, 42), (signal.SIGUSR1, 42), (signal.SIGINT, 130)],
)
def test_between_steps_the_loop_saves_and_stops(tmp_path, number, expected):
    body = """
        supervisor.started()
        print("ready", flush=True)
        for step in range(10_000):
            ledger.enter('step', step)
            if supervisor.requested:
                raise supervisor.stop(f"saved step {step}")
            time.sleep(0.01)
    """
    code, out, _ = send(start(tmp_path, body), number)
    assert code == expected and re.search(r"saved step \d+", out)


def test_under_nohup_a_hangup_is_not_heard(tmp_path):
    body = """
        print("ready", flush=True)
        time.sleep(1)
        print(supervisor.requested)
    """
    code, out, _ = send(start(tmp_path, body, hangup="signal.SIG_IGN"), signal.SIGHUP)
    assert (code, out) == (0, "False\n")


def test_a_second_ctrl_c_does_not_wait(tmp_path):
    body = """
        supervisor.started()
        print("ready", flush=True)
        for step in range(400):
            time.sleep(0.05)
            if supervisor.requested and step % 20 == 0:
                print("asked", flush=True)
    """
    process = start(tmp_path, body)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "asked\n"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 99


def test_a_hang_dumps_the_stacks_and_asks_for_a_restart(tmp_path):
    body = """
        supervisor.started()
        ledger.enter('step', 12)
        long_call(60)
    """
    process = start(tmp_path, body, hang=0.5)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 42
    assert "no progress for" in err and "in step after step 12" in err and "in long_call" in err
    (dump,) = tmp_path.glob("hang-*.txt")
    assert "in long_call" in dump.read_text()


def test_progress_is_no_hang(tmp_path):
    body = """
        for step in range(30):
            ledger.enter('step', step)
            time.sleep(0.05)
    """
    process = start(tmp_path, body, hang=1.0)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 0, err

"""Several processes of one run on this machine, joined over its own network: started, watched, started again.

For a try of what a pod does without one, and for tests. On a CPU they talk through gloo.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from launch.exit_codes import DONE, MENDABLE, RESTART, explain, restarts
from launch.spec import LaunchSpec, command

ROOT = Path(__file__).resolve().parent.parent
# Seconds beyond the heartbeat that the others have to end after one process has.
PATIENCE = 10.0
POLL = 0.05


@dataclass(frozen=True)
class Local:
    """count: processes. heartbeat_seconds: as the run's config has it. env: variables beside this process's own."""

    command: tuple[str, ...]
    count: int
    heartbeat_seconds: int = 100
    max_restarts: int = 100
    env: tuple[tuple[str, str], ...] = ()


def commands(local: Local, port: int) -> list[list[str]]:
    """Of each process; pure."""
    if local.count == 1:
        return [list(local.command)]
    return [[*local.command, f"--distributed=127.0.0.1:{port},{local.count},{i}"] for i in range(local.count)]


def environment(local: Local) -> dict[str, str]:
    """Of each process: on a CPU, which is one device unless XLA_FLAGS says otherwise."""
    return {**os.environ, "JAX_PLATFORMS": "cpu", **dict(local.env)}


def run(spec: LaunchSpec) -> int:
    """The run of a spec for "cpu:N": N processes of this Python."""
    from fooddit.config_file import read_experiment

    experiment = read_experiment([f"--config={ROOT / spec.config}", *spec.config_flags])
    started = (sys.executable, *command(spec, "")[1:])
    heartbeat = experiment.train.heartbeat_seconds
    return supervise(Local(started, spec.hardware.hosts, heartbeat, spec.max_restarts, spec.env))


def supervise(local: Local) -> int:
    """Runs it to its end and returns its exit code: restarted after 42 and after any signal, not after 1 to 41.

    SIGTERM, SIGHUP and Ctrl-C go to all processes, which save and end; then nothing is restarted.
    """
    asked = _Asked()
    with asked:
        for attempt in range(local.max_restarts + 1):
            if attempt:
                _say(f"restart {attempt} of at most {local.max_restarts}")
            code = _attempt(local, asked)
            if asked.signal is not None or not restarts(code):
                return code
        _say(f"restarted {local.max_restarts} times, given up")
        return code


class _Asked:
    """Signals that the launcher itself gets; with `with`, they are passed on to the processes there are."""

    def __init__(self):
        self.signal: int | None = None
        self.processes: list[subprocess.Popen] = []

    def __enter__(self):
        heard = (n for n in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP) if signal.getsignal(n) != signal.SIG_IGN)
        self._before = {n: signal.signal(n, self._heard) for n in heard}
        return self

    def __exit__(self, *error):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _heard(self, number: int, frame) -> None:
        self.signal = number
        self.pass_on()

    def pass_on(self) -> None:
        """To the processes there are, if there is anything."""
        for process in self.processes if self.signal is not None else ():
            if process.poll() is None:
                process.send_signal(self.signal)


def _attempt(local: Local, asked: _Asked) -> int:
    """One start of all processes, to the end of the last; the code that speaks for all."""
    env = environment(local)
    # Ctrl-C in a terminal goes to a whole group: in one of their own they get it from us, once.
    start = {"cwd": ROOT, "env": env, "start_new_session": True}
    processes = asked.processes = [
        subprocess.Popen(command, stdout=None if i == 0 else subprocess.PIPE,
                         stderr=None if i == 0 else subprocess.STDOUT, **start)
        for i, command in enumerate(commands(local, _free_port()))
    ]  # fmt: skip
    asked.pass_on()  # What came while they were started.
    readers = [threading.Thread(target=_prefix, args=(i, p), daemon=True) for i, p in enumerate(processes) if i]
    for reader in readers:
        reader.start()
    codes = _wait(processes, local.heartbeat_seconds + PATIENCE)
    for reader in readers:
        reader.join(5)
    for i, code in enumerate(codes):
        if code != DONE:
            _say(f"process {i} of {local.count} ended with {explain(code)}")
    return _verdict(codes)


def _wait(processes: Sequence[subprocess.Popen], patience: float) -> list[int]:
    """Exit codes of all. After the first that is not 0 the others have `patience` seconds, then they are killed."""
    deadline = None
    while (codes := [process.poll() for process in processes]).count(None):
        if deadline is None and any(codes):
            deadline = time.monotonic() + patience
            first = next(i for i, code in enumerate(codes) if code)
            _say(f"process {first} is gone ({explain(codes[first])}); the others have {patience:.0f} s to end")
        if deadline is not None and time.monotonic() > deadline:
            for i, process in enumerate(processes):
                if process.poll() is None:
                    _say(f"process {i} has not ended {patience:.0f} s after another one: killed")
                    process.kill()
            deadline = float("inf")
        time.sleep(POLL)
    return codes


def _verdict(codes: Sequence[int]) -> int:
    """What a person has to mend comes first, then the wish to go on, then a signal."""
    codes = [code if code >= 0 else 128 - code for code in codes]
    mendable = [code for code in codes if code in MENDABLE]
    return mendable[0] if mendable else RESTART if RESTART in codes else max(codes)


def _prefix(index: int, process: subprocess.Popen) -> None:
    """What processes but the first say, each line with its number: mostly errors."""
    for line in process.stdout:
        sys.stderr.write(f"[{index}] {line.decode(errors='replace')}")
        sys.stderr.flush()


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def _say(text: str) -> None:
    print(f"launch: {text}", file=sys.stderr, flush=True)

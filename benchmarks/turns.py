"""Libraries that take turns, each in a process of its own: their thread pools do not meet, and one works at a time."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


class Turn:
    """A process that says {"version": ...} when it is warm and then answers every line with a line of JSON.

    Attributes:
      name: of what it measures. hello: its first answer. warm_up: seconds from its start to that.
    """

    def __init__(self, name: str, *command: str | int | Path):
        """command: a script of this folder and its arguments. Returns when the process is warm."""
        self.name, began = name, time.perf_counter()
        environment = os.environ | {"JAX_PLATFORMS": "cpu", "HF_HUB_OFFLINE": "1"}
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = subprocess.Popen([sys.executable, *map(str, command)], env=environment, **pipes)
        self.hello = self._answer()
        self.version, self.warm_up = self.hello["version"], time.perf_counter() - began

    def ask(self, line: str) -> dict:
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> dict:
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"the process of {self.name} ended; its message is above")
        return json.loads(line)

"""Programs that are not here, as small scripts on PATH which write down how they were called."""

import os
import subprocess
import sysconfig
from pathlib import Path

_FAKE = """#!/bin/bash
printf '%s\\n' "$@" >> {log}
echo "--" >> {log}
{body}
"""


def fake(folder: Path, name: str, body: str = "exit 0") -> Path:
    """Puts a program `name` into `folder`. Returns where its arguments go: one a line, "--" after each call."""
    log = folder / f"{name}.log"
    program = folder / name
    program.write_text(_FAKE.format(log=f"'{log}'", body=body))
    program.chmod(0o755)
    return log


def calls(log: Path) -> list[list[str]]:
    """The arguments of each call; of arguments of several lines, the lines."""
    text = log.read_text(encoding="utf-8") if log.exists() else ""
    return [call.split("\n") for call in text.removesuffix("\n--\n").split("\n--\n")] if text else []


def path_with(folder: Path) -> dict[str, str]:
    """The environment, with `folder` first on PATH."""
    return {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


def shellcheck(path: Path) -> str:
    """What shellcheck has against a script; but for dollars in single quotes (SC2016), which are what a user gave."""
    program = Path(sysconfig.get_path("scripts")) / "shellcheck"
    return subprocess.run([program, "--exclude=SC2016", path], capture_output=True, text=True).stdout

"""Runs of main.py as parts of an experiment: each a process of its own; what is finished is kept in one file."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def flags(config: str, settings: dict) -> list[str]:
    """Arguments of main.py for "NAME:VARIANT" of a file in configs/."""
    name, _, variant = config.partition(":")
    values = [f"--config.{key}={value}" for key, value in settings.items()]
    return [f"--config={ROOT / 'configs' / name}.py:{variant or 'full'}", *values]


def train(arguments: list[str], workdir: Path) -> dict:
    """The run's summary; resumes it, or does nothing if it is finished. Its log is beside the workdir."""
    summary = workdir / "summary.json"
    if not summary.exists():
        command = [sys.executable, str(ROOT / "main.py"), *arguments, f"--workdir={workdir}"]
        with workdir.with_suffix(".log").open("a") as log:
            code = subprocess.run(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT).returncode
        if code:
            sys.exit(f"{workdir.with_suffix('.log')}: main.py ended with {code}")
    return json.loads(summary.read_text(encoding="utf-8"))


def finished(path: Path) -> dict:
    """What is known by name; {} if there is no such file yet."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def keep(path: Path, name: str, found) -> None:
    """Adds an entry to the file."""
    text = json.dumps(finished(path) | {name: found}, indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")

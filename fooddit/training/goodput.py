"""Where a run's time goes, over all its restarts: an append-only ledger in the workdir, and what it adds up to.

Goodput is the share of wall time, from the first start on, that went into steps which are part of the result (Google's
ML Goodput, https://cloud.google.com/blog/products/ai-machine-learning/goodput-metric-as-measure-of-ml-productivity).
"""

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

LEDGER_FILE = "goodput.jsonl"
# What a process does, one thing at a time. A "step" is the device's work and the host's waiting for it.
PHASES = ("init", "restore", "compile", "data_wait", "step", "save", "evaluate")
# Seconds between lines; what a killed process did since its last one is counted as idle.
INTERVAL = 10.0


class Ledger:
    """Adds up the seconds of each phase of one process and appends them to WORKDIR/goodput.jsonl, at once and then now
    and then.

    A line is {"run", "time", "steps": [finished at the line before, finished now], "seconds": {phase: since the line
    before}}; "steps" is missing until the process knows where it goes on from. `beat` is when the process last got
    anywhere, by time.monotonic(): what a watchdog looks at. As long as `path` is None nothing is written.
    """

    def __init__(self, path: Path | None = None, started: float | None = None):
        """`started`: time.time() of the process's start, now if None."""
        now = time.time()
        self.started = now if started is None else started
        self.phase = "init"
        self.step: int | None = None
        self.path, self._from = path, None
        self._seconds = dict.fromkeys(PHASES, 0.0) | {"init": now - self.started}
        self._run = f"{self.started:.3f}-{os.getpid()}"
        self.beat = time.monotonic()
        # As if a line were due: a process that is killed in its first seconds was started, too.
        self._written = self.beat - INTERVAL

    def enter(self, phase: str, step: int | None = None) -> None:
        """From now on the time is `phase`'s; `step` counts the steps that are finished."""
        now = time.monotonic()
        self._seconds[self.phase] += now - self.beat
        self.beat, self.phase = now, phase
        if step is not None:
            self.step, self._from = step, step if self._from is None else self._from
        if self.path is not None and now - self._written > INTERVAL:
            self.flush()

    @contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """The time inside is `phase`'s, after it the former one's again."""
        before = self.phase
        self.enter(phase)
        try:
            yield
        finally:
            self.enter(before)

    def flush(self) -> None:
        """Writes a line. A disk that is full costs the line, not the run: the seconds stand in the next one."""
        now = time.monotonic()
        self._seconds[self.phase] += now - self.beat
        self.beat = self._written = now
        if self.path is None:
            return
        seconds = {phase: round(value, 3) for phase, value in self._seconds.items() if value}
        line = {"run": self._run, "time": round(time.time(), 3), "seconds": seconds}
        if self.step is not None:
            line["steps"] = [self._from, self.step]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                # On a line of its own, whatever half a line a killed process left.
                file.write(
                    ("\n" if file.tell() and not _ends_with_newline(self.path) else "") + json.dumps(line) + "\n"
                )
        except OSError:
            return
        self._seconds, self._from = dict.fromkeys(PHASES, 0.0), self.step


@dataclass(frozen=True)
class Goodput:
    """Seconds of a workdir's whole life. `seconds` sum to `total`: the phases, "redone" (steps that were taken again
    after a restart from an older checkpoint, not in "step") and "idle" (between processes)."""

    seconds: dict[str, float]
    total: float
    starts: int

    @property
    def share(self) -> float:
        """Of the time that went into steps of the result."""
        return self.seconds["step"] / self.total if self.total else 0.0

    def to_dict(self) -> dict[str, Any]:
        rounded = {name: round(value, 1) for name, value in self.seconds.items()}
        return asdict(self) | {"seconds": rounded, "total": round(self.total, 1), "share": round(self.share, 4)}

    def __str__(self) -> str:
        """A table for a terminal: the largest first."""
        starts = f"{self.starts} start{'s' * (self.starts != 1)}"
        lines = [f"goodput {self.share:.1%}: {starts}, {self.total:,.0f} s in all"]
        shown = sorted(((n, s) for n, s in self.seconds.items() if s >= 0.05), key=lambda item: -item[1])
        lines += [f"  {name.replace('_', ' '):10} {value:10,.1f} s {value / self.total:7.1%}" for name, value in shown]
        return "\n".join(lines)


def read_goodput(path: Path) -> Goodput | None:
    """What a ledger adds up to; None if there is none. A torn line (of a killed process or a full disk) is left out."""
    if not path.exists():
        return None
    lines = [line for line in map(_parse, path.read_text(encoding="utf-8", errors="replace").splitlines()) if line]
    return add_up(lines) if lines else None


def add_up(lines: list[Mapping[str, Any]]) -> Goodput:
    """Goodput of a ledger's lines, in the order they were written."""
    seconds = dict.fromkeys((*PHASES, "redone", "idle"), 0.0)
    began = before = _start(lines[0])
    seen: dict[str, bool] = {}  # run -> whether it said yet where it goes on from
    stretches: list[tuple[int, int, float]] = []  # (first step, last step, seconds) that still count
    for line in lines:
        if line["run"] not in seen:
            seen[line["run"]] = False
            seconds["idle"] += max(_start(line) - before, 0.0)
        if "steps" in line:
            first, last = line["steps"]
            if not seen[line["run"]]:
                seen[line["run"]] = True
                stretches, lost = _undo(stretches, first)
                seconds["redone"] += lost
            stretches.append((first, last, line["seconds"].get("step", 0.0)))
        for phase in PHASES:
            seconds[phase] += line["seconds"].get(phase, 0.0) if phase != "step" else 0.0
        before = line["time"]
    seconds["step"] = sum(stretch[2] for stretch in stretches)
    # The clock from start to end and the phases agree but for what a killed process did after its last line.
    total = max(before - began, sum(seconds.values()))
    seconds["idle"] += total - sum(seconds.values())
    return Goodput(seconds, total, len(seen))


def _undo(stretches: list[tuple[int, int, float]], step: int) -> tuple[list[tuple[int, int, float]], float]:
    """The stretches up to `step`, and the seconds of those after it, a stretch that it cuts shared by steps."""
    kept, lost = [], 0.0
    for first, last, seconds in stretches:
        share = 1.0 if last <= step else 0.0 if first >= step else (step - first) / (last - first)
        kept += [(first, min(last, step), seconds * share)] if share else []
        lost += seconds * (1 - share)
    return kept, lost


def _start(line: Mapping[str, Any]) -> float:
    return float(line["run"].split("-")[0])


def _parse(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
        _start(record)
        [float(value) for value in (record["time"], *record["seconds"].values(), *record.get("steps", (0, 0)))]
        return record
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"

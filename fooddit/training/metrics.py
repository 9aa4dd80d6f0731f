"""What a run reports: scalars and pictures, written by a thread so that no step waits for a device or a disk."""

import json
import math
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np
from PIL import Image

METRICS_FILE = "metrics.jsonl"
SAMPLES = "samples"


class Sink(Protocol):
    """Where values go. Any method may raise; the writer reports it once and goes on."""

    def scalars(self, step: int, values: Mapping[str, float], seconds: float) -> None: ...

    def image(self, step: int, name: str, image: np.ndarray) -> None: ...

    def close(self) -> None: ...


class MetricWriter:
    """Writes WORKDIR/metrics.jsonl, TensorBoard events and sample grids in the background, on process 0 alone.

    resume_step: the step that was restored, 0 for a new run. What was written for later steps is dropped, as those
    steps are taken again. `log` gets the one line that a failing sink is worth.
    """

    def __init__(
        self,
        workdir: str | os.PathLike,
        resume_step: int = 0,
        sinks: Sequence[Sink] | None = None,
        log: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
    ):
        self._log = log
        self._failures: dict[str, int] = {}
        self._queue: queue.SimpleQueue = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._samples = Path(workdir) / SAMPLES
        if jax.process_index() == 0:
            self._sinks = default_sinks(Path(workdir), resume_step, log) if sinks is None else list(sinks)
            self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
            self._thread.start()

    def scalars(self, step: int, values: Mapping[str, Any]) -> None:
        """Numbers or 0-d jax arrays by name; an array is fetched in the background. Returns at once."""
        if self._thread is None:
            return
        for value in values.values():
            if isinstance(value, jax.Array):
                value.copy_to_host_async()
        self._queue.put((self._write_scalars, (int(step), dict(values), time.time())))

    def drain(self, seconds: float = 60.0) -> None:
        """Returns when all that was put is written, or after `seconds`."""
        if self._thread is not None:
            written = threading.Event()
            self._queue.put((written.set, ()))
            written.wait(seconds)

    def image(self, step: int, name: str, image: np.ndarray, prompts: Sequence[str] = ()) -> None:
        """A uint8 (height, width, 3) picture for TensorBoard and WORKDIR/samples; a grid's prompts in reading order.

        The one named "samples" becomes samples/step_XXXXXX.png (and .json), which the report shows over time.
        """
        if self._thread is not None:
            self._queue.put((self._write_image, (int(step), name, _as_picture(name, image), list(prompts))))

    def close(self) -> None:
        """Writes what is waiting, closes the files and says what was lost."""
        if self._thread is None:
            return
        self._queue.put(None)
        self._thread.join()
        self._thread = None
        for sink in self._sinks:
            self._attempt(type(sink).__name__, sink.close)
        for name, count in self._failures.items():
            self._log(f"metrics: {count} writes to {name} failed in all")

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            write, arguments = item
            self._attempt("the metrics queue", write, *arguments)

    def _write_scalars(self, step: int, values: dict[str, Any], seconds: float) -> None:
        numbers = {name: _as_number(name, value) for name, value in values.items()}
        for sink in self._sinks:
            self._attempt(type(sink).__name__, sink.scalars, step, numbers, seconds)

    def _write_image(self, step: int, name: str, image: np.ndarray, prompts: list[str]) -> None:
        for sink in self._sinks:
            self._attempt(type(sink).__name__, sink.image, step, name, image)
        stem = f"step_{step:06d}" if name == SAMPLES else f"{name.replace('/', '_')}_step_{step:06d}"
        self._samples.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(self._samples / f"{stem}.png")
        about = json.dumps({"step": step, "name": name, "prompts": prompts}, ensure_ascii=False, indent=1)
        (self._samples / f"{stem}.json").write_text(about, encoding="utf-8")

    def _attempt(self, name: str, write: Callable, *arguments: Any) -> None:
        try:
            write(*arguments)
        except Exception as error:  # Whatever a sink dies of, training outlives it; the line below keeps it visible.
            if name not in self._failures:
                self._log(f"metrics: {name} failed, values are missing there ({type(error).__name__}: {error})")
            self._failures[name] = self._failures.get(name, 0) + 1


class JsonLines:
    """metrics.jsonl: a line {"step", "time", name: value, ...} a call. The truth: what the report is made of."""

    def __init__(self, path: Path, resume_step: int, log: Callable[[str], None]):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            _drop_later_lines(path, resume_step, log)
        self._file = path.open("a", encoding="utf-8")
        self._torn = False

    def scalars(self, step: int, values: Mapping[str, float], seconds: float) -> None:
        line = json.dumps({"step": step, "time": round(seconds, 3)} | {k: _as_json(v) for k, v in values.items()})
        # After a failed write (a full disk) half a line may stand there: begin on a new one.
        start, self._torn = ("\n" if self._torn else ""), True
        self._file.write(f"{start}{line}\n")
        self._file.flush()
        self._torn = False

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        pass

    def close(self) -> None:
        self._file.close()


class TensorBoard:
    """Event files in WORKDIR/tensorboard; on resume TensorBoard is told to forget the later steps."""

    def __init__(self, folder: Path, resume_step: int):
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=resume_step + 1 if resume_step else None)

    def scalars(self, step: int, values: Mapping[str, float], seconds: float) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step, walltime=seconds)

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        self._writer.add_image(name, image, step, dataformats="HWC")

    def close(self) -> None:
        self._writer.close()


def default_sinks(workdir: Path, resume_step: int, log: Callable[[str], None]) -> list[Sink]:
    """metrics.jsonl and TensorBoard."""
    return [JsonLines(workdir / METRICS_FILE, resume_step, log), TensorBoard(workdir / "tensorboard", resume_step)]


def read_metrics(path: str | os.PathLike) -> list[dict[str, Any]]:
    """Lines of a metrics.jsonl in order; "NaN" and "Infinity" become floats again, a torn last line is left out."""
    records, lines = [], Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        record = _parse(line)
        if record is None and number < len(lines):
            raise ValueError(f"{path}, line {number}: found {line[:60]!r}, expected an object with a step")
        if record is not None:
            records.append({k: float(v) if v in ("NaN", "Infinity", "-Infinity") else v for k, v in record.items()})
    return records


def has_value(workdir: Path, step: int, name: str) -> bool:
    """Whether WORKDIR/metrics.jsonl has that value for that step of a run that goes on from it; nothing has for 0."""
    path = workdir / METRICS_FILE
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if step and path.exists() else []
    records = [record for line in lines if (record := _parse(line)) is not None]
    return any(record["step"] == step and name in record for record in records)


def _drop_later_lines(path: Path, resume_step: int, log: Callable[[str], None]) -> None:
    records = [(line, _parse(line)) for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line]
    torn = sum(record is None for _, record in records)
    if torn:
        log(f"metrics: {path}: {torn} unreadable lines left out")
    # A run that starts anew at step 0 reports that step again.
    kept = [line for line, record in records if record is not None and resume_step and record["step"] <= resume_step]
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
    os.replace(temporary, path)


def _parse(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except json.JSONDecodeError:
        return None
    return record if isinstance(record, dict) and isinstance(record.get("step"), int) else None


def _as_number(name: str, value: Any) -> float:
    array = np.asarray(value)
    if array.size != 1:
        raise ValueError(f"{name}: found shape {array.shape}, expected one number")
    return float(array.reshape(()))


def _as_json(value: float) -> float | int | str:
    """JSON knows neither NaN nor infinities."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return value


def _as_picture(name: str, image: np.ndarray) -> np.ndarray:
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
        raise ValueError(f"{name}: found {image.dtype}{list(image.shape)}, expected uint8[height, width, 3]")
    return image

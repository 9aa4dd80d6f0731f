"""Metrics of a run's steps: read one step late, so that no device waits for the host, and written now and then."""

import time
from typing import Any

from fooddit.training.metrics import MetricWriter
from fooddit.training.progress import Progress
from fooddit.training.task import BatchIterator, Task, TrainConfig
from fooddit.training.throughput import peak_flops, utilization


class TrainingDiverged(RuntimeError):
    """Numbers that are not finite: too many steps in a row, the parameters, or a loss of the evaluation."""

    def __init__(self, what: str):
        super().__init__(
            f"{what}; go on from the last checkpoint with a lower rate (--config.optimizer.learning_rate=... "
            "--config.checkpoint.accept_changes=optimizer.learning_rate), or look at the data"
        )


class Reporter:
    """Takes each step's metrics, counts the non-finite ones, and writes a line of a window's rates and values.

    `images_per_second` is of the last window.
    """

    def __init__(
        self, task: Task, settings: TrainConfig, first: int, writer: MetricWriter, learning_rate, enabled: bool
    ):
        self._settings, self._writer, self._learning_rate = settings, writer, learning_rate
        self._flops, self._peak = task.flops_per_example, peak_flops()
        self._progress = Progress(settings.steps, first, self._peak.label, enabled=enabled)
        self._pending: dict[str, Any] | None = None
        self._skipped = self._batch = 0
        self.images_per_second = 0.0
        self.restart(first)

    def restart(self, step: int) -> None:
        """A new window: what passed since the last one was not training."""
        self._step, self._began, self._waited = step, time.perf_counter(), 0.0

    def waited(self, seconds: float, batch: int) -> None:
        """The next batch, of `batch` examples over all hosts, took so long to come."""
        self._waited, self._batch = self._waited + seconds, batch

    def put(self, metrics: dict[str, Any]) -> None:
        """Metrics of a step that may still be running."""
        self._pending = metrics

    def settle(self, step: int, batches: BatchIterator, always: bool = False) -> None:
        """Reads the metrics of `step`, if there are any, and logs them when they are due or `always`.

        Raises:
          TrainingDiverged: the last `train.max_skipped` steps were not finite.
        """
        if self._pending is None:
            return
        metrics, self._pending = self._pending, None
        self._skipped = self._skipped + 1 if float(metrics["skipped"]) else 0
        if self._skipped >= self._settings.max_skipped:
            raise TrainingDiverged(
                f"{self._skipped} steps in a row up to step {step} had a non-finite loss or gradient (the parameters "
                "are as before them, and nothing was saved meanwhile)"
            )
        if always or step % self._settings.log_every == 0:
            line = {f"train/{name}": value for name, value in metrics.items()} | self._rates(step)
            line["train/learning_rate"] = float(self._learning_rate(step - 1))
            line |= {"data/damaged_records": batches.damaged} if batches.damaged else {}
            self._writer.scalars(step, line)
            self._progress.update(step, line)

    @property
    def skipping(self) -> bool:
        """Whether the last step that was read was not finite."""
        return self._skipped > 0

    def close(self) -> None:
        self._progress.close()

    def _rates(self, step: int) -> dict[str, float]:
        """Of the window that ends at `step`; a new one begins. None of an empty one: the first step, which compiled."""
        seconds, steps = time.perf_counter() - self._began, step - self._step
        if steps < 1:
            return {}
        self.images_per_second = self._batch * steps / seconds
        rates = {
            "train/images_per_second": self.images_per_second,
            "train/data_wait": self._waited / seconds,
            "train/step_seconds": seconds / steps,
            "train/utilization": utilization(self._flops * self._batch, seconds / steps, self._peak),
        }
        self.restart(step)
        return rates

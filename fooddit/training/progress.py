"""The live line of a run: how far, how good, how fast, and what it waits for."""

import shutil
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

# A device that waits for data more than this is worth more workers or a smaller picture.
DATA_WAIT_LIMIT = 0.05
DATA_WAIT_PATIENCE = 60.0
# Metrics on the line, by the name that the loop gives them.
SHOWN = {
    "train/loss": "loss",
    "train/images_per_second": "images_per_second",
    "train/data_wait": "data_wait",
    "train/utilization": "utilization",
}
# Seconds over which the speed that the ETA rests on is averaged.
_ETA_MEMORY = 60.0


class Progress:
    """One line that is redrawn on a terminal, and key=value lines every `interval` seconds anywhere else.

    Args:
      total: steps of the whole run; `start`: the step that it begins or resumes from.
      label: what the utilization is a share of (`throughput.Peak.label`).
      enabled: False on every process but the first.
    """

    def __init__(
        self,
        total: int,
        start: int = 0,
        label: str = "utilization",
        *,
        enabled: bool = True,
        interval: float = 10.0,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._total, self._label, self._interval, self._clock = total, label, interval, clock
        self._stream = sys.stdout if stream is None else stream
        self._enabled = enabled
        self._live = self._stream.isatty()
        self._last = (clock(), start)
        self._seconds_per_step: float | None = None
        self._averaged = False
        self._drawn_at = float("-inf")
        self._line = ""
        self._waiting_since: float | None = None
        self._warned = False

    def update(self, step: int, values: Mapping[str, Any]) -> None:
        """Shows `step` finished steps and, of the metrics, what `SHOWN` names; the rest is not looked at.

        Values must be ready: a number on a device that still computes it would be waited for.
        """
        now = self._clock()
        self._observe(now, step)
        shown = {short: float(values[name]) for name, short in SHOWN.items() if name in values}
        if "data_wait" in shown:
            self._watch_data(now, shown["data_wait"])
        if now - self._drawn_at < (0.1 if self._live else self._interval) and step < self._total:
            return
        self._drawn_at = now
        if self._live:
            self._line = self._pretty(step, **shown)
            self._print(f"\r\x1b[2K{self._line}", end="")
        else:
            self._print(self._plain(step, **shown))

    def message(self, text: str) -> None:
        """A line of its own, above the live one."""
        self._print(f"\r\x1b[2K{text}\n{self._line}" if self._live else text, end="" if self._live else "\n")

    def eta(self, step: int) -> float | None:
        """Seconds to the end at the recent speed; None while none is known."""
        return None if self._seconds_per_step is None else self._seconds_per_step * (self._total - step)

    def close(self) -> None:
        """Leaves the last line standing."""
        if self._live and self._line:
            self._print("")
            self._line = ""

    def _observe(self, now: float, step: int) -> None:
        then, before = self._last
        if step <= before:
            return
        self._last = (now, step)
        recent = (now - then) / (step - before)
        if self._seconds_per_step is None:
            # The first stretch has the compilation in it: shown until there is a better one, never averaged.
            self._seconds_per_step = recent
            return
        weight = min(1.0, (now - then) / _ETA_MEMORY) if self._averaged else 1.0
        self._seconds_per_step += weight * (recent - self._seconds_per_step)
        self._averaged = True

    def _watch_data(self, now: float, data_wait: float) -> None:
        if data_wait <= DATA_WAIT_LIMIT:
            self._waiting_since = None
            return
        self._waiting_since = now if self._waiting_since is None else self._waiting_since
        if not self._warned and now - self._waiting_since >= DATA_WAIT_PATIENCE:
            self._warned = True
            self.message(
                f"warning: {data_wait:.0%} of the time goes to waiting for data (over {DATA_WAIT_LIMIT:.0%} for "
                f"{now - self._waiting_since:.0f} s); give the input pipeline more threads or smaller pictures"
            )

    def _pretty(self, step, loss=None, images_per_second=None, data_wait=None, utilization=None) -> str:
        done, eta = round(12 * min(step / max(self._total, 1), 1)), self.eta(step)
        parts = [f"{'━' * done}{'╌' * (12 - done)} {step:,}/{self._total:,}"]
        parts += [f"loss {loss:.4g}"] if loss is not None else []
        parts += [f"{_short(images_per_second)} img/s"] if images_per_second is not None else []
        parts += [f"wait {data_wait:.1%}"] if data_wait is not None else []
        if utilization is not None:
            parts.append(f"{100 * utilization:.0f}{self._label if self._label[0] == '%' else f'% {self._label}'}")
        parts += [f"ETA {_duration(eta)}"] if eta is not None and step < self._total else []
        # A line wider than the terminal would wrap, and wrapped lines are not redrawn.
        return " · ".join(parts)[: shutil.get_terminal_size().columns - 1]

    def _plain(self, step, loss=None, images_per_second=None, data_wait=None, utilization=None) -> str:
        eta = self.eta(step)
        values = {
            "step": f"{step}/{self._total}",
            "loss": None if loss is None else f"{loss:.5g}",
            "images_per_second": None if images_per_second is None else f"{images_per_second:.4g}",
            "data_wait": None if data_wait is None else f"{data_wait:.3f}",
            self._label.strip("% ").replace(" ", "_").lower(): None if utilization is None else f"{utilization:.3f}",
            "eta_seconds": None if eta is None else f"{eta:.0f}",
        }
        return " ".join(f"{key}={value}" for key, value in values.items() if value is not None)

    def _print(self, text: str, end: str = "\n") -> None:
        if self._enabled:
            print(text, end=end, file=self._stream, flush=True)


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _duration(seconds: float) -> str:
    seconds = round(seconds)
    hours, minutes, rest = seconds // 3600, seconds // 60 % 60, seconds % 60
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"

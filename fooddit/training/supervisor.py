"""What ends a run from outside: signals that ask it to stop, and hangs. What can be saved is saved first.

Exit codes, for whoever starts runs: 0 done; RESTART "the same command goes on from here"; NOT_WHOLE no checkpoint can
be trusted; 1 to 41 in general: something a person has to mend, so do not restart. Nothing here imports JAX: a signal
must be heard while it is still being imported.
"""

import faulthandler
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from fooddit.training.goodput import Ledger

if TYPE_CHECKING:
    from fooddit.parallel.processes import Group

# The loop reads a step's metrics while the next one runs, so that a process before step n knows that all others have
# begun step n - 2.
AHEAD = 2
# Seconds that the coordinator waits for the others to end before it does.
LONGEST_FAREWELL = 10.0
RESTART = 42
NOT_WHOLE = 3
# What a shell reports for a program ended by Ctrl-C.
INTERRUPTED = 128 + signal.SIGINT
# SIGHUP comes when the terminal closes, SIGUSR1 from batch systems that warn of the end of a job's time.
_SIGNALS = {signal.SIGTERM: RESTART, signal.SIGHUP: RESTART, signal.SIGUSR1: RESTART, signal.SIGINT: INTERRUPTED}


class Stopped(Exception):
    """The run was asked to stop and is saved. `code` is what the process should exit with."""

    def __init__(self, message: str, code: int):
        super().__init__(message)
        self.code = code


class Supervisor:
    """Listens for signals (SIGTERM, SIGHUP, SIGUSR1, Ctrl-C) and watches for hangs, on a thread of its own while the
    main thread computes.

    A Python signal handler runs on the main thread, between two bytecodes: not while XLA compiles, which can take
    longer than the half minute that a cluster gives. So the thread hears of the signal through a pipe, and what happens
    depends on what the main thread is at:

    - before the first step (start-up, restoring, compiling): nothing is lost, the process ends at once;
    - in `safe(save)` (evaluating, drawing, waiting): the state rests, so the thread saves it and ends the process;
    - between: the loop sees `requested` at the next step, saves, and raises `Stopped`.

    The periodic save is the guarantee; this only makes less of it be needed. Not entered, it does nothing.

    With several processes (`join`) a signal that one of them hears is told to the others: all save the same step and
    end with the same code. An error of one ends all (`fail`).
    """

    def __init__(self, ledger: Ledger | None = None, workdir: Path | None = None, hang_seconds: float = 0.0):
        """hang_seconds: without any progress for so long the stacks of all threads are written to stderr and to
        WORKDIR/hang-TIME.txt and the process ends with RESTART; 0 waits for ever."""
        self.ledger = ledger or Ledger()
        self.workdir, self._hang_seconds = workdir, hang_seconds
        self._signal: int | None = None
        self._interrupts = 0
        self._save: Callable[[], None] | None = None
        self._may_end = True
        # Held while the thread saves: whoever wants to leave a safe stretch waits, and is never heard of again.
        self._lock = threading.Lock()
        self._at_end: list[Callable[[], None]] = []
        self._thread: threading.Thread | None = None
        self._group: Group | None = None
        self._stop_at: int | None = None

    @property
    def requested(self) -> bool:
        """Whether the run was asked to stop."""
        return self._signal is not None

    def stop(self, message: str) -> Stopped:
        """The exception that ends a run which has saved itself."""
        name = signal.Signals(self._signal).name if self._signal else "stop"
        return Stopped(f"{name}: {message}", _SIGNALS.get(self._signal, RESTART))

    def join(self, group: "Group") -> None:
        """From here on the run is of several processes, who hear of each other through `group`."""
        self._group = group

    def stops(self, step: int) -> bool:
        """Asked before each step, on the main thread: is this where the run stops?

        Several processes each say where they were when they heard of it, go on, and stop `AHEAD` steps after the
        furthest of them: the same step for all, and none can have come so far without all words being said.
        """
        if not self.requested or self._group is None:
            return self.requested
        if self._stop_at is None:
            with self._lock:
                if self._may_end:
                    return False  # The thread is about to end the process.
                if self._group.index not in (places := self._group.told("at")):
                    self._group.tell("at", step)
                    places = self._group.told("at")
            if len(places) == self._group.count and None not in places.values():
                self._stop_at = max(places.values()) + AHEAD
        return self._stop_at is not None and step >= self._stop_at

    def fail(self, code: int, message: str) -> NoReturn:
        """Ends this process, and with it the other ones of its run: what it would have been told is told to them."""
        if self._group is None:
            sys.exit(code)
        self._group.tell("failed", [code, message])
        self._end(code)

    def wait_for_blame(self, seconds: float) -> None:
        """A program that all processes share has failed here. Returns if it has everywhere, or for `seconds` nowhere
        else; else the process whose end was the cause ends this one, by its note or by being missed."""
        if self._group is not None:
            self._group.tell("error", True)
            self._group.told_by_all("error", seconds)

    def at_end(self, action: Callable[[], None]) -> None:
        """`action` (short, on any thread) comes before the process is ended by the thread."""
        self._at_end.append(action)

    def started(self) -> None:
        """The first step is taken: from here on only `safe` stretches may be cut off."""
        with self._lock:
            self._may_end = False

    @contextmanager
    def safe(self, save: Callable[[], None]) -> Iterator[None]:
        """A stretch in which the state rests: on a signal `save` is called on another thread, then the process ends."""
        with self._lock:
            before, self._may_end, self._save = self._may_end, True, save
        try:
            yield
        finally:
            with self._lock:
                self._may_end, self._save = before, None

    def __enter__(self) -> "Supervisor":
        self._reader, writer = os.pipe()
        os.set_blocking(writer, False)
        self._writer = writer
        # Python handlers must be there for the pipe to be written to; what they do is done by the thread.
        # What was to be ignored still is: SIGHUP under nohup.
        heard = [number for number in _SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
        self._handlers = {number: signal.signal(number, self._heard) for number in heard}
        self._wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._watch, name="supervisor", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error) -> None:
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        os.write(self._writer, b"\0")
        self._thread.join()
        os.close(self._writer)
        os.close(self._reader)

    def _heard(self, number: int, frame) -> None:
        self._interrupts += number == signal.SIGINT
        if self._interrupts > 1:
            raise KeyboardInterrupt  # Whoever presses Ctrl-C twice means now.

    def _watch(self) -> None:
        while True:
            ready, _, _ = select.select([self._reader], [], [], self._patience())
            for number in os.read(self._reader, 64) if ready else b"":
                if number == 0:
                    return
                self._asked_to_stop(number)
            if self._hang_seconds and time.monotonic() - self.ledger.beat > self._hang_seconds:
                self._hangs()
            if self._group is not None:
                self._listen(self._group)
            if self.requested:
                self._end_if_safe()

    def _patience(self) -> float | None:
        """Seconds until there is something to look at without a signal."""
        waits = [self._group.interval] if self._group is not None else []
        if self.requested:
            return max([0.05, *waits])
        waits += [min(self._hang_seconds / 4, 10.0)] if self._hang_seconds else []
        return min(waits, default=None)

    def _listen(self, group: "Group") -> None:
        """What the other processes had to say."""
        try:
            stops, failures, places = (group.told(name) for name in ("stop", "failed", "at"))
        except Exception:
            return  # The coordinator is gone: JAX ends this process.
        for index, (code, message) in failures.items():
            if index != group.index:
                _say(f"process {index} ended with {code}: {message}")
                self._end(code)
        for index, number in stops.items():
            if index != group.index and self._signal is None:
                self._signal = number
                _say(f"process {index} heard {signal.Signals(number).name}; this one is {self._where()}")
        if self.requested and any(place is None for index, place in places.items() if index != group.index):
            # It had nothing to save, or had just saved; nor can this one save without it.
            self._end_at_once("nothing was lost; the same command goes on from here")

    def _asked_to_stop(self, number: int) -> None:
        if number in _SIGNALS and self._signal is None:
            self._signal = number
            what = "stopping" if self._may_end else "stopping as soon as the state is saved"
            _say(f"{signal.Signals(number).name} {self._where()}: {what}")
            if self._group is not None:
                self._group.tell("stop", number)

    def _end_if_safe(self) -> None:
        with self._lock:
            if not self._may_end:
                return
            code, done = _SIGNALS[self._signal], "nothing was lost; the same command goes on from here"
            # Several processes save before they enter a safe stretch.
            if self._save is not None and self._group is None:
                try:
                    self._save()
                    done = "saved; the same command goes on from here"
                except Exception as error:  # The process ends either way: say why the last moment was not kept.
                    code, done = 1, f"NOT saved, {type(error).__name__}: {error}"
            if self._group is not None:
                self._group.tell("at", None)
            self._end_at_once(done, code)

    def _end_at_once(self, done: str, code: int | None = None) -> NoReturn:
        _say(f"{signal.Signals(self._signal).name} {self._where()}: {done}")
        self._end(_SIGNALS[self._signal] if code is None else code)

    def _hangs(self) -> None:
        seconds = time.monotonic() - self.ledger.beat
        _say(f"no progress for {seconds:.0f} s {self._where()}: stacks of all threads follow, then exit {RESTART}")
        faulthandler.dump_traceback(sys.__stderr__, all_threads=True)
        if self.workdir is not None:
            process = "" if self._group is None else f"-{self._group.index}"
            path = self.workdir / time.strftime(f"hang-%Y%m%d-%H%M%S{process}.txt")
            try:
                with path.open("w") as file:
                    faulthandler.dump_traceback(file, all_threads=True)
                _say(f"the same in {path}")
            except OSError as error:
                _say(f"{path} could not be written: {error}")
        self._end(RESTART)

    def _where(self) -> str:
        step = "" if self.ledger.step is None else f" after step {self.ledger.step}"
        return f"in {self.ledger.phase.replace('_', ' ')}{step}"

    def _leave(self, group: "Group") -> None:
        """The coordinator goes last: without it the others would be ended by JAX, with a code of its own."""
        try:
            group.tell("gone", True)
            if group.index == 0:
                group.told_by_all("gone", LONGEST_FAREWELL)
        except Exception as error:
            _say(f"the other processes could not be told: {' '.join(str(error).split())[:200]}")

    def _end(self, code: int) -> NoReturn:
        """Ends the process from this thread: the main one may be in compiled code that nothing interrupts."""
        self.ledger.flush()
        for action in self._at_end:
            action()
        if self._group is not None:
            self._leave(self._group)
        sys.__stdout__.flush()
        sys.__stderr__.flush()
        os._exit(code)


def _say(text: str) -> None:
    print(f"fooddit: {text}", file=sys.__stderr__, flush=True)

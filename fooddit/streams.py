"""Standard streams as a long run needs them: open from the start, and no error when their reader leaves."""

import os
import sys
from typing import TextIO


def open_streams() -> None:
    """Gives a process that was started without stdin, stdout or stderr the null device in their places.

    The numbers 0 to 2 would otherwise go to the next files that are opened, and what a library prints into those. What
    a terminal cannot show is written with backslashes: a Chinese file name ends no command.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = open(("stdin", "stdout", "stderr").index(name), mode, closefd=False)
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def outlive_readers() -> None:
    """From here on a closed pipe, a lost terminal or a full disk behind stdout or stderr silences it: no error."""
    for name in ("stdout", "stderr"):
        stream = Lasting(getattr(sys, name))
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def silence(stream: TextIO) -> None:
    """What is written to `stream` from now on, and what it still holds back, goes nowhere."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


class Lasting:
    """A text stream that falls silent when it can no longer be written to."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            silence(self._stream)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            silence(self._stream)

    def __getattr__(self, name: str):
        return getattr(self._stream, name)

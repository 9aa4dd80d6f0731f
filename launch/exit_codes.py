"""What the exit code of a training process means, and what is to be done about it."""

import signal

DONE, NOT_WHOLE, RESTART = 0, 3, 42
# A person has to mend something first: the same command would end in the same way.
MENDABLE = range(1, 42)

_CODES = {
    DONE: "done",
    NOT_WHOLE: "no checkpoint in the workdir is whole; its messages say which files are damaged",
    RESTART: "stopped where the same command goes on",
}
_SIGNALS = {
    signal.SIGABRT: "ended by JAX (or a failed check in native code): another process of the run is gone",
    signal.SIGINT: "Ctrl-C, and saved: the same command goes on",
    signal.SIGKILL: "killed from outside: out of memory, a machine taken away, or kill -9",
    signal.SIGTERM: "ended before it could hear the signal, in its first second",
    signal.SIGSEGV: "crashed in native code",
    signal.SIGBUS: "crashed in native code, as when shared memory or a mapped file's disk is full",
}


def signal_of(code: int) -> int | None:
    """The signal that a process died of: -9 as subprocess has it, or 137 as a shell has; None if it exited."""
    return -code if code < 0 else code - 128 if 128 < code < 128 + signal.NSIG else None


def explain(code: int) -> str:
    """In words: what a process that ended with `code` says by it."""
    if (number := signal_of(code)) is not None:
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = f"signal {number}"
        return f"{128 + number} ({name}): {_SIGNALS.get(number, 'ended by that signal')}"
    if code in _CODES:
        return f"{code}: {_CODES[code]}"
    if code in MENDABLE:
        return f"{code}: an error that a person has to mend; its messages say what to do"
    return f"{code}: unknown to main.py; the container or the shell ended so"


def restarts(code: int) -> bool:
    """Whether the same command may be started again."""
    return code != DONE and code not in MENDABLE

"""`fooddit prepare SOURCE OUT`: a catalogue becomes records, with a dataset card and a contact sheet."""

import argparse
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `fooddit prepare`."""
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a folder with metadata.jsonl, .csv or .parquet; tfds:NAME; scenes:N or styles:N for N drawn dish scenes",
    )
    parser.add_argument("out", metavar="OUT", help="a new folder for the records")
    parser.add_argument("--size", type=int, help="shrink the shorter side to this; scenes are drawn at it (64)")
    parser.add_argument("--holdout", type=float, default=0.1, help="share of pictures kept for evaluation (0.1)")
    parser.add_argument("--seed", type=int, default=0, help="of the split (0)")
    parser.add_argument(
        "--where",
        action="append",
        default=[],
        type=_equality,
        metavar="COLUMN=VALUE",
        help="keep only rows with this value; may be repeated",
    )


def run(args: argparse.Namespace) -> int:
    """Prepares and prints what came of it; returns the exit code."""
    from fooddit.data.prepare import prepare

    where = dict(args.where)
    if len(where) < len(args.where):
        raise ValueError(f"--where names a column twice: {' '.join(f'{c}={v}' for c, v in args.where)}; give each once")
    with _stopping_as_ctrl_c_does():
        summary = prepare(args.source, args.out, size=args.size, holdout=args.holdout, seed=args.seed, where=where)
    try:
        print(summary, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OSError(f"stdout cannot be written to ({error.strerror}), but {summary.folder} is complete") from error
    return 0


@contextmanager
def _stopping_as_ctrl_c_does() -> Iterator[None]:
    """SIGTERM and SIGHUP remove what was begun, too, and end with a shell's code for them."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Only the main thread may set handlers.
        return
    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) != signal.SIG_IGN]
    before = {n: signal.signal(n, lambda number, _: sys.exit(128 + number)) for n in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _equality(text: str) -> tuple[str, str]:
    column, equals, value = text.partition("=")
    if not column or not equals:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected COLUMN=VALUE")
    return column, value

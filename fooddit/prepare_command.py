"""`fooddit prepare SOURCE OUT`: a catalogue becomes records; with --cache, records become features of encoders."""

import argparse
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# Options of a catalogue's pictures, with their defaults.
_OF_PICTURES = {"size": None, "holdout": 0.1, "seed": 0, "where": []}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `fooddit prepare`."""
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a folder with metadata.jsonl, .csv or .parquet; tfds:NAME; scenes:N or styles:N for N drawn dish scenes; "
        "with --cache a folder of records",
    )
    parser.add_argument("out", metavar="OUT", help="a new folder for the records; with --cache for the features")
    parser.add_argument("--size", type=int, help="shrink the shorter side to this; scenes are drawn at it (64)")
    parser.add_argument("--holdout", type=float, help="share of pictures kept for evaluation (0.1)")
    parser.add_argument("--seed", type=int, help="of the split (0)")
    parser.add_argument(
        "--where",
        action="append",
        type=_equality,
        metavar="COLUMN=VALUE",
        help="keep only rows with this value; may be repeated",
    )
    parser.add_argument(
        "--cache",
        action="store_true",
        help="compute once what the frozen encoders of --config=FILE[:variant] [--config.KEY=VALUE] make of records: "
        "moments of latents; a run reads them with --config.data.features=OUT",
    )
    parser.add_argument("--text", action="store_true", help="with --cache: of every caption, too")
    parser.set_defaults(**_OF_PICTURES, takes_config=True)


def run(args: argparse.Namespace) -> int:
    """Prepares and prints what came of it; returns the exit code."""
    with _stopping_as_ctrl_c_does():
        summary = _cache(args) if args.cache else _prepare(args)
    try:
        print(summary, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OSError(f"stdout cannot be written to ({error.strerror}), but {summary.folder} is complete") from error
    return 0


def _prepare(args: argparse.Namespace):
    from fooddit.data.prepare import prepare

    if args.text or args.config_flags:
        found = " ".join([*["--text"] * args.text, *args.config_flags])
        raise ValueError(f"{found}: only with --cache, which computes features of records; see --help")
    where = dict(args.where)
    if len(where) < len(args.where):
        raise ValueError(f"--where names a column twice: {' '.join(f'{c}={v}' for c, v in args.where)}; give each once")
    return prepare(args.source, args.out, size=args.size, holdout=args.holdout, seed=args.seed, where=where)


def _cache(args: argparse.Namespace):
    from fooddit.caching.command import cache
    from fooddit.config_file import read_experiment
    from fooddit.parallel.compilation_cache import keep_compiled_programs

    if given := [f"--{name}" for name, unset in _OF_PICTURES.items() if getattr(args, name) != unset]:
        raise ValueError(f"{', '.join(given)}: with --cache the records are there already; leave it away")
    keep_compiled_programs()
    return cache(args.source, args.out, read_experiment(args.config_flags), text=args.text)


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

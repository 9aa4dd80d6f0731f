"""`fooddit prepare SOURCE OUT`: a catalogue becomes records, with a dataset card and a contact sheet."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `fooddit prepare`."""
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a folder with metadata.jsonl, .csv or .parquet; tfds:NAME; or scenes:N for N built-in dish scenes",
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
    print(prepare(args.source, args.out, size=args.size, holdout=args.holdout, seed=args.seed, where=where))
    return 0


def _equality(text: str) -> tuple[str, str]:
    column, equals, value = text.partition("=")
    if not column or not equals:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected COLUMN=VALUE")
    return column, value

"""`fooddit export RUN OUT`: the averaged weights of a run of text to picture as a folder that other libraries read."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `fooddit export`."""
    parser.add_argument("run_folder", metavar="RUN", help="a run's workdir")
    parser.add_argument(
        "out", type=Path, metavar="OUT", help="a new folder for config.json, model.safetensors and tokenizer.json"
    )
    parser.add_argument("--step", type=int, help="a checkpoint's step (default: the newest)")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="float32", help="float32 is exact, bfloat16 half as large"
    )


def run(args: argparse.Namespace) -> int:
    """Writes the folder and prints what is in it; returns the exit code."""
    if args.out.exists():
        raise FileExistsError(f"{args.out} is there already; give a new folder")
    from fooddit.models.module import count
    from fooddit.training.checkpoint import load_parameters
    from fooddit.training.exported import is_exported, save_exported

    if is_exported(args.run_folder):
        raise ValueError(f"{args.run_folder} is an exported model already; expected a run's workdir")
    params, metadata = load_parameters(args.run_folder, args.step)
    try:
        save_exported(args.out, params, metadata, args.dtype)
    except ValueError as error:
        raise ValueError(f"{args.run_folder}: {error}") from error
    print(f"{args.out}: step {metadata['step']}, {count(params):,} parameters, {args.dtype}")
    for path in sorted(args.out.iterdir()):
        print(f"  {path.name:28} {path.stat().st_size:>15,} bytes")
    return 0

"""`fooddit checkpoint list | verify | hash DIR`: what is saved there, whether it is whole, and what it is."""

import argparse
import time

ACTIONS = {
    "list": "the committed steps: when, how large, of which task",
    "verify": "read every byte back and compare it with what was saved (exit code 1 if anything differs)",
    "hash": "SHA-256 of the trained parameters, independent of devices and files",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `fooddit checkpoint`."""
    actions = "; ".join(f"{name}: {text}" for name, text in ACTIONS.items())
    parser.add_argument("action", choices=ACTIONS, help=actions.replace("%", "%%"))
    parser.add_argument("directory", metavar="DIR", help="a workdir or its checkpoints folder")
    parser.add_argument("--step", type=int, help="one step (default: list and verify all, hash the newest)")


def run(args: argparse.Namespace) -> int:
    """Prints the answer; returns the exit code: 1 if verify finds a problem or there is nothing to verify."""
    from fooddit.training.checkpoint_layout import find_checkpoints, list_steps, pick_step

    directory = find_checkpoints(args.directory)
    steps = list_steps(directory) if args.step is None else [pick_step(directory, args.step)]
    if not steps:
        print(f"{directory}: no saved steps")
        return 1
    return {"list": _list, "verify": _verify, "hash": _hash}[args.action](directory, steps)


def _list(directory, steps: list[int]) -> int:
    from fooddit.training.checkpoint_layout import COMMITTED, CheckpointCorrupted, read_record

    rows = [("step", "saved", "size", "arrays", "task")]
    for step in steps:
        folder = directory / str(step)
        committed = folder / COMMITTED
        when = time.localtime(committed.stat().mtime) if committed.exists() else None
        saved = time.strftime("%Y-%m-%d %H:%M:%S", when) if when else "?"
        try:
            record, metadata = read_record(directory, step)
            arrays, task = f"{len(record['arrays'])}", _task(metadata)
        except CheckpointCorrupted:
            arrays, task = "?", "damaged: run verify"
        rows.append((str(step), saved, _size(_bytes(folder)), arrays, task))
    _print_table(rows)
    return 0


def _verify(directory, steps: list[int]) -> int:
    from fooddit.training.checkpoint import verify
    from fooddit.training.seal import is_sealed

    problems = {}
    for step in steps:
        try:
            problems[step] = verify(directory, step)
        except FileNotFoundError:
            print(f"{step}: removed meanwhile, by a run that goes on")
    whole = {step: "whole" if is_sealed(directory / str(step)) else "whole (its arrays; no seal)" for step in steps}
    rows = [(str(step), "DAMAGED" if found else whole[step]) for step, found in problems.items()]
    _print_table([("step", "state"), *rows])
    for step, found in problems.items():
        for problem in found:
            print(f"  {step}: {problem}")
    return 1 if any(problems.values()) else 0


def _hash(directory, steps: list[int]) -> int:
    from fooddit.training.checkpoint import parameters_hash

    print(f"{parameters_hash(directory, steps[-1])}  {directory}  step {steps[-1]}")
    return 0


def _task(metadata: dict) -> str:
    task = metadata.get("experiment", metadata).get("task", "")
    return task if isinstance(task, str) else ""


def _bytes(folder) -> int:
    return sum(_bytes(path) if path.is_dir() else path.stat().length for path in folder.iterdir())


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"


def _print_table(rows: list[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        cells = [cell.rjust(w) if i == 0 else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths))]
        print("  ".join(cells).rstrip())

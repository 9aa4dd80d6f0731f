"""Reading checkpoints without training: parameters for generation, proof that a step is whole, a hash to compare by."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from fooddit.training import checkpoint_layout as layout
from fooddit.training.checkpoint_layout import CheckpointCorrupted, find_checkpoints
from fooddit.training.exported import is_exported, load_exported
from fooddit.training.object_store import is_local
from fooddit.training.seal import broken_files

_EMA = "opt_state/ema/params"


def load_parameters(
    directory: epath.PathLike, step: int | None = None, ema: bool = True
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(parameters as a nested dict of numpy arrays, metadata) of a workdir's newest step or of `step`.

    Needs no model and no particular devices; reads only the parameters (the averaged ones if `ema`) and checks them.
    metadata["step"] is the step. A folder that `fooddit export` wrote is read, too; it has the averaged ones alone.
    Raises FileNotFoundError, CheckpointCorrupted, TensorError, or KeyError if the run kept no average.
    """
    if ema and is_exported(directory):
        return load_exported(directory, step)
    directory = find_checkpoints(directory)
    step = layout.pick_step(directory, step)
    check_files(directory, step, contents=False)  # Of a missing file tensorstore says it in many lines.
    record, metadata = layout.read_record(directory, step)
    metadata["step"] = step
    prefix = (_EMA if ema else "params") + "/"
    names = [name for name in record["arrays"] if name.startswith(prefix)]
    if not names:
        raise KeyError(f"{directory / str(step)}: nothing named {prefix}*; " + "try ema=False" * ema)
    arrays = layout.read_arrays(directory, step, record, _as_numpy(names))
    return layout.nest({name.removeprefix(prefix): array for name, array in arrays.items()}), metadata


def verify(directory: epath.PathLike, step: int | None = None) -> list[str]:
    """Reads a whole step back and says what is wrong with it, a line a problem; [] if every bit is as saved.

    FileNotFoundError if there is no such step, or it was removed meanwhile: a run that trains keeps only its newest.
    """
    directory = find_checkpoints(directory)
    step = layout.pick_step(directory, step)
    try:
        check_files(directory, step)
        record, _ = layout.read_record(directory, step)
        layout.read_arrays(directory, step, record, _as_numpy(record["arrays"]))
    except CheckpointCorrupted as error:
        layout.pick_step(directory, step)
        return error.problems
    return []


def parameters_hash(directory: epath.PathLike, step: int | None = None) -> str:
    """SHA-256 over (name, shape, type, checksum) of the trained parameters, from the bytes that are on disk.

    Independent of devices, shardings and files: two runs have the same hash exactly if their parameters are the same.
    """
    parameters, _ = load_parameters(directory, step, ema=False)
    arrays = layout.describe(layout.named_leaves(parameters))
    lines = [json.dumps([name, entry["shape"], entry["dtype"], entry["checksum"]]) for name, entry in arrays.items()]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def check_files(directory: epath.Path, step: int, contents: bool = True) -> None:
    """Raises CheckpointCorrupted if a file of a sealed step on a local disk is not as it was, or not as long."""
    folder = directory / str(step)
    problems = broken_files(Path(folder), contents) if is_local(directory) else []
    if not (folder / layout.COMMITTED).exists():
        problems.insert(0, f"{layout.COMMITTED}: missing")
    if problems:
        raise CheckpointCorrupted(directory, step, problems)


def _as_numpy(names: Iterable[str]) -> dict[str, ocp.RestoreArgs]:
    return {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in names}

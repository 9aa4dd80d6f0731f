"""What a step looks like on disk: where steps lie, how arrays are named, and the record that proves them.

Readers and the writer share this: a step is named by its number and exists once its commit file does.
"""

import json
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from fooddit.training.checksum import checksums
from fooddit.training.object_store import absolute, children, is_away
from fooddit.training.seal import SEAL

FOLDER = "checkpoints"
TRASH = "trash"
DAMAGED = "damaged"
COMMITTED = "commit_success.txt"
ITEMS = ("state", "metadata", "checksums")
_ONE = ocp.options.MultiprocessingOptions()
# What orbax raises on damaged files: tensorstore's errors are ValueErrors, and so are those of JSON and of UTF-8.
_READ_ERRORS = (ValueError, KeyError, TypeError, OSError)


class CheckpointCorrupted(ValueError):
    """A committed step whose bytes are not those that were saved: .step, .problems, .other_steps say more."""

    def __init__(self, directory: epath.Path, step: int, problems: list[str]):
        self.step, self.problems = step, problems
        self.other_steps = [other for other in list_steps(directory) if other != step]
        shown = "\n  ".join(problems[:5] + [f"... and {len(problems) - 5} more"] * (len(problems) > 5))
        older = ", ".join(map(str, self.other_steps)) or "none"
        super().__init__(
            f"{directory / str(step)} is damaged:\n  {shown}\nOther steps in {directory}: {older}. "
            f"`fooddit checkpoint verify {directory}` tells which are whole; move the damaged folder away to use them"
        )


class NoWholeCheckpoint(ValueError):
    """There are saved steps, and none of them can be trusted: going on from scratch is for a person to decide."""

    def __init__(self, directory: epath.Path, found: list[CheckpointCorrupted]):
        lines = "\n".join(f"  {error.step}: {error.problems[0]}" for error in found)
        super().__init__(
            f"none of the {len(found)} saved steps in {directory} is whole:\n{lines}\nBring the damaged files back "
            f"from a copy; to begin from scratch instead, move {directory} away"
        )


class CheckpointFailed(OSError):
    """A save that did not come through; what was saved before it is untouched."""


class CheckpointMismatch(ValueError):
    """A whole checkpoint, but of another model or optimizer than the one it is to be restored into."""


def find_checkpoints(directory: epath.PathLike) -> epath.Path:
    """The folder of steps that a user means: `directory` itself or its `checkpoints`. FileNotFoundError if neither."""
    directory = absolute(directory)
    there = {path.name for path in children(directory)}
    if not there and not directory.is_dir():
        raise FileNotFoundError(f"{directory} is no folder; expected a workdir or its {FOLDER} folder")
    if FOLDER in there:
        return directory / FOLDER
    if directory.name == FOLDER or list_steps(directory):
        return directory
    if directory.name.isdecimal() and COMMITTED in there:
        raise FileNotFoundError(
            f"{directory} is one step; give the folder above it, {directory.parent}, and the step {directory.name}"
        )
    found = ", ".join(sorted(there)[:8]) or "nothing"
    raise FileNotFoundError(
        f"{directory} holds no checkpoints: found {found}; expected a {FOLDER} folder or folders named by step, "
        f"each with {COMMITTED}"
    )


def list_steps(directory: epath.PathLike) -> list[int]:
    """Steps in a folder of steps that were committed, oldest first; [] if the folder does not exist."""
    return sorted(int(path.name) for path in children(directory) if path.name.isdecimal() and was_committed(path))


def was_committed(folder: epath.Path) -> bool:
    """Whether a step was ever whole: a seal without a commit file is damage, not a save that was cut off."""
    return (folder / COMMITTED).exists() or (folder / SEAL).exists()


def named_leaves(tree: Any) -> dict[str, Any]:
    """Leaves by their "/"-joined path, in the tree's order: params/blocks/attention/q. ValueError for "/" in a key."""
    leaves = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        parts = [jax.tree_util.keystr((key,), simple=True) for key in path]
        if any("/" in part or not part for part in parts):
            raise ValueError(f"found the key path {parts}, expected keys that are not empty and have no '/'")
        leaves["/".join(parts)] = leaf
    return leaves


def nest(leaves: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for name, leaf in leaves.items():
        *parents, last = name.split("/")
        node = nested
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = leaf
    return nested


def make_record(step: int, leaves: Mapping[str, jax.Array], metadata: dict[str, Any]) -> dict[str, Any]:
    """What is saved beside the state to prove it: the step, the arrays (`describe`), a CRC of the metadata."""
    record = {"step": step, "arrays": describe(leaves), "metadata": _crc(metadata)}
    return record | {"record": _crc(record)}


def describe(leaves: Mapping[str, jax.Array | np.ndarray]) -> dict[str, dict[str, Any]]:
    """Shape, type and checksum of each array."""
    sums = checksums(leaves)
    return {
        name: {"shape": list(leaf.shape), "dtype": str(leaf.dtype), "checksum": sums[name]}
        for name, leaf in leaves.items()
    }


def read_record(directory: epath.Path, step: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """(record, metadata) of a step, both checked. Raises CheckpointCorrupted."""
    record, metadata = (
        _read(directory, step, item, ocp.JsonCheckpointHandler(), ocp.args.JsonRestore())
        for item in ("checksums", "metadata")
    )
    if not isinstance(record, dict) or record.pop("record", None) != _crc(record):
        raise CheckpointCorrupted(directory, step, ["checksums/metadata: does not match its own checksum"])
    # The first runs' records do not say the step.
    if (found := record.get("step", step)) != step:
        raise CheckpointCorrupted(directory, step, [f"holds step {found}: the folder was renamed or copied"])
    if record["metadata"] != _crc(metadata):
        raise CheckpointCorrupted(directory, step, ["metadata/metadata: does not match its checksum"])
    return record, metadata


def read_arrays(
    directory: epath.Path, step: int, record: Mapping[str, Any], wanted: Mapping[str, ocp.RestoreArgs]
) -> dict[str, Any]:
    """The wanted arrays by name, each checked against the record. Raises CheckpointCorrupted, naming the arrays."""
    arrays = load_arrays(directory, step, record, wanted)
    check_arrays(directory, step, record, arrays)
    return arrays


def load_arrays(
    directory: epath.Path, step: int, record: Mapping[str, Any], wanted: Mapping[str, ocp.RestoreArgs]
) -> dict[str, Any]:
    """The wanted arrays by name, unchecked: of each the parts that this process's devices hold."""
    partial = len(wanted) < len(record["arrays"])
    item = nest(dict.fromkeys(wanted, 0))
    args = ocp.args.PyTreeRestore(item=item, restore_args=nest(wanted), partial_restore=partial)
    return named_leaves(_read(directory, step, "state", ocp.PyTreeCheckpointHandler(), args))


def check_arrays(directory: epath.Path, step: int, record: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
    """Raises CheckpointCorrupted, naming the arrays that are not the record's. With several processes all call it."""
    found = describe(arrays)
    problems = [
        f"state: {name}: found {_show(found[name])}, expected {_show(record['arrays'][name])}"
        for name in arrays
        if found[name] != record["arrays"][name]
    ]
    if problems:
        raise CheckpointCorrupted(directory, step, problems)


def check_structure(path: epath.Path, saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Orbax would cast and pad what does not fit; we say what differs before anything large is read."""
    problems = [f"{name}: missing in the checkpoint" for name in wanted if name not in saved]
    problems += [f"{name}: in the checkpoint, unknown to this run" for name in saved if name not in wanted]
    for name in wanted.keys() & saved.keys():
        found = f"{saved[name]['dtype']}{saved[name]['shape']}"
        expected = f"{wanted[name].dtype}{list(wanted[name].shape)}"
        if found != expected:
            problems.append(f"{name}: found {found}, expected {expected}")
    if problems:
        shown = sorted(problems)[:10] + [f"... and {len(problems) - 10} more"] * (len(problems) > 10)
        raise CheckpointMismatch(
            f"{path} is of another model or optimizer than this run's config:\n  "
            + "\n  ".join(shown)
            + "\nUse the config it was trained with, another workdir, or start from its parameters alone (init_from)"
        )


def pick_step(directory: epath.Path, step: int | None) -> int:
    """`step`, or the newest if None. FileNotFoundError, naming the steps that are there, if there is none such."""
    steps = list_steps(directory)
    if not steps or (step is not None and step not in steps):
        wanted = "a saved step" if step is None else f"step {step}"
        raise FileNotFoundError(f"{directory}: expected {wanted}, found {', '.join(map(str, steps)) or 'none'}")
    return steps[-1] if step is None else step


def _read(directory: epath.Path, step: int, item: str, handler: ocp.CheckpointHandler, args: Any) -> Any:
    # By itself: a process that finds damage must not keep the others waiting for it.
    alone = ocp.options.MultiprocessingOptions(
        primary_host=None, active_processes={jax.process_index()}, barrier_sync_key_prefix=f"{jax.process_index()}"
    )
    reader = ocp.Checkpointer(handler, multiprocessing_options=alone if jax.process_count() > 1 else _ONE)
    try:
        return reader.restore(directory / str(step) / item, args=args)
    except Exception as error:
        # A store that is away for an hour is no damage: nothing is to be passed over or set aside for it.
        if is_away(directory, error):
            what = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise OSError(f"{directory / str(step) / item} cannot be read: {what}") from error
        # Orbax wraps some reading errors in a bare Exception. Others, as a device out of memory, are not damage.
        if not isinstance(error, _READ_ERRORS) and type(error) is not Exception:
            raise
        what = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise CheckpointCorrupted(directory, step, [f"{item}: cannot be read: {what}"]) from error
    finally:
        reader.close()


def _show(entry: Mapping[str, Any] | None) -> str:
    return f"{entry['dtype']}{entry['shape']} {entry['checksum']}" if entry else "nothing"


def _crc(value: Any) -> str:
    return f"{zlib.crc32(json.dumps(value, sort_keys=True).encode()):08x}"

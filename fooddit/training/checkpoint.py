"""Checkpoints: a small interface over orbax's CheckpointManager that keeps, and proves, every bit of the state.

A step is a folder with three items under one commit file: `state` (arrays, named by their path), `metadata` (what the
caller wants to find again, JSON) and `checksums` (of each array and of the metadata, JSON). Orbax alone restores a
flipped bit without a word, so all that is read is checked, and on a local disk every file is, too (`seal`). A step
without `commit_success.txt` does not exist.
"""

import json
import logging
import shutil
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint.options import AtomicityMode, AtomicityOptions

from fooddit.parallel.processes import first_problem, from_first, wait_for_all
from fooddit.training import checkpoint_layout as layout
from fooddit.training.checkpoint_housekeeping import discard_uncommitted, empty_trash, keep_house, move_step
from fooddit.training.checkpoint_layout import (
    FOLDER,
    CheckpointCorrupted,
    CheckpointFailed,
    CheckpointMismatch,
    NoWholeCheckpoint,
    find_checkpoints,
    list_steps,
)
from fooddit.training.checkpoint_reader import check_files, load_parameters, parameters_hash, verify
from fooddit.training.object_store import absolute, is_local

__all__ = [
    "FOLDER",
    "CheckpointConfig",
    "CheckpointCorrupted",
    "CheckpointFailed",
    "CheckpointMismatch",
    "Checkpointer",
    "NoWholeCheckpoint",
    "find_checkpoints",
    "list_steps",
    "load_parameters",
    "parameters_hash",
    "verify",
]


@dataclass(frozen=True)
class CheckpointConfig:
    """Attributes:
    every: optimizer steps between saves.
    keep: how many of the newest steps stay on disk.
    accept_changes: config keys, separated by commas, whose change a resumed run goes on with instead of refusing it:
      "optimizer.learning_rate", a section such as "data", or "dataset" for other records.
    """

    every: int = 500
    keep: int = 3
    accept_changes: str = ""

    def __post_init__(self):
        for name in ("every", "keep"):
            if getattr(self, name) < 1:
                raise ValueError(f"config.checkpoint.{name}: found {getattr(self, name)}, expected at least 1")

    @property
    def accepted(self) -> tuple[str, ...]:
        """The names in `accept_changes`."""
        names = (name.strip().removeprefix("config.") for name in self.accept_changes.split(","))
        return tuple(name for name in names if name)


class Checkpointer:
    """Saves and restores a run's whole state in `directory` (by custom WORKDIR/checkpoints), one writer at a time.

    With several processes each makes one and calls the same methods; process 0 alone removes old steps.
    """

    def __init__(self, directory: epath.PathLike, config: CheckpointConfig = CheckpointConfig()):
        self.directory = absolute(directory)
        self._keep = config.keep
        self.newest: int | None = None  # The step that was restored or given to `save` last.
        self._keeping: threading.Thread | None = None
        self._unsealed: set[int] = set()  # Steps that this process knows to be whole.
        self._failed = False
        if jax.process_index() == 0:
            self.directory.mkdir(parents=True, exist_ok=True)
            empty_trash(self.directory)
            discard_uncommitted(self.directory)
        wait_for_all("checkpoints are tidy")
        # By default orbax takes a step without commit file for whole, and deletes an old one file by file where it
        # stands. Renamed into the trash first, it is there or it is not, whenever the process is killed. Nothing can be
        # renamed on an object store: there we remove old steps ourselves, the commit file first.
        local = is_local(self.directory)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=config.keep if local else None,
            todelete_subdir=layout.TRASH if local else None,
            save_root_metadata=False,
            atomicity_options=AtomicityOptions(mode=AtomicityMode.COMMIT_FILE),
        )
        self._manager = ocp.CheckpointManager(self.directory, item_names=layout.ITEMS, options=options)

    def steps(self) -> list[int]:
        """Committed steps, oldest first."""
        return list_steps(self.directory)

    def save(self, step: int, state: Any, metadata: Mapping[str, Any]) -> None:
        """Starts saving; returns when the state is copied to the host, so that its buffers may be donated.

        Waits for a save that is still under way. Raises CheckpointFailed if that one or this one cannot be written,
        ValueError if the step is there already, TypeError for metadata that is not JSON.
        """
        step, metadata = int(step), _as_json(metadata)
        with self._failing():
            there = self.steps()
        if step in there:
            raise ValueError(f"{self.directory / str(step)} exists already; a step is saved once")
        leaves = layout.named_leaves(state)
        items = {
            "state": ocp.args.PyTreeSave(layout.nest(leaves)),
            "metadata": ocp.args.JsonSave(metadata),
            "checksums": ocp.args.JsonSave(layout.make_record(step, leaves, metadata)),
        }
        self._wait_for_save()
        self._keep_house()
        self.newest = step
        self._check_room(leaves)
        with self._failing():
            self._manager.save(step, args=ocp.args.Composite(**items), force=True)
        self._unsealed.add(step)

    def restore(self, abstract_state: Any, step: int | None = None) -> tuple[Any, dict] | None:
        """The newest whole step (or `step`) as (state, metadata), every bit checked; None if there is no step at all.

        A damaged step is passed over with a loud line, and moved to DIRECTORY/damaged once an older one is restored.
        abstract_state: tree of jax.ShapeDtypeStruct with the shardings wanted now, whatever they were when saved.
        Raises CheckpointMismatch if names, shapes or types differ, NoWholeCheckpoint if all steps are damaged,
        CheckpointCorrupted if the one asked for is.
        """
        self.wait()
        if step is not None:
            self.newest = layout.pick_step(self.directory, step)
            return self._restore(step, abstract_state)
        damaged: list[CheckpointCorrupted] = []
        # A store may list a new step to one process and not yet to another.
        for step in reversed(from_first(lambda: {"steps": self.steps()})["steps"]):
            try:
                restored = self._restore(step, abstract_state)
            except CheckpointCorrupted as error:
                # Without its traceback, which holds what was read of the state.
                damaged.append(error.with_traceback(None))
                continue
            self._set_aside(damaged, step)
            self._unsealed.add(step)
            self.newest = step
            return restored
        if damaged:
            raise NoWholeCheckpoint(self.directory, damaged)
        return None

    def wait(self) -> None:
        """Returns when the last save is committed and sealed; raises CheckpointFailed if it is not."""
        self._wait_for_save()
        # Twice: the one that may still be at work does not know of the last save.
        self._join_keeper()
        self._keep_house()
        self._join_keeper()

    def close(self) -> None:
        """Waits for the last save; the checkpointer cannot be used after. A failure is raised once."""
        if not self._failed:
            self.wait()
            self._manager.close()

    def _restore(self, step: int, abstract_state: Any) -> tuple[Any, dict]:
        """Several processes all restore it, or all raise."""
        wanted, problem, read = layout.named_leaves(abstract_state), None, None
        try:
            read = self._read(step, wanted)
        except Exception as error:
            problem = error
        _raise_together(self.directory, step, problem)
        record, metadata, arrays = read
        try:
            layout.check_arrays(self.directory, step, record, arrays)
        except CheckpointCorrupted as error:
            problem = error
        _raise_together(self.directory, step, problem)
        return jax.tree.unflatten(jax.tree.structure(abstract_state), [arrays[name] for name in wanted]), metadata

    def _read(self, step: int, wanted: Mapping[str, Any]) -> tuple[dict, dict, dict]:
        """The record, the metadata and the arrays, whose checksums nobody has compared yet."""
        if jax.process_index() == 0:
            check_files(self.directory, step)
        record, metadata = layout.read_record(self.directory, step)
        layout.check_structure(self.directory / str(step), record["arrays"], wanted)
        restore_args = {name: _restore_args(name, leaf) for name, leaf in wanted.items()}
        return record, metadata, layout.load_arrays(self.directory, step, record, restore_args)

    def _set_aside(self, damaged: list[CheckpointCorrupted], taken: int) -> None:
        """Moves damaged steps out of the way: the run will come to their numbers again."""
        for error in damaged:
            print(f"WARNING: {error}", file=sys.stderr, flush=True)
            if jax.process_index() == 0:
                (self.directory / layout.DAMAGED).mkdir(exist_ok=True)
                target = self.directory / layout.DAMAGED / str(error.step)
                while target.exists():
                    target = target.with_name(f"{target.name}-again")
                move_step(self.directory / str(error.step), target)
                print(f"WARNING: moved to {target}; going on from step {taken}", file=sys.stderr, flush=True)
        if damaged:
            wait_for_all("damaged steps are away")
            self._manager.reload()

    def _check_room(self, leaves: Mapping[str, jax.Array]) -> None:
        """Before half of a step is written; what fills the disk meanwhile makes the save fail later."""
        if not is_local(self.directory):
            return
        self._join_keeper()  # The trash takes room, too.
        # Several processes share the disk, or it would be no workdir.
        needed = sum(leaf.nbytes for leaf in leaves.values())
        free = shutil.disk_usage(self.directory).free
        if free < needed:
            self._failed = True
            space = f"no space left on the disk of {self.directory}: it takes {needed:,} bytes, {free:,} are free"
            raise CheckpointFailed(self._why(space))

    def _wait_for_save(self) -> None:
        with self._failing():
            self._manager.wait_until_finished()
            self._manager.check_for_errors()

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """Whatever orbax dies of in a save, on any of its threads, is a failed save."""
        try:
            yield
        except Exception as error:
            self._failed = True
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            if "No space left on device" in str(error):
                reason = f"no space left on the disk of {self.directory}"
            raise CheckpointFailed(self._why(reason)) from error

    def _why(self, reason: str) -> str:
        try:
            older = ", ".join(map(str, self.steps())) or "none"
        except Exception:
            older = "unknown, it does not answer"
        return (
            f"step {self.newest} could not be saved: {reason}. Whole steps in {self.directory}: {older}. Mend that and "
            "run the same command again: it goes on from the newest of them"
        )

    def _keep_house(self) -> None:
        """Seals what is committed and empties the trash, beside the training."""
        if jax.process_index() == 0 and not (self._keeping is not None and self._keeping.is_alive()):
            with self._failing():
                there = self.steps()
            steps = self._unsealed & set(there)
            self._unsealed -= steps
            old = [] if is_local(self.directory) else there[: -self._keep]
            self._keeping = threading.Thread(target=keep_house, args=(self.directory, steps, old), daemon=True)
            self._keeping.start()

    def _join_keeper(self) -> None:
        if self._keeping is not None:
            self._keeping.join()


def _restore_args(name: str, leaf: jax.ShapeDtypeStruct | jax.Array) -> ocp.ArrayRestoreArgs:
    # Without a sharding orbax would take the stored one, whose devices need not be here.
    if getattr(leaf, "sharding", None) is None:
        raise TypeError(f"{name}: found no sharding, expected jax.ShapeDtypeStruct(shape, dtype, sharding=...)")
    return ocp.ArrayRestoreArgs(sharding=leaf.sharding, global_shape=leaf.shape, dtype=leaf.dtype)


def _as_json(metadata: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return json.loads(json.dumps(dict(metadata)))
    except TypeError as error:
        raise TypeError(f"metadata: {error}; expected dicts, lists, strings, numbers, booleans and None") from error


def _raise_together(directory: epath.Path, step: int, problem: Exception | None) -> None:
    """Raises on all processes what one of them has met: damage, if a file is damaged for all to see, else an error.

    One machine's disk that does not answer is no damage, and nothing is to be passed over or set aside for it.
    """
    away = jax.process_index() > 0 and isinstance(problem and problem.__cause__, OSError)
    corrupted = isinstance(problem, CheckpointCorrupted) and not away
    other = first_problem("" if problem is None or corrupted else f"{type(problem).__name__}: {problem}")
    damage = first_problem(str(problem) if corrupted else "")
    if jax.process_count() == 1 and problem is not None:
        raise problem
    if other:
        raise (problem if problem is not None and not corrupted else OSError(other))
    if damage:
        raise problem or CheckpointCorrupted(directory, step, [damage])


class _RaisedAnyway(logging.Filter):
    """Orbax logs the traceback of every failed save and then raises it; once, in one line, is enough."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and "orbax" in record.pathname)


logging.getLogger("absl").addFilter(_RaisedAnyway())

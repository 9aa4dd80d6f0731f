"""May this workdir be gone on with? What differs is named before anything is made, compiled or rendered."""

import fcntl
import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
from etils import epath

from fooddit.config import differences, to_dict
from fooddit.parallel.processes import first_problem, from_first
from fooddit.training.checkpoint_layout import FOLDER, CheckpointCorrupted, list_steps, read_record
from fooddit.training.frozen import identity
from fooddit.training.goodput import LEDGER_FILE
from fooddit.training.mirror import STATE
from fooddit.training.task import BatchIterator, Experiment


class RunMismatch(ValueError):
    """A workdir that cannot be gone on with: of another experiment or other data, or in use."""


def newest_metadata(directory: epath.PathLike) -> dict[str, Any] | None:
    """Metadata of the newest step whose metadata is whole; None if there is none. Reads no arrays."""
    directory = epath.Path(directory)
    for step in reversed(list_steps(directory)):
        try:
            return read_record(directory, step)[1]
        except CheckpointCorrupted:
            continue  # What is damaged is for `Checkpointer.restore` to report.
    return None


def check_experiment(directory: epath.PathLike, experiment: Experiment) -> dict[str, Any] | None:
    """The newest checkpoint's metadata, None for a new run. RunMismatch, naming each key, if it had another config.

    Keys that do not change what is learned may differ (`config.differences`), and those that
    config.checkpoint.accept_changes names; a name there that is no key is refused, too.
    """
    # Of all processes one looks: what they go on from decides what they do together.
    accepted = experiment.checkpoint.accepted
    metadata = from_first(lambda: {"found": newest_metadata(directory)})["found"]
    if metadata is None:
        return None
    saved = metadata["experiment"]
    if saved["task"] != experiment.task:
        raise RunMismatch(
            f"{directory} holds checkpoints of the task {saved['task']!r}, this config's is {experiment.task!r}; give "
            "another --workdir"
        )
    if unknown := _unknown(experiment, metadata["data"]["fingerprint"]):
        raise RunMismatch(
            f"config.checkpoint.accept_changes: {', '.join(unknown)}: expected keys or sections of the config "
            f"(see --print_config), or of the data: {', '.join(metadata['data']['fingerprint'])}"
        )
    changed = {
        key: values
        for key, values in differences(saved, experiment).items()
        if not any(f"{key}.".startswith(f"config.{name}.") for name in accepted)
    }
    if changed:
        names = ",".join(key.removeprefix("config.") for key in changed)
        lines = "\n".join(f"  {key}: was {was!r}, is {now!r}" for key, (was, now) in changed.items())
        raise RunMismatch(
            f"{directory} was trained with another config:\n{lines}\nUse the values it was trained with, give another "
            "--workdir (config.init_from takes its parameters along), or go on with the new ones: "
            f"--config.checkpoint.accept_changes={names}"
        )
    return metadata


def _unknown(experiment: Experiment, fingerprint: Mapping[str, Any]) -> list[str]:
    """Names in config.checkpoint.accept_changes that neither the config has nor the data's fingerprint."""
    known = {*_names(to_dict(experiment)), *fingerprint}
    return [name for name in experiment.checkpoint.accepted if name not in known]


def _names(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in values.items():
        yield prefix + name
        if isinstance(value, Mapping):
            yield from _names(value, f"{prefix}{name}.")


def check_data(saved: Mapping[str, Any], batches: BatchIterator, directory: epath.Path, experiment: Experiment) -> None:
    """Raises RunMismatch if `saved`, a checkpoint's position and fingerprint, is not one of these batches.

    A position means something in one dataset only.
    """
    if saved["position"] != batches.position:
        raise RunMismatch(f"{directory}: saved after {saved['position']} batches, found at step {batches.position}")
    # A config key that was let through lets its part of the fingerprint through.
    accepted = {name.rsplit(".", 1)[-1] for name in experiment.checkpoint.accepted}
    before, now = saved["fingerprint"], json.loads(json.dumps(batches.fingerprint))
    changed = {k: (before.get(k), v) for k, v in now.items() if before.get(k) != v and k not in accepted}
    if changed:
        lines = "\n".join(f"  {key}: was {was!r}, is {value!r}" for key, (was, value) in changed.items())
        raise RunMismatch(
            f"{directory} was trained on other data:\n{lines}\nUse the data it was trained on, give another --workdir "
            "(config.init_from takes its parameters along), or go on with the new data: "
            f"--config.checkpoint.accept_changes={','.join(changed)}"
        )


def check_frozen(
    saved: Mapping[str, Any], parts: Mapping[str, Any], directory: epath.Path, experiment: Experiment
) -> None:
    """Raises RunMismatch if a frozen part (its description, by name) is not the one that the checkpoint was trained
    with: other weights behind the same path are another experiment."""
    accepted = {word for name in experiment.checkpoint.accepted for word in name.split(".")}
    changed = [
        name
        for name in sorted({*saved, *parts})
        if name not in accepted and identity(saved.get(name, {})) != identity(parts.get(name, {}))
    ]
    if changed:
        lines = "\n".join(f"  {name}: was {saved.get(name)}, is {parts.get(name)}" for name in changed)
        known = set(_names(to_dict(experiment)))
        keys = [f"towers.{name}" if f"towers.{name}" in known else name for name in changed]
        raise RunMismatch(
            f"{directory} was trained with other frozen parts:\n{lines}\nPut those it was trained with back, give "
            "another --workdir (config.init_from takes its parameters along), or go on with the new ones: "
            f"--config.checkpoint.accept_changes={','.join(keys)}"
        )


# What a run writes to its workdir under names that a stranger's file may have, and what shows that a run was there.
_WRITTEN = ("config.json", "summary.json", "report.html", "samples.png", "metrics.jsonl")
_LOCK = ".lock"


@contextmanager
def only_one(workdir: Path) -> Iterator[None]:
    """Holds WORKDIR/.lock, which dies with the process: process 0 does for all of its run. RunMismatch if another one
    trains there, or if there are files that a run would replace and no sign that a run made them."""
    if jax.process_index() > 0:
        workdir.mkdir(parents=True, exist_ok=True)
        yield
        return
    foreign = [name for name in _WRITTEN if (workdir / name).exists()]
    if foreign and not any((workdir / name).exists() for name in (_LOCK, FOLDER, LEDGER_FILE, STATE)):
        raise RunMismatch(
            f"--workdir {workdir} holds {', '.join(foreign)}, but no run: they would be replaced; expected a new "
            "folder or a run's"
        )
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunMismatch(
            f"--workdir {workdir}: expected a folder or a name for a new one: {error.strerror or error}"
        ) from error
    with (workdir / _LOCK).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise RunMismatch(
                f"{workdir} is in use: process {holder} trains there; wait for it, or give another --workdir"
            ) from error
        file.truncate(0)
        file.write(f"{os.getpid()} on {socket.gethostname()}")
        # Other machines of the run look into it (`same_for_all`): a network's disk has it only then.
        file.flush()
        os.fsync(file.fileno())
        yield


def same_for_all(experiment: Experiment, workdir: Path, checkpoints: epath.PathLike) -> None:
    """With several processes: RunMismatch, on all of them, if their configs differ or they see different folders."""
    if jax.process_count() == 1:
        return
    mine = {"checkpoints": os.fspath(checkpoints), "config": to_dict(experiment)}
    first = from_first(lambda: {**mine, "lock": (workdir / _LOCK).read_text()})
    problem, mine = "", json.loads(json.dumps(mine))
    before, now = (dict(_flat(values["config"])) for values in (first, mine))
    if changed := [key for key in before if before[key] != now.get(key)]:
        lines = "\n".join(f"  config.{key}: {before[key]!r} there, {now.get(key)!r} here" for key in changed)
        problem = f"process 0 was started with another config:\n{lines}\nStart all processes with the same one"
    elif first["checkpoints"] != mine["checkpoints"]:
        problem = f"--workdir: process 0 saves to {first['checkpoints']}, this one to {mine['checkpoints']}; give one"
    elif Path(checkpoints).parent == workdir and not _holds(workdir / _LOCK, first["lock"]):
        problem = (
            f"--workdir {workdir}: this machine does not see the folder that process 0 has locked; give one on a disk "
            "that all machines share, or gs://BUCKET/FOLDER"
        )
    if found := first_problem(problem):
        raise RunMismatch(found)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _holds(path: Path, text: str) -> bool:
    try:
        return path.read_text() == text
    except OSError:
        return False

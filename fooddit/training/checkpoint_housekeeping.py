"""Keeping a folder of steps in order: old ones removed, damaged ones moved, what a kill left swept away, seals written.

Every one of these may be cut off by a kill itself, so each goes through states that mean what they look like.
"""

import sys
from collections.abc import Iterable
from pathlib import Path

from etils import epath

from fooddit.training import checkpoint_layout as layout
from fooddit.training.object_store import children, is_local, move_folder, remove_folder
from fooddit.training.seal import SEAL, is_sealed, write_seal


def keep_house(directory: epath.Path, whole: Iterable[int], old: Iterable[int]) -> None:
    """Removes the steps `old`, seals the steps `whole`, empties the trash."""
    for step in old:
        try:
            remove_folder(directory / str(step), first=layout.COMMITTED)
        except Exception as error:
            # Tried again after the next save.
            print(f"WARNING: {directory / str(step)} cannot be removed: {error}", file=sys.stderr, flush=True)
    for step in sorted(whole) if is_local(directory) else ():
        folder = Path(directory) / str(step)
        try:
            if not is_sealed(folder):
                write_seal(folder)
        except OSError:
            # Removed meanwhile, or the disk is full: the arrays' own checksums still prove the step.
            continue
    empty_trash(directory)


def move_step(folder: epath.Path, target: epath.Path) -> None:
    """Moves a step's folder; it is never in both places with a commit file."""
    if is_local(folder):
        folder.rename(target)
    else:
        move_folder(folder, target, first=layout.COMMITTED)


def empty_trash(directory: epath.Path) -> None:
    """Removes what was renamed into the trash: orbax never does."""
    for path in children(directory / layout.TRASH):
        path.rmtree() if path.is_dir() else path.unlink()


def discard_uncommitted(directory: epath.Path) -> None:
    """Removes what a killed save left. FileExistsError for a folder that holds anything else: it is not ours."""
    known = {*layout.ITEMS, "_CHECKPOINT_METADATA"}
    for path in children(directory):
        if path.name.isdecimal() and path.is_dir() and not layout.was_committed(path):
            strange = sorted({child.name for child in path.iterdir()} - known - {f"{SEAL}.tmp"})
            if strange:
                raise FileExistsError(f"{path} is no saved step: found {strange[:5]} in it; move it out of {directory}")
            path.rmtree()

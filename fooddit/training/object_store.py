"""What object stores do differently from disks: no folders, no renaming, and now and then they are away.

A folder there is what its objects' names have in common. It is removed or moved object by object, in no order, and a
process may be killed in between; so what makes a folder count, its commit file, goes first.
"""

import os
import re

import fsspec
from etils import epath

# tensorstore's status words for a store that does not answer; NOT_FOUND and DATA_LOSS are about the bytes themselves.
_AWAY = re.compile(r"\b(UNAVAILABLE|PERMISSION_DENIED|UNAUTHENTICATED|DEADLINE_EXCEEDED|RESOURCE_EXHAUSTED|ABORTED)\b")
_CLIENTS = ("aiohttp", "botocore", "gcsfs", "google", "requests", "s3fs", "urllib3")


def is_local(path: epath.PathLike) -> bool:
    return "://" not in os.fspath(path)


def absolute(path: epath.PathLike) -> epath.Path:
    """The path from the root; a URL as it is, of which pathlib would make a local folder with the name "gs:"."""
    path = epath.Path(path)
    return path.absolute() if is_local(path) else path


def children(folder: epath.PathLike) -> list[epath.Path]:
    """What lies in a folder; [] if there is none. Raises what the store says where it does not answer.

    is_dir() must not be asked: of a store that is away it says False, and a run would seem to have no saved steps.
    """
    try:
        return list(epath.Path(folder).iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def remove_folder(folder: epath.Path, first: str) -> None:
    """Removes a folder of a store, the file named `first` before all others."""
    (folder / first).unlink(missing_ok=True)
    folder.rmtree(missing_ok=True)


def move_folder(folder: epath.Path, target: epath.Path, first: str) -> None:
    """Moves a folder of a store without the file named `first`, which is removed before; the store does the copying.

    Killed in between, it leaves a folder without `first` and a part of the copy.
    """
    (folder / first).unlink(missing_ok=True)
    store, source = fsspec.core.url_to_fs(os.fspath(folder))
    # tensorstore wrote past fsspec, which remembers what was there before.
    store.invalidate_cache()
    for path in store.find(source):
        store.cp_file(path, f"{store._strip_protocol(os.fspath(target))}/{path.removeprefix(source).lstrip('/')}")
    folder.rmtree(missing_ok=True)


def is_away(path: epath.PathLike, error: BaseException) -> bool:
    """Whether reading `path` failed because its store was not there or let nobody in, and not by what is in it."""
    if is_local(path):
        return False
    chain = [error]
    while (error := error.__cause__ or error.__context__) is not None and error not in chain:
        chain.append(error)
    return any(_is_away(error) for error in chain) and not any(isinstance(error, FileNotFoundError) for error in chain)


def _is_away(error: BaseException) -> bool:
    if isinstance(error, OSError) or type(error).__module__.split(".")[0] in _CLIENTS:
        return True
    return _AWAY.search(str(error)) is not None

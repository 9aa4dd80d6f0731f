"""Datasets at remote addresses: copied to this machine once, to be read in any order; and copied there when prepared.

ArrayRecord reads single records from anywhere in a file, which wants a local file: its own reader of gs:// asks the
store anew for each record and knows no other store.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from etils import epath

from fooddit.data.disk import naming_full_disk, require_free
from fooddit.data.manifest import MANIFEST, RecordError, parse_manifest, read_manifest

_THREADS = 4
_CHUNK = 8 << 20
_FULL_DISK = "free some, or name a folder on another disk by config.data.cache; what was copied so far is kept"


def is_remote(address: str | os.PathLike) -> bool:
    """Whether it is an address such as gs://bucket/records, and not a folder."""
    return "://" in os.fspath(address)


def default_cache() -> Path:
    """~/.cache/fooddit/records, or that folder of $XDG_CACHE_HOME."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "fooddit" / "records"


def stage(address: str, split: str, cache: str = "") -> Path:
    """Copies what one split of a remote dataset needs to a local folder, once, and returns the folder.

    The folder is named by the dataset's fingerprint, inside `cache` ("": `default_cache`), and may be deleted at any
    time. Files appear under their names when their size is right; one that is there with that size is not copied again,
    and a copy that was killed goes on where it stopped. Two processes may call this at once. What is missing or of
    another size at the address is said on stderr and left out, for `Dataset` to count.

    Raises RecordError: no dataset there, or it cannot be reached. OSError: the disk is full.
    """
    remote = _remote_path(address)
    try:
        data = b"".join(_chunks(remote / MANIFEST))
    except FileNotFoundError as error:
        raise RecordError(
            f"{address}: not a dataset, it has no {MANIFEST}; make one: fooddit prepare SOURCE {address}"
        ) from error
    manifest = parse_manifest(data, remote / MANIFEST)
    folder = (Path(cache).expanduser() if cache else default_cache()) / manifest["fingerprint"][:32]
    folder.mkdir(parents=True, exist_ok=True)
    entry = manifest["splits"].get(split, {"index": None, "shards": []})
    files = [file for file in (entry["index"], *entry["shards"]) if file]
    with _alone(folder), naming_full_disk(folder, _FULL_DISK):
        wanted = [file for file in files if not _is_whole(folder, file)]
        _copy_all(remote, folder, wanted, address)
        if not _has(folder / MANIFEST, data):
            partial = folder / f".{MANIFEST}.partial"
            partial.write_bytes(data)
            os.replace(partial, folder / MANIFEST)
    return folder


def require_absent(address: str) -> None:
    """Raises FileExistsError if there is a dataset at a remote address."""
    with _naming_address(address):
        if (_remote_path(address) / MANIFEST).exists():
            raise FileExistsError(f"{address}: a dataset exists there already; choose another address or remove it")


def upload(folder: str | Path, address: str) -> None:
    """Copies a dataset folder to a remote address, the manifest last: until then nobody takes it for a dataset.

    What a run that was killed left there is overwritten. Raises FileExistsError if a dataset is there already;
    RecordError if `folder` is none or the address cannot be written.
    """
    folder, remote = Path(folder), _remote_path(address)
    read_manifest(folder)
    require_absent(address)
    names = sorted(path.name for path in folder.iterdir() if path.is_file() and path.name != MANIFEST)
    try:
        with _naming_address(address), ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(lambda name: _send(folder / name, remote / name), names))
            _send(folder / MANIFEST, remote / MANIFEST)
    except FileNotFoundError as error:
        raise RecordError(f"{address}: cannot be written, there is no such bucket ({error}); make it first") from error


def _remote_path(address: str) -> epath.Path:
    try:
        return epath.Path(address)
    except (KeyError, ValueError) as error:
        raise RecordError(f"{address}: no store of that kind is known ({error}); use gs:// or copy it here") from error


def _copy_all(remote: epath.Path, folder: Path, files: list[dict[str, Any]], address: str) -> None:
    if not files:
        return
    total = sum(file["bytes"] for file in files)
    partial = sum(path.stat().st_size for file in files if (path := _partial(folder, file)).exists())
    require_free(folder, total - partial, _FULL_DISK)
    print(f"copying {len(files)} files, {total / 1e6:,.1f} MB, of {address} to {folder}", file=sys.stderr, flush=True)
    with ThreadPoolExecutor(_THREADS) as pool:
        # All are waited for before the first error is raised.
        for problem in list(pool.map(lambda file: _copy(remote, folder, file), files)):
            if problem:
                print(f"{address}: {problem}", file=sys.stderr, flush=True)


def _copy(remote: epath.Path, folder: Path, file: dict[str, Any]) -> str | None:
    """Goes on with a file's partial copy; returns what is wrong with the original, if anything."""
    partial, original = _partial(folder, file), remote / file["name"]
    try:
        with _naming_address(original):
            found = original.stat().length
    except FileNotFoundError:
        return f"{file['name']} is missing"
    if found != file["bytes"]:
        return f"{file['name']} has {found:,} bytes, expected {file['bytes']:,}"
    with partial.open("ab") as out:
        if out.tell() > file["bytes"]:
            out.truncate(0)
        for chunk in _chunks(original, out.tell()):
            out.write(chunk)
    if not _is_whole(folder, file, partial):
        partial.unlink()
        return f"{file['name']} came damaged; copy it there again"
    os.replace(partial, folder / file["name"])
    return None


def _chunks(path: epath.Path, start: int = 0) -> Iterator[bytes]:
    """What a remote file holds from byte `start` on."""
    with _naming_address(path), path.open("rb") as file:
        file.seek(start)
        while chunk := file.read(_CHUNK):
            yield chunk


def _send(local: Path, remote: epath.Path) -> None:
    with local.open("rb") as source, remote.open("wb") as out:
        shutil.copyfileobj(source, out, _CHUNK)
    if (found := remote.stat().length) != local.stat().st_size:
        raise RecordError(f"{remote}: has {found:,} bytes after copying, expected {local.stat().st_size:,}; try again")


def _partial(folder: Path, file: dict[str, Any]) -> Path:
    return folder / f".{file['name']}.partial"


def _is_whole(folder: Path, file: dict[str, Any], path: Path | None = None) -> bool:
    """By its size; an index also by its hash. Records have checksums of their own, checked as they are read."""
    path = path or folder / file["name"]
    if not path.is_file() or path.stat().st_size != file["bytes"]:
        return False
    return "sha256" not in file or hashlib.sha256(path.read_bytes()).hexdigest() == file["sha256"]


def _has(path: Path, data: bytes) -> bool:
    return path.is_file() and path.read_bytes() == data


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time; the system lets go of the lock when a process ends, however it ends."""
    with (folder / ".lock").open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another process that copies records to {folder}", file=sys.stderr, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _naming_address(address: str | epath.Path) -> Iterator[None]:
    """Whatever a store's client raises names the address; that nothing is there passes."""
    try:
        yield
    except ImportError as error:
        raise RecordError(f"{address}: needs a package for this store ({error}); pip install -e '.[gcs]'") from error
    except (RecordError, FileExistsError, FileNotFoundError):
        raise
    except Exception as error:
        raise RecordError(f"{address}: the store cannot be used: {type(error).__name__}: {error}") from error

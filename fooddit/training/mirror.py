"""A workdir on an object store: what a run writes goes to a local folder, and from there to the store, on a thread.

Object stores cannot append, and a run appends to its metrics at every line; so each small file is uploaded whole when
it has changed. Checkpoints are not mirrored: orbax writes them to the store itself.
"""

import hashlib
import importlib.util
import json
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import jax
from etils import epath

from fooddit.config import ConfigError
from fooddit.training.checkpoint_layout import FOLDER

# The stores that orbax can write checkpoints to (of s3:// it says "path should be absolute"), and fsspec's package for
# each.
SCHEMES = {"gs": "gcsfs"}
INTERVAL = 60.0
STATE = ".mirror.json"
# More than any file that a run reads when it goes on.
_LARGEST = 1 << 28
_DOWNLOADS = 16
# A file that the store refuses does not hold up the others; a store that is away is not asked for each of them.
_REFUSALS = 3
# At most this share of the time is spent uploading, however large the files have grown.
_SHARE = 0.05


class Mirror:
    """Keeps the folder `remote` as the folder `local` is; names that begin with a dot or end in .tmp stay local.

    Files are written whole, so that a reader of the store sees one version or the next. Nothing is ever deleted there.
    """

    def __init__(self, remote: epath.Path, local: Path):
        self.remote, self.local = remote, local
        self._store, self._root = fsspec.core.url_to_fs(os.fspath(remote))
        # name: (size and time of the local file, version of the remote one), as of when they were the same.
        self._same: dict[str, tuple[list[int], str]] = self._load_state()
        self._stop, self._thread = threading.Event(), None
        self._troubled = False

    def fetch(self) -> list[str]:
        """Downloads what is newer on the store than in the local folder; returns the names of what was downloaded.

        A local file that changed since it was uploaded, and was not replaced on the store by another machine, stays.
        One that was uploaded and has been deleted on the store since is deleted here. Raises OSError if the store
        cannot be read.
        """
        self.local.mkdir(parents=True, exist_ok=True)
        try:
            remote = self._list_remote()
            newer = [name for name, (_, version) in remote.items() if not self._has(name, version)]
            for name in [name for name in newer if remote[name][0] > _LARGEST]:
                _say(f"{self.remote / name} has {remote[name][0]:,} bytes: it is left there, a run reads no such file")
                newer.remove(name)
            with ThreadPoolExecutor(_DOWNLOADS) as pool:
                list(pool.map(lambda name: self._download(name, remote[name][1]), newer))
        except Exception as error:
            raise OSError(f"{self.remote} cannot be read: {_reason(error)}") from error
        for name in self._same.keys() - remote.keys():
            (self.local / name).unlink(missing_ok=True)
            del self._same[name]
        self._save_state()
        return newer

    def check_writable(self) -> None:
        """Writes and deletes an empty object. OSError if that fails: better now than at the first save."""
        try:
            self._store.pipe_file(f"{self._root}/.writable", b"")
            self._store.rm_file(f"{self._root}/.writable")
        except Exception as error:
            raise OSError(f"{self.remote} cannot be written and deleted in: {_reason(error)}") from error

    def start(self, interval: float = INTERVAL) -> None:
        """Uploads what has changed every `interval` seconds, on a thread that no failure ends."""
        self._thread = threading.Thread(target=self._run, args=(interval,), name="mirror", daemon=True)
        self._thread.start()

    def close(self, timeout: float = 60.0) -> list[str]:
        """Makes a last pass, for `timeout` seconds at most; returns the names of what could not be uploaded."""
        if self._thread is None:
            return []
        self._stop.set()
        self._thread.join(timeout)
        return self._changed()

    def upload(self) -> None:
        """One pass: uploads every file that has changed since it was uploaded last. Failures are told, not raised."""
        refusals = 0
        for name in self._changed():
            try:
                self._upload(name)
                refusals = 0
            except Exception as error:
                # A file that was moved or deleted since it was listed is no failure.
                if (self.local / name).exists():
                    self._complain(name, error)
                    refusals += 1
            if refusals == _REFUSALS:
                break
        self._save_state()

    def _run(self, interval: float) -> None:
        last = False
        while True:
            began = time.monotonic()
            try:
                self.upload()
            except Exception as error:
                # A local disk that is full or away; the run itself will say more about it.
                self._complain(STATE, error)
            if last:
                return
            last = self._stop.wait(max(interval, (time.monotonic() - began) / _SHARE))

    def _upload(self, name: str) -> None:
        path, target = self.local / name, f"{self._root}/{name}"
        # The time first: what is appended while we read is uploaded at the next pass.
        stamp = _stamp(path)
        self._store.pipe_file(target, path.read_bytes())
        self._same[name] = stamp, _version(self._store.info(target))
        if self._troubled:
            _say(f"uploading to {self.remote} again")
            self._troubled = False

    def _download(self, name: str, version: str) -> None:
        path = self.local / name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".tmp")
        temporary.write_bytes(self._store.cat_file(f"{self._root}/{name}"))
        os.replace(temporary, path)
        self._same[name] = _stamp(path), version

    def _has(self, name: str, version: str) -> bool:
        """Whether the local file is that version, or what became of it here."""
        return name in self._same and self._same[name][1] == version and (self.local / name).exists()

    def _complain(self, name: str, error: Exception) -> None:
        if not self._troubled:
            _say(f"{self.remote / name} cannot be uploaded: {_reason(error)}; the run goes on, trying again")
        self._troubled = True

    def _changed(self) -> list[str]:
        """Local files that are not on the store as they are, oldest first: metrics before the report made of them."""
        stamps = {}
        for folder, subfolders, names in os.walk(self.local):
            subfolders[:] = [name for name in subfolders if _is_ours(name, Path(folder) == self.local)]
            for path in (Path(folder) / name for name in names if _is_ours(name, Path(folder) == self.local)):
                try:
                    stamps[path.relative_to(self.local).as_posix()] = _stamp(path)
                except FileNotFoundError:
                    continue
        changed = [name for name, stamp in stamps.items() if name not in self._same or self._same[name][0] != stamp]
        return sorted(changed, key=lambda name: stamps[name][1])

    def _list_remote(self) -> dict[str, tuple[int, str]]:
        self._store.invalidate_cache()
        found = {}
        try:
            for folder, subfolders, files in self._store.walk(self._root, detail=True, on_error="raise"):
                below = folder.removeprefix(self._root).strip("/")
                for name in [name for name in subfolders if not _is_ours(name, not below)]:
                    del subfolders[name]
                for name, info in files.items():
                    if name and _is_ours(name, not below):
                        found[f"{below}/{name}".lstrip("/")] = int(info["size"]), _version(info)
        except FileNotFoundError:
            # A prefix without objects: on a store, a folder that is empty does not exist.
            pass
        return found

    def _load_state(self) -> dict[str, tuple[list[int], str]]:
        try:
            state = json.loads((self.local / STATE).read_text(encoding="utf-8"))
            return {name: (stamp, version) for name, (stamp, version) in state[os.fspath(self.remote)].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            # None yet, or one that was cut off: what is on the store then counts as newer.
            return {}

    def _save_state(self) -> None:
        temporary = self.local / f"{STATE}.tmp"
        temporary.write_text(json.dumps({os.fspath(self.remote): self._same}), encoding="utf-8")
        os.replace(temporary, self.local / STATE)


@contextmanager
def local_workdir(
    workdir: str, interval: float = INTERVAL, at_end: Callable[[Callable[[], Any]], None] = lambda action: None
) -> Iterator[tuple[Path, epath.Path]]:
    """(the local folder a run writes to, where its checkpoints go) for a workdir that may be a URL.

    A local workdir is itself. For a URL, the local folder lies in the user's cache, the same at every start, and is
    mirrored by process 0: jax.distributed must be up before. `at_end` is told of the last pass, for whoever ends the
    process without leaving the context. Raises ValueError for a URL that cannot be a workdir,
    OSError if the store cannot be used.
    """
    if not is_url(workdir):
        yield Path(workdir), epath.Path(workdir) / FOLDER
        return
    remote = check_url(workdir)
    logging.getLogger("gcsfs").addFilter(_without_traceback)
    mirror = Mirror(remote, local_copy(remote))
    mirror.fetch()
    if jax.process_index() == 0:
        mirror.check_writable()
        mirror.start(interval)
        at_end(mirror.close)
    try:
        yield mirror.local, remote / FOLDER
    finally:
        if left := mirror.close():
            more = f" and {len(left) - 5} more" if len(left) > 5 else ""
            _say(f"not uploaded to {remote}: {', '.join(left[:5])}{more}; they are in {mirror.local}")


def is_url(workdir: str) -> bool:
    """Whether it begins with a scheme, right or wrong: two letters or more, a colon and a slash."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", workdir) is not None


def check_url(workdir: str) -> epath.Path:
    """The folder on a store that a URL means. ConfigError if it is none that a run can be kept in."""
    supported = " or ".join(f"{scheme}://BUCKET/FOLDER" for scheme in SCHEMES)
    scheme, rest = workdir.split(":/", 1)
    if scheme not in SCHEMES or not re.match(r"/[^/]+/+[^/]", rest):
        raise ConfigError(
            f"workdir: found {workdir!r}, expected a local folder or {supported}; other stores, s3 among them, can be "
            "mounted as a folder"
        )
    if importlib.util.find_spec(SCHEMES[scheme]) is None:
        raise ConfigError(f"workdir: {workdir!r} needs the package {SCHEMES[scheme]}: pip install {SCHEMES[scheme]}")
    return epath.Path(f"{scheme}://" + re.sub("/+", "/", rest.strip("/")))


def local_copy(remote: epath.Path) -> Path:
    """The local folder of a remote workdir, made from its address; processes of one machine have one each."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    key = hashlib.sha256(os.fspath(remote).encode()).hexdigest()[:12]
    process = f"-{jax.process_index()}" if jax.process_index() else ""
    return home / "fooddit" / "workdirs" / f"{remote.name}-{key}{process}"


def _is_ours(name: str, at_top: bool) -> bool:
    """Of a file's or folder's name. Checkpoints go their own way, records are made again; ".." would lead out."""
    elsewhere = at_top and (name == FOLDER or name.startswith("records-"))
    return not (elsewhere or name.startswith(".") or name.endswith(".tmp"))


def _stamp(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]


def _version(info: dict[str, Any]) -> str:
    """What the store says of a version of an object: its generation or hash, else size and time."""
    known = ("generation", "etag", "ETag", "md5Hash", "size", "mtime")
    return " ".join(f"{key}={info[key]}" for key in known if info.get(key) is not None)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _without_traceback(record: logging.LogRecord) -> bool:
    """gcsfs logs the traceback of what it raises; who catches it says it in one line."""
    return not record.exc_info


def _say(line: str) -> None:
    print(f"WARNING: {line}", file=sys.stderr, flush=True)

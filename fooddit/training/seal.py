"""A step's files as they were when it was whole: size and CRC-32 of each, so that a changed bit of any is found.

The checksums of the arrays prove what is restored; the seal proves every byte of the folder, in a fraction of the time
and without reading an array. It is written last, after the commit file: a step without it was killed in between, or
lies on an object store, which checks its own bytes.
"""

import json
import os
import zlib
from pathlib import Path

SEAL = "seal.json"
_CHUNK = 1 << 22


def write_seal(folder: Path) -> None:
    """Seals a committed step. FileNotFoundError if it is removed meanwhile."""
    files = {name: list(_size_and_sum(folder / name)) for name in _files(folder)}
    temporary = folder / f"{SEAL}.tmp"
    temporary.write_text(json.dumps({"files": files, "sum": _sum_of(files)}), encoding="utf-8")
    os.replace(temporary, folder / SEAL)


def is_sealed(folder: Path) -> bool:
    return (folder / SEAL).exists()


def broken_files(folder: Path, contents: bool = True) -> list[str]:
    """What differs from the seal, a line a file; [] if nothing does, or if there is no seal.

    contents: read every byte; else only sizes are looked at.
    """
    if not is_sealed(folder):
        return []
    try:
        content = json.loads((folder / SEAL).read_text(encoding="utf-8"))
        files = {name: (int(size), str(digest)) for name, (size, digest) in content["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        return [f"{SEAL}: cannot be read: {type(error).__name__}: {error}"]
    if content.get("sum") != _sum_of(content["files"]):
        return [f"{SEAL}: does not match its own checksum"]
    return [problem for name in files if (problem := _difference(folder / name, name, *files[name], contents))]


def _difference(path: Path, name: str, size: int, digest: str, contents: bool) -> str | None:
    try:
        found_size = path.stat().st_size
        if found_size != size:
            return f"{name}: {found_size:,} bytes, was sealed with {size:,}"
        found = _size_and_sum(path)[1] if contents else digest
    except OSError as error:
        return f"{name}: {error.strerror or error}"
    return None if found == digest else f"{name}: CRC-32 {found}, was sealed with {digest}"


def _files(folder: Path) -> list[str]:
    found = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(SEAL))
    return [path.relative_to(folder).as_posix() for path in found]


def _size_and_sum(path: Path) -> tuple[int, str]:
    size = digest = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            size, digest = size + len(chunk), zlib.crc32(chunk, digest)
    return size, f"{digest:08x}"


def _sum_of(files: dict) -> str:
    return f"{zlib.crc32(json.dumps(files, sort_keys=True).encode()):08x}"

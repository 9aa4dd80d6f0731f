"""A compiled program in a file, with a fingerprint of what made it."""

import json
import pickle
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from jax.experimental import serialize_executable

_COMPILERS = ("jax", "jaxlib", "libtpu", "jax-cuda13-plugin")
_MAGIC = b"fooddit executable 1\n"


def save_executable(compiled, topology: str, path: Path) -> None:
    """Writes an executable; `load_executable` takes it where the compilers and the devices are the same."""
    payload, inputs, outputs = serialize_executable.serialize(compiled)
    header = json.dumps({"topology": topology, "compilers": compilers()}).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_MAGIC + header + b"\n" + pickle.dumps((payload, inputs, outputs)))


def read_fingerprint(path: Path) -> dict:
    """{"topology", "compilers"} of a file. ValueError if it is no executable of ours."""
    with path.open("rb") as file:
        if file.readline() != _MAGIC:
            raise ValueError(f"{path}: not written by fooddit compile --out")
        return json.loads(file.readline())


def load_executable(path: Path):
    """The executable, on this machine's devices; only from a file that you trust: it is a pickle.

    Raises:
      ValueError: not an executable, or made by other versions of the compilers.
    """
    made = read_fingerprint(path)["compilers"]
    here = compilers()
    other = [f"{name} {made[name]}, here {here.get(name, 'none')}" for name in made if made[name] != here.get(name)]
    if other:
        raise ValueError(f"{path} was compiled by {'; '.join(other)}: compile it again")
    with path.open("rb") as file:
        file.readline(), file.readline()
        return serialize_executable.deserialize_and_load(*pickle.load(file))


def compilers() -> dict[str, str]:
    """Versions of the packages that decide what is compiled, where they are installed."""
    found = {}
    for name in _COMPILERS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found

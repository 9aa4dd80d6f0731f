"""Folders in the Hugging Face layout: config.json and safetensors, one file or shards, read a part at a time."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

CONFIG = "config.json"
# A file's hash takes all of a small one, and of a large one this many pieces of this size, evenly spread, and its end.
_PIECE, _PIECES = 1 << 16, 256


class TensorError(ValueError):
    """A folder that is not a model's, or whose tensors are not those that the model needs."""


class TensorFolder:
    """The tensors of a folder: NAME.safetensors, or the shards that NAME.safetensors.index.json lists.

    Attributes:
      config: what config.json says.
      shapes: of all tensors, by name.
      fingerprint: SHA-256, in hex, of config.json and of the files' headers and content; of files over 16 MiB it takes
        samples of the content, so that naming 20 GB takes no minute.

    Raises:
      TensorError: no such folder, file or shard, or one that cannot be read.
    """

    def __init__(self, path: str | Path, stem: str = "model"):
        self.path = Path(path)
        if not self.path.is_dir():
            raise TensorError(f"{path}: no such folder; expected one with {CONFIG} and {stem}.safetensors")
        self.config = _read_json(self.path / CONFIG)
        self._files = _files(self.path, stem)
        self._open: dict[str, Any] = {}
        self._where: dict[str, str] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        for file in self._files:
            for name in self._handle(file).keys():
                self._where[name] = file
                self.shapes[name] = tuple(self._handle(file).get_slice(name).get_shape())

    def read(self, name: str, index: tuple[slice, ...] = ()) -> np.ndarray:
        """A tensor, or the part of it at `index` (slices without steps); nothing else is read."""
        if name not in self._where:
            raise TensorError(
                f"{self.path}: no tensor {name!r}; it has {len(self.shapes)}, such as {_some(self.shapes)}"
            )
        stored = self._handle(self._where[name])
        return stored.get_slice(name)[index] if index else stored.get_tensor(name)

    @property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(json.dumps(self.config, sort_keys=True).encode())
        for file in self._files:
            digest.update(_sampled(self.path / file))
        return digest.hexdigest()

    def _handle(self, file: str):
        if file not in self._open:
            try:
                self._open[file] = safe_open(str(self.path / file), framework="numpy")
            except (SafetensorError, OSError) as error:
                raise TensorError(f"{self.path / file}: cannot be read as safetensors: {error}") from error
        return self._open[file]


def _files(folder: Path, stem: str) -> list[str]:
    index = folder / f"{stem}.safetensors.index.json"
    if index.is_file():
        found = sorted(set(_read_json(index).get("weight_map", {}).values()))
        absent = [name for name in found if not (folder / name).is_file()]
        if not found or absent:
            raise TensorError(f"{index} lists {absent[0] if absent else 'no file'}; download the folder again")
        return found
    if not (folder / f"{stem}.safetensors").is_file():
        others = [path.name for path in folder.glob("*.bin")] + [path.name for path in folder.glob("*.pt*")]
        hint = f"; {others[0]} is a pickle: save it as safetensors first" if others else ""
        raise TensorError(f"{folder}: expected {stem}.safetensors or {index.name}, found neither{hint}")
    return [f"{stem}.safetensors"]


def _read_json(path: Path) -> dict:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TensorError(f"{path}: no such file; expected a model's folder in the Hugging Face layout") from None
    except ValueError as error:
        raise TensorError(f"{path}: not JSON ({error}); download it again") from error
    if not isinstance(found, dict):
        raise TensorError(f"{path}: expected a JSON object, found a {type(found).__name__}")
    return found


def _sampled(path: Path) -> bytes:
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        if size <= _PIECE * _PIECES:
            digest.update(file.read())
        else:
            for start in np.linspace(0, size - _PIECE, _PIECES).astype(np.int64).tolist():
                file.seek(start)
                digest.update(file.read(_PIECE))
    return digest.digest()


def _some(names) -> str:
    return ", ".join(sorted(names)[:3])

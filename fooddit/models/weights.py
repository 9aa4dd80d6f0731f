"""Weights in safetensors files: nested dicts of arrays with a JSON description, and a hash to name them by."""

import hashlib
import json
from importlib import resources
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

# Files beside this package; a path of the form builtin:NAME means fooddit/models/pretrained/NAME.safetensors.
BUILTIN = "builtin:"


class WeightsError(ValueError):
    """A file that is not one that `save_weights` wrote."""


def save_weights(path: str | Path, params: dict, description: dict, dtype=np.float16) -> None:
    """Writes a nested dict of arrays as `dtype`, with a JSON description in the file's metadata."""
    flat = {name: np.ascontiguousarray(array, dtype) for name, array in _flatten(params)}
    # The library makes a file that its owner alone may read; this one has the user's own mode.
    Path(path).touch()
    mode = Path(path).stat().st_mode
    save_file(flat, str(path), metadata={"fooddit": json.dumps(description, ensure_ascii=False)})
    Path(path).chmod(mode)


def load_weights(path: str) -> tuple[dict, dict, str]:
    """(nested dict of float32 arrays, description, sha256 of the file) from a file or `builtin:NAME`.

    Raises:
      FileNotFoundError: no such file; WeightsError: not a file that `save_weights` wrote.
    """
    file = resolve_weights(path)
    params: dict = {}
    try:
        with safe_open(str(file), framework="numpy") as stored:
            description = json.loads((stored.metadata() or {})["fooddit"])
            for name in stored.keys():
                *parents, leaf = name.split("/")
                node = params
                for parent in parents:
                    node = node.setdefault(parent, {})
                node[leaf] = stored.get_tensor(name).astype(np.float32)
    except (SafetensorError, KeyError) as error:
        raise WeightsError(
            f"{file}: expected weights written by fooddit (safetensors with a description): {error}"
        ) from error
    return params, description, hashlib.sha256(file.read_bytes()).hexdigest()


def resolve_weights(path: str) -> Path:
    """The file that a path or `builtin:NAME` names; FileNotFoundError if there is none."""
    file = Path(path)
    if path.startswith(BUILTIN):
        folder = resources.files("fooddit.models") / "pretrained"
        file = Path(str(folder)) / f"{path.removeprefix(BUILTIN)}.safetensors"
    if not file.is_file():
        raise FileNotFoundError(f"{path}: no such weights ({file}); expected a .safetensors file or {BUILTIN}NAME")
    return file


def resolve_folder(source: str) -> Path:
    """The folder that a path or `builtin:NAME` names, whether or not it is there."""
    if source.startswith(BUILTIN):
        return Path(str(resources.files("fooddit.models") / "pretrained")) / source.removeprefix(BUILTIN)
    return Path(source).expanduser()


def _flatten(params: dict, prefix: str = ""):
    for name, value in params.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}/")
        else:
            yield prefix + name, value

"""A run's averaged parameters as a folder that anyone reads: safetensors by torch's names, config.json, tokenizer.json.

Such a folder can stand where a run's workdir can: pictures are drawn from it, and runs start from it.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fooddit.models.own_names import own_sources, read_own
from fooddit.models.tensors import TensorError, TensorFolder, save_folder
from fooddit.training.checkpoint_layout import named_leaves, nest
from fooddit.training.checksum import checksums
from fooddit.training.object_store import is_local

MODEL_TYPE, KIND = "fooddit_text_to_image", "text_to_image"
TOKENIZER = "tokenizer.json"
_VERSION = 2
# Of a file: what the host holds beside the parameters while they are written.
_SHARD_BYTES = 1 << 30


def is_exported(directory: str | os.PathLike) -> bool:
    """Whether a folder is meant as a model in the Hugging Face layout, ours or another one, and not as a workdir."""
    folder = Path(directory)
    if not is_local(directory) or not folder.is_dir():
        return False
    if any((folder / name).exists() for name in ("model.safetensors", "model.safetensors.index.json")):
        return True
    try:
        return "model_type" in json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False


def save_exported(
    path: str | Path,
    params: Mapping[str, Any],
    metadata: Mapping[str, Any],
    dtype: str = "float32",
    shard_bytes: int = _SHARD_BYTES,
) -> None:
    """Writes parameters with what their checkpoint says of them (`load_parameters` gives both).

    Exact in float32; a folder that appears when it is whole, in files of at most `shard_bytes`.

    Raises:
      ValueError: a checkpoint of another kind; FileExistsError: `path` is there already.
    """
    task = dict(metadata["task"])
    if task["kind"] != KIND:
        raise ValueError(
            f"holds a checkpoint of kind {task['kind']!r}, expected {KIND}; main.py --export writes others"
        )
    texts = {}
    if words := task.get("tokenizer"):
        texts[TOKENIZER] = words
        task["tokenizer"] = {"file": TOKENIZER, "sha256": _sha256(words)}
    config = {
        "model_type": MODEL_TYPE,
        "format_version": _VERSION,
        "dtype": dtype,
        "step": metadata["step"],
        "task": task,
        "experiment": metadata["experiment"],
        "checksums": {name: _checksum(leaf.astype(dtype, copy=False)) for name, leaf in named_leaves(params).items()},
    }
    save_folder(path, config, own_sources(params), params, dtype=dtype, shard_bytes=shard_bytes, texts=texts)


def load_exported(path: str | os.PathLike, step: int | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """(parameters as a nested dict of float32 numpy arrays, metadata), as `load_parameters` gives them of a run.

    Arrays are checked by the checksums in config.json, unless someone else wrote them and took the checksums out.

    Raises:
      TensorError: another model's folder, or one that is damaged or not whole; FileNotFoundError: one of another step.
    """
    folder = _open(path)
    metadata = _metadata(folder)
    if step not in (None, metadata["step"]):
        raise FileNotFoundError(f"{path}: expected step {step}, found an exported model of step {metadata['step']}")
    leaves = read_own(folder)
    if "checksums" in folder.config:
        _check(folder, leaves, folder.config["checksums"])
    for name, leaf in leaves.items():
        leaves[name] = leaf.astype(np.float32, copy=False)
    return nest(leaves), metadata


def exported_metadata(path: str | os.PathLike) -> dict[str, Any]:
    """The metadata of `load_exported`, without reading arrays. TensorError as there."""
    return _metadata(_open(path))


def require_shapes(params: Mapping[str, Any], shapes: Mapping[str, Any], source: str) -> None:
    """Raises TensorError, naming all of them, for parameters of `source` that are not those of a model."""
    found, expected = ({name: tuple(x.shape) for name, x in named_leaves(tree).items()} for tree in (params, shapes))
    wrong = [
        f"{name}: found {found.get(name, 'nothing')}, expected {expected.get(name, 'nothing')}"
        for name in sorted(found.keys() | expected.keys())
        if found.get(name) != expected.get(name)
    ]
    if wrong:
        raise TensorError(_message(source, "are not those of the model in its config.json", wrong))


def _open(path: str | os.PathLike) -> TensorFolder:
    folder = TensorFolder(path)
    where = folder.path / "config.json"
    if (found := folder.config.get("model_type")) != MODEL_TYPE:
        raise TensorError(f"{where}: model_type is {found!r}, expected {MODEL_TYPE}, as `fooddit export` writes it")
    if (found := folder.config.get("format_version")) != _VERSION:
        raise TensorError(f"{where}: format_version is {found!r}, expected {_VERSION}; export it again")
    if lacking := [name for name in ("task", "experiment", "step") if name not in folder.config]:
        raise TensorError(f"{where}: has no {', '.join(lacking)}; export it again")
    return folder


def _metadata(folder: TensorFolder) -> dict[str, Any]:
    task = dict(folder.config["task"])
    if words := task.get("tokenizer"):
        file = folder.path / words["file"]
        try:
            task["tokenizer"] = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise TensorError(f"{file}: cannot be read ({error}); export the model again") from error
        if _sha256(task["tokenizer"]) != words["sha256"]:
            raise TensorError(f"{file}: is not the tokenizer that the model was exported with; export it again")
    return {"task": task, "experiment": folder.config["experiment"], "step": folder.config["step"]}


def _check(folder: TensorFolder, leaves: Mapping[str, np.ndarray], expected: Mapping[str, str]) -> None:
    wrong = [f"{name}: missing" for name in expected if name not in leaves]
    wrong += [f"{name}: unknown to config.json" for name in leaves if name not in expected]
    for name in leaves.keys() & expected.keys():
        if (found := _checksum(leaves[name])) != expected[name]:
            wrong.append(f"{name}: found {found}, expected {expected[name]}")
    if wrong:
        raise TensorError(_message(folder.path, "are not those that were exported", sorted(wrong)))


def _message(source: str | Path, what: str, wrong: list[str]) -> str:
    shown = wrong[:10] + [f"... and {len(wrong) - 10} more"] * (len(wrong) > 10)
    return f"{source}: {len(wrong)} parameters {what}:\n  " + "\n  ".join(shown)


def _checksum(leaf) -> str:
    return checksums({"": leaf})[""]


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()

"""Published weights: folders in the Hugging Face layout, read and written by a table of where each of our leaves is."""

import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

CONFIG = "config.json"
# A file's hash takes all of a small one, and of a large one this many pieces of this size, evenly spread, and its end.
_PIECE, _PIECES = 1 << 16, 256


class TensorError(ValueError):
    """A folder that is not a model's, or whose tensors are not those that the model needs."""


@dataclass(frozen=True)
class Source:
    """Where one of our leaves is in a published file.

    Attributes:
      name: the tensor's name, or several that are stacked along a new leading axis (our scanned blocks).
      axes: permutation of a stored tensor's axes; (1, 0) makes torch's (out, in) our (in, out).
      part: (number, count): the leaf is that one of `count` equal parts of the stored first axis (fused projections).
      stored: shape in the file of a tensor that, its axes permuted, is reshaped to our leaf's.
    """

    name: str | tuple[str, ...]
    axes: tuple[int, ...] | None = None
    part: tuple[int, int] | None = None
    stored: tuple[int, ...] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name,) if isinstance(self.name, str) else self.name

    @property
    def stacked(self) -> bool:
        return not isinstance(self.name, str)


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


def load_tree(folder: TensorFolder, sources, shapes, shardings=None, dtype=None):
    """Our tree of jax arrays from a folder's tensors.

    Args:
      sources: the tree of `shapes` with a Source for each leaf.
      shapes: tree of ShapeDtypeStruct.
      shardings: tree of shardings: every device is given its part, and no other part is read; None: one device.
      dtype: of the arrays; None takes that of `shapes`.

    Raises:
      TensorError: tensors that are missing or of another shape, all of them named.
    """
    wanted, tree = jax.tree.flatten(shapes)
    places = tree.flatten_up_to(sources)
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in jax.tree.leaves_with_path(shapes)]
    _check(folder, zip(names, places, wanted, strict=True))
    placed = [None] * len(wanted) if shardings is None else tree.flatten_up_to(shardings)
    return tree.unflatten(
        _place(folder, source, leaf.shape, np.dtype(dtype or leaf.dtype), sharding)
        for source, leaf, sharding in zip(places, wanted, placed, strict=True)
    )


def unused_tensors(folder: TensorFolder, sources) -> list[str]:
    """Tensors of a folder that no leaf takes, in order of their names."""
    taken = itertools.chain.from_iterable(source.names for source in _leaves(sources))
    return sorted(set(folder.shapes) - set(taken))


def save_folder(
    path: str | Path,
    config: dict,
    sources,
    params,
    *,
    dtype=None,
    stem: str = "model",
    shard_bytes: int = 5 << 30,
) -> None:
    """Writes our arrays under their published names: the inverse of `load_tree`, exact if `dtype` holds the values.

    `path` is a new folder, which appears under its name when it is whole.

    Raises:
      FileExistsError: it is there already.
    """
    path = Path(path)
    if path.exists():
        raise FileExistsError(f"{path} is there already; give a new folder")
    work = path.with_name(f"{path.name}.partial")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    (work / CONFIG).write_text(text, encoding="utf-8")
    shards = list(_shards(stored_tensors(sources, params, dtype), shard_bytes))
    index: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = f"{stem}.safetensors" if len(shards) == 1 else f"{stem}-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file(shard, str(work / file), metadata={"format": "pt"})
        index |= dict.fromkeys(shard, file)
    if len(shards) > 1:
        total = sum(array.nbytes for shard in shards for array in shard.values())
        listed = {"metadata": {"total_size": total}, "weight_map": index}
        (work / f"{stem}.safetensors.index.json").write_text(json.dumps(listed, indent=2) + "\n", encoding="utf-8")
    os.replace(work, path)


def stored_tensors(sources, params, dtype=None) -> dict[str, np.ndarray]:
    """Our arrays as a published file has them, by name."""
    leaves, tree = jax.tree.flatten(params)
    found: dict[str, np.ndarray] = {}
    parts: dict[str, dict[int, np.ndarray]] = {}
    for source, leaf in zip(tree.flatten_up_to(sources), leaves, strict=True):
        array = np.asarray(leaf).astype(dtype or leaf.dtype)
        for name, one in zip(source.names, array if source.stacked else [array], strict=True):
            one = np.asarray(_to_stored(source, one), order="C")  # ascontiguousarray makes a vector of a number.
            if source.part is None:
                found[name] = one
            else:
                parts.setdefault(name, {})[source.part[0]] = one
    return found | {name: np.concatenate([these[i] for i in range(len(these))]) for name, these in parts.items()}


def _place(folder: TensorFolder, source: Source, shape: tuple[int, ...], dtype, sharding) -> jax.Array:
    if sharding is None:
        return jax.numpy.asarray(_read(folder, source, shape, (slice(None),) * len(shape)).astype(dtype))
    return jax.make_array_from_callback(
        shape, sharding, lambda index: _read(folder, source, shape, index).astype(dtype)
    )


def _read(folder: TensorFolder, source: Source, shape: tuple[int, ...], index: tuple[slice, ...]) -> np.ndarray:
    """Part of a leaf."""
    if source.stacked:
        return np.stack([_read_one(folder, source, name, shape[1:], index[1:]) for name in source.names[index[0]]])
    return _read_one(folder, source, source.name, shape, index)


def _read_one(folder: TensorFolder, source: Source, name: str, shape: tuple[int, ...], index: tuple[slice, ...]):
    if source.stored is not None:
        whole = folder.read(name)
        return (whole if source.axes is None else whole.transpose(source.axes)).reshape(shape)[index]
    axes = source.axes or tuple(range(len(shape)))
    bounds = [slice(*part.indices(size)[:2]) for part, size in zip(index, shape, strict=True)]
    stored = [bounds[axes.index(axis)] for axis in range(len(axes))]
    if source.part is not None:
        offset = source.part[0] * shape[axes.index(0)]
        stored[0] = slice(stored[0].start + offset, stored[0].stop + offset)
    return folder.read(name, tuple(stored)).transpose(axes)


def _to_stored(source: Source, array: np.ndarray) -> np.ndarray:
    axes = source.axes or tuple(range(array.ndim if source.stored is None else len(source.stored)))
    if source.stored is not None:
        array = array.reshape([source.stored[axis] for axis in axes])
    return array.transpose(np.argsort(axes))


def _stored_shape(source: Source, shape: tuple[int, ...]) -> tuple[int, ...]:
    if source.stored is not None:
        return source.stored
    shape = shape[1:] if source.stacked else shape
    axes = source.axes or tuple(range(len(shape)))
    found = [shape[axes.index(axis)] for axis in range(len(axes))]
    if source.part is not None:
        found[0] *= source.part[1]
    return tuple(found)


def _check(folder: TensorFolder, leaves) -> None:
    wrong = []
    for ours, source, leaf in leaves:
        if source.stacked and len(source.names) != leaf.shape[0]:
            wrong.append(f"{ours}: {len(source.names)} tensors for {leaf.shape[0]} layers")
            continue
        expected = _stored_shape(source, leaf.shape)
        for name in source.names:
            if name not in folder.shapes:
                wrong.append(f"{name}: missing, expected {expected}")
            elif folder.shapes[name] != expected:
                wrong.append(f"{name}: found {folder.shapes[name]}, expected {expected}")
    if wrong:
        more = f"\n  and {len(wrong) - 20} more" if len(wrong) > 20 else ""
        raise TensorError(
            f"{folder.path}: {len(wrong)} tensors are not those of the model in its {CONFIG}:\n  "
            + "\n  ".join(wrong[:20])
            + more
        )


def _leaves(sources) -> list[Source]:
    return jax.tree.leaves(sources, is_leaf=lambda node: isinstance(node, Source))


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


def _shards(tensors: dict[str, np.ndarray], shard_bytes: int) -> Iterator[dict[str, np.ndarray]]:
    shard: dict[str, np.ndarray] = {}
    for name, array in tensors.items():
        if shard and sum(a.nbytes for a in shard.values()) + array.nbytes > shard_bytes:
            yield shard
            shard = {}
        shard[name] = array
    yield shard


def _some(names) -> str:
    return ", ".join(sorted(names)[:3])

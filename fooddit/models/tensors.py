"""Published weights: folders in the Hugging Face layout, read and written by a table of where each of our leaves is."""

import itertools
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from fooddit.models.tensor_folder import CONFIG, TensorError, TensorFolder


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
    texts: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Writes our arrays under their published names: the inverse of `load_tree`, exact if `dtype` holds the values.

    `path` is a new folder, which appears under its name when it is whole. Beside `params`, which may lie on devices in
    parts, the host holds one file's tensors at a time: at most `shard_bytes`, or one tensor.

    Args:
      texts: further files by name, as a tokenizer's.

    Raises:
      FileExistsError: it is there already; OSError: it cannot be written, and nothing is left of it.
    """
    path = Path(path)
    if path.exists():
        raise FileExistsError(f"{path} is there already; give a new folder")
    work = path.with_name(f"{path.name}.partial")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        for name, text in {CONFIG: json.dumps(config, indent=2, ensure_ascii=False) + "\n", **texts}.items():
            (work / name).write_text(text, encoding="utf-8")
        _write_tensors(work, stem, _pieces(sources, params), dtype, shard_bytes)
        os.replace(work, path)
    except SafetensorError as error:
        raise OSError(f"{path} cannot be written: {error}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def stored_tensors(sources, params, dtype=None) -> dict[str, np.ndarray]:
    """Our arrays as a published file has them, by name."""
    return {name: _stored(pieces, dtype) for name, pieces in _pieces(sources, params).items()}


def _write_tensors(folder: Path, stem: str, pieces: "dict[str, list[_Piece]]", dtype, shard_bytes: int) -> None:
    sizes = {name: sum(piece.bytes(dtype) for piece in these) for name, these in pieces.items()}
    shards = list(_shards(sizes, shard_bytes))
    index: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        file = f"{stem}.safetensors" if len(shards) == 1 else f"{stem}-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file({name: _stored(pieces[name], dtype) for name in names}, str(folder / file), metadata={"format": "pt"})
        # The library makes a file that its owner alone may read.
        shutil.copymode(folder / CONFIG, folder / file)
        index |= dict.fromkeys(names, file)
    if len(shards) > 1:
        listed = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": index}
        (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(listed, indent=2) + "\n", encoding="utf-8")


class _Piece(NamedTuple):
    """What one stored tensor, or one of its equal parts, is made of: a leaf, or a layer of a stacked one."""

    source: Source
    leaf: Any
    layer: int | None

    def bytes(self, dtype) -> int:
        layers = 1 if self.layer is None else self.leaf.shape[0]
        return self.leaf.size // layers * np.dtype(dtype or self.leaf.dtype).itemsize

    def stored(self, dtype) -> np.ndarray:
        # A layer is taken before it leaves the devices: an array keeps the copy of itself that the host was given.
        array = np.asarray(self.leaf if self.layer is None else self.leaf[self.layer])
        return _to_stored(self.source, array.astype(dtype or array.dtype, copy=False))


def _pieces(sources, params) -> dict[str, list[_Piece]]:
    """Of each stored tensor, by its name."""
    leaves, tree = jax.tree.flatten(params)
    found: dict[str, list[_Piece]] = {}
    for source, leaf in zip(tree.flatten_up_to(sources), leaves, strict=True):
        layers = range(leaf.shape[0]) if source.stacked else [None]
        for name, layer in zip(source.names, layers, strict=True):
            found.setdefault(name, []).append(_Piece(source, leaf, layer))
    for pieces in found.values():
        pieces.sort(key=lambda piece: piece.source.part or (0, 1))
    return found


def _stored(pieces: list[_Piece], dtype) -> np.ndarray:
    parts = [piece.stored(dtype) for piece in pieces]
    return np.asarray(parts[0] if len(parts) == 1 else np.concatenate(parts), order="C")


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


def _shards(sizes: Mapping[str, int], shard_bytes: int) -> Iterator[list[str]]:
    """Names in order, as many to a file as `shard_bytes` holds."""
    shard: list[str] = []
    for name, size in sizes.items():
        if shard and sum(sizes[other] for other in shard) + size > shard_bytes:
            yield shard
            shard = []
        shard.append(name)
    yield shard

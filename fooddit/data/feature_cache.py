"""Cached features: what frozen encoders made of a dataset's pictures and captions, read by record instead of computed.

A cache is a folder with a folder for each stream: "moments" (of latents: the mean and, if the autoencoder has one, the
log-variance; never a sample), and by text tower NAME (a vector a token) and NAME_pooled (a vector a caption). A stream
has a shard for each of the dataset's, with an index beside it; key.json says what it was made of, stream.json, written
last, which shards it has.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from fooddit.data.data_config import DataConfig, TextInput
from fooddit.data.manifest import RecordError
from fooddit.data.records import Dataset
from fooddit.data.shards import ShardError, Shards

FORMAT, VERSION = "fooddit-features", 1
KEY, STREAM = "key.json", "stream.json"
MOMENTS, POOLED = "moments", "_pooled"
# Raised when pictures are decoded or fitted otherwise, or captions normalised: old caches are then not those features.
PREPROCESSING = 1
DTYPES = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16), "float32": np.dtype(np.float32)}
# Of a shard: its records' numbers of arrays, the arrays that they have, and of each array its checksum and extent.
_INDEX = {"counts": 0, "entries": 0, "crc32": 0, "shapes": (0, 2)}
# Where weights were found is no part of what they are; statistics come in after what is stored.
_PLACES = ("source", "autoencoder")
_LATER = ("statistics",)


def moments_key(dataset: str, config: DataConfig, encoder: Mapping[str, Any]) -> dict[str, Any]:
    """What the moments of a dataset (its fingerprint) depend on; `encoder` is the picture space's description."""
    return {
        "dataset": dataset,
        "encoder": _identity(encoder),
        "image_size": config.image_size,
        "grid": config.grid,
        "max_aspect": config.max_aspect,
        "flip": config.flip,
        "crop": "middle",
        "dtype": "float16",
        "preprocessing": PREPROCESSING,
    }


def text_key(dataset: str, encoder: Mapping[str, Any]) -> dict[str, Any]:
    """What the features of a dataset's captions depend on; `encoder` is a text tower's description."""
    return {"dataset": dataset, "encoder": _identity(encoder), "preprocessing": PREPROCESSING}


def require_key(folder: Path, wanted: Mapping[str, Any], advice: str) -> None:
    """Raises RecordError, naming all that differs, unless the stream in `folder` was made of what `wanted` says."""
    found = dict(_flat(_read_json(folder / KEY)["key"]))
    asked = dict(_flat(json.loads(json.dumps(wanted))))
    names = [name for name in {**found, **asked} if found.get(name) != asked.get(name)]
    if names:
        lines = "\n".join(f"  {name}: was {found.get(name)!r}, is {asked.get(name)!r}" for name in names)
        raise RecordError(f"{folder}: stale, these features were made of something else:\n{lines}\n{advice}")


class FeatureStream:
    """One stream's arrays for the records of a split. Safe to read from several threads.

    Raises RecordError for a stream that is unfinished, or whose files are not those that were written.
    """

    def __init__(self, folder: Path, split: str):
        self.folder = folder
        if not (folder / STREAM).is_file():
            raise RecordError(
                f"{folder}: unfinished; run the same fooddit prepare --cache again, it makes only what is missing"
            )
        manifest = _read_json(folder / STREAM)
        if manifest.pop("checksum", None) != checksum(manifest):
            raise RecordError(f"{folder / STREAM}: damaged or edited; {_remake(folder)}")
        self.width, self.key, shards = manifest["width"], manifest["key"], manifest["splits"][split]
        self._dtype = DTYPES[manifest["dtype"]]
        index = _joined([_read_index(folder, shard) for shard in shards])
        self._first = np.concatenate([[0], np.cumsum(index["counts"])])
        self._entries, self._shapes = index["entries"], index["shapes"]
        self._shards = Shards(folder, shards, index["crc32"].tolist())
        for number, why in self._shards.problems.items():
            raise RecordError(f"{folder / shards[number]['name']}: {why}; {_remake(folder)}")

    def __len__(self) -> int:
        """Records."""
        return len(self._first) - 1

    @property
    def shapes(self) -> np.ndarray:
        """Rows and columns of each record's first array, int64 (n, 2); 0 where it has none."""
        has = np.diff(self._first) > 0
        found = np.zeros((len(self), 2), np.int64)
        found[has] = self._shapes[self._entries[self._first[:-1][has]]]
        return found

    def read(self, records: Sequence[int], items: Sequence[int]) -> list[np.ndarray | ShardError]:
        """(rows, columns, width) arrays, of each record the item of that number; an error where there is none whole."""
        places = self._first[np.asarray(records, np.int64)] + np.asarray(items, np.int64)
        there = places < self._first[np.asarray(records, np.int64) + 1]
        entries = self._entries[places[there]]
        read = iter(self._shards.read(entries))
        shapes = iter(self._shapes[entries].tolist())
        missing = ShardError("it could not be read when the features were made")
        return [self._array(next(read), next(shapes)) if here else missing for here in there.tolist()]

    def _array(self, data: bytes | ShardError, shape: list[int]) -> np.ndarray | ShardError:
        if isinstance(data, ShardError):
            return ShardError(f"of {self.folder.name} in {self.folder.parent}: {data}")
        return np.frombuffer(data, self._dtype).reshape(*shape, self.width)


class Features:
    """A cache's streams for a split, as far as a run's encoders made them: what a batch has in place of its inputs.

    moments: whether there are moments in place of pictures; texts: names of the towers with features in place of ids.
    fingerprint: of what they were made of.
    """

    def __init__(
        self,
        folder: str | Path,
        dataset: Dataset,
        config: DataConfig,
        tokenizers: Mapping[str, TextInput],
        encoders: Mapping[str, Mapping[str, Any]],
    ):
        """`encoders`: the descriptions of the run's picture space, "space", and text towers, by name.

        Raises RecordError: no cache there, nothing of these encoders in it, or a stale or unfinished one.
        """
        self._folder, self._texts = Path(folder), tokenizers
        found = sorted(path.parent.name for path in self._folder.glob(f"*/{KEY}"))
        if not found:
            raise RecordError(
                f"config.data.features: {folder} is no cache of features; make one: fooddit prepare --cache RECORDS "
                f"{folder} --config=FILE, or leave it empty"
            )
        keys = {name: text_key(dataset.fingerprint, encoders[name]) for name in tokenizers if name in encoders}
        keys |= {f"{name}{POOLED}": key for name, key in keys.items()}
        if "space" in encoders:
            keys[MOMENTS] = moments_key(dataset.fingerprint, config, encoders["space"])
        wanted = {name: keys[name] for name in found if name in keys}
        if not wanted:
            raise RecordError(
                f"config.data.features: {folder} has {', '.join(found)}, of which this run uses none "
                f"({', '.join(sorted(keys))}); make another cache, or leave it empty"
            )
        for name, key in wanted.items():
            advice = (
                f"Make them anew in another folder, or {_remake(self._folder / name)}; or empty config.data.features"
            )
            require_key(self._folder / name, key, advice)
        self._streams = {name: FeatureStream(self._folder / name, dataset.split) for name in wanted}
        self.moments = MOMENTS in wanted
        self.texts = tuple(name for name in tokenizers if name in wanted)
        self.fingerprint = checksum(wanted)[:16]

    def check_shapes(self, buckets: np.ndarray) -> None:
        """RecordError unless moments are of pictures of these heights and widths, int64 (n, 2), but for scale."""
        if not self.moments:
            return
        shapes = self._streams[MOMENTS].shapes
        other = (shapes[:, 0] * buckets[:, 1] != shapes[:, 1] * buckets[:, 0]).sum()
        if other:
            raise RecordError(
                f"{self._folder / MOMENTS}: {other} of {len(shapes)} records are in other buckets, since "
                "config.data.batch_size is another one (a bucket with fewer records than a batch joins its "
                f"neighbour); use the one they were made with, or make them anew in another folder"
            )

    def read(
        self, records: Sequence[int], captions: Sequence[int], mirrored: Sequence[bool]
    ) -> list[dict[str, np.ndarray] | ShardError]:
        """Of each record "moments" (h, w, c), mirrored or not, and of its caption of that number (-1 for none) NAME
        _features (length, width), NAME_mask (length,) and NAME_pooled (width,)."""
        found: list[dict[str, np.ndarray] | ShardError] = [{} for _ in records]
        for name, stream in self._streams.items():
            items = np.asarray(mirrored, np.int64) if name == MOMENTS else np.asarray(captions, np.int64)
            rows = np.nonzero(items >= 0)[0].tolist()
            arrays = dict(zip(rows, stream.read([records[row] for row in rows], items[rows]), strict=True))
            for row, others in enumerate(found):
                if isinstance(others, ShardError):
                    continue
                array = arrays.get(row)
                found[row] = array if isinstance(array, ShardError) else others | self._named(name, stream, array)
        return found

    def _named(self, name: str, stream: FeatureStream, array: np.ndarray | None) -> dict[str, np.ndarray]:
        if name == MOMENTS:
            return {MOMENTS: array}
        if name.endswith(POOLED):
            return {name: np.zeros(stream.width, stream._dtype) if array is None else array[0, 0]}
        length = self._texts[name].length
        tokens, count = np.zeros((length, stream.width), stream._dtype), 0 if array is None else len(array)
        if count:
            tokens[:count] = array[:, 0]
        return {f"{name}_features": tokens, f"{name}_mask": np.arange(length) < count}


def checksum(content: Mapping[str, Any]) -> str:
    """The hash of JSON content, in hex."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _read_index(folder: Path, shard: Mapping[str, Any]) -> dict[str, np.ndarray]:
    path = folder / shard["index"]
    data = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(data).hexdigest() != shard["sha256"]:
        raise RecordError(f"{path}: {'damaged or edited' if data else 'missing'}; {_remake(folder)}")
    with np.load(io.BytesIO(data)) as arrays:
        return dict(arrays)


def _joined(indices: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The indices of a split's shards as one: how many arrays each record has, which, and what is known of each."""
    found = {name: [np.zeros(shape, np.int64)] for name, shape in _INDEX.items()}
    for index in indices:
        before = sum(map(len, found["crc32"]))
        for name, parts in found.items():
            parts.append(index[name].astype(np.int64) + (before if name == "entries" else 0))
    return {name: np.concatenate(parts) for name, parts in found.items()}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] == FORMAT and content["version"] == VERSION:
            return content
        found = f"{content['format']} {content['version']}"
    except (OSError, ValueError, TypeError, KeyError) as error:
        found = f"{type(error).__name__}: {error}"
    raise RecordError(f"{path}: found {found}, expected {FORMAT} {VERSION}; {_remake(path.parent)}")


def _remake(folder: Path) -> str:
    return f"remove {folder} and run fooddit prepare --cache again"


def _identity(description: Mapping[str, Any]) -> dict[str, Any]:
    """A description without the place where the weights were, if it has their hash, and without what comes later."""
    hashed = any(description.get(name) for name in ("fingerprint", "sha256"))
    left_out = _LATER + (_PLACES if hashed else ())
    return {name: value for name, value in description.items() if name not in left_out}


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in values.items():
        found += _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [(prefix + name, value)]
    return found

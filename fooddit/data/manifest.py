"""What a dataset folder says of itself: a manifest of its shards, and an index of each split with a row a record.

The manifest carries a checksum of its own content and the hash of each index, the index the CRC-32 of each record: what
is read is what was prepared, or it is noticed.
"""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np

FORMAT = "fooddit-records"
VERSION = 3
MANIFEST = "dataset.json"
SPLITS = ("train", "holdout")

# One row a record: its picture's size in pixels, the numbers of its dish and of the pictures that look like it, and the
# CRC-32 of the record's bytes.
INDEX = np.dtype([(name, "<u4") for name in ("width", "height", "dish", "twin", "crc32")])
# What an older version's datasets do not have.
_LACKING = {1: "without checksums", 2: "without the groups of dishes"}


class RecordError(ValueError):
    """A dataset folder, shard or record that is missing, damaged, or of another format."""


def write_index(folder: Path, split: str, rows: np.ndarray) -> dict[str, Any]:
    """Writes a split's index, `rows` of type INDEX; returns its manifest entry."""
    data = io.BytesIO()
    np.save(data, rows)
    path = folder / f"{split}-index.npy"
    path.write_bytes(data.getvalue())
    return {
        "name": path.name,
        "bytes": len(data.getvalue()),
        "sha256": hashlib.sha256(data.getvalue()).hexdigest(),
    }


def read_index(folder: Path, entry: dict[str, Any]) -> np.ndarray:
    """The index of a split, INDEX (n,), from its part of the manifest. Raises RecordError unless it is as written."""
    path, wanted = folder / entry["index"]["name"], entry["index"]["sha256"]
    if not path.is_file():
        raise RecordError(f"{path}: missing, though {MANIFEST} names it; copy it again or prepare the dataset again")
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != wanted:
        raise RecordError(
            f"{path}: damaged or edited, its SHA-256 is not the one in {MANIFEST}; copy it again or prepare the "
            "dataset again"
        )
    return np.load(io.BytesIO(data))


def write_manifest(folder: str | Path, source: str, splits: dict[str, dict[str, Any]]) -> str:
    """Writes dataset.json, a dataset's last file; returns the fingerprint, a hash of all content hashes in order."""
    order = "".join(splits[split]["fingerprint"] + splits[split]["index"]["sha256"] for split in SPLITS)
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "fingerprint": hashlib.sha256(order.encode()).hexdigest(),
        "source": source,
        "splits": {split: splits[split] for split in SPLITS},
    }
    manifest["checksum"] = _checksum(manifest)
    text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
    (Path(folder) / MANIFEST).write_text(text, encoding="utf-8")
    return manifest["fingerprint"]


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """The content of a local dataset folder's dataset.json. Raises RecordError."""
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise RecordError(f"{folder}: not a dataset, it has no {MANIFEST}; make one: fooddit prepare SOURCE {folder}")
    return parse_manifest(path.read_bytes(), path)


def parse_manifest(data: bytes, path: Any) -> dict[str, Any]:
    """A manifest from its bytes, format, version and checksum checked. Raises RecordError, naming `path`."""
    try:
        manifest = json.loads(data.decode("utf-8"))
    except ValueError as error:
        raise RecordError(f"{path}: damaged, it is not JSON ({error}); copy it or prepare the dataset again") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise RecordError(f"{path}: not the manifest of a dataset (its format is not {FORMAT!r}); prepare one")
    version = manifest.get("version")
    if isinstance(version, int) and version in _LACKING:
        raise RecordError(
            f"{path}: written by an older fooddit (format version {version}, {_LACKING[version]}; expected {VERSION}); "
            f"prepare the dataset again: remove {path.parent}, then fooddit prepare SOURCE {path.parent}"
        )
    if version != VERSION:
        raise RecordError(f"{path}: format version {version!r}, expected {VERSION}; use the fooddit that wrote it")
    checksum = manifest.pop("checksum", None)
    if checksum != _checksum(manifest):
        raise RecordError(
            f"{path}: damaged or edited, its content is not what its checksum says; copy it again or prepare the "
            "dataset again"
        )
    return manifest


def _checksum(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()

"""Features of many pictures, kept on disk: what a network has looked at it need not look at again."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Float, UInt8

from fooddit.evaluation.features import Features


class Bar(Protocol):
    """The part of tqdm's bar that is needed."""

    def update(self, n: int) -> object: ...


# (what is done, how many) -> a bar to fill.
Bars = Callable[[str, int], AbstractContextManager[Bar]]


class FeatureStore:
    """A folder of features by the pictures' bytes and the network's description, a file for each block of pictures."""

    def __init__(self, folder: Path):
        self._folder = folder

    def __call__(
        self, network: Features, blocks: Iterable[UInt8[np.ndarray, "n height width 3"]], bar: Bar
    ) -> Float[np.ndarray, "n features"]:
        """Features of all blocks, in their order."""
        found = [np.zeros((0, network.dimension), np.float32)]
        for block in blocks:
            path = self._folder / f"{_key(network, block)}.npy"
            found.append(self._stored(path, (len(block), network.dimension)))
            if found[-1] is None:
                found[-1] = network(block)
                _save(path, found[-1])
            bar.update(len(block))
        return np.concatenate(found)

    def _stored(self, path: Path, shape: tuple[int, int]) -> np.ndarray | None:
        """None for what is not there or not whole."""
        try:
            features = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        return features if features.shape == shape and np.isfinite(features).all() else None


def _key(network: Features, block: np.ndarray) -> str:
    digest = hashlib.sha256(json.dumps([network.description, block.shape], sort_keys=True).encode())
    digest.update(np.ascontiguousarray(block))
    return digest.hexdigest()[:24]


def _save(path: Path, features: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        np.save(file, features)
    os.replace(temporary, path)

"""Mean and deviation of a dataset's latents, by channel: measured once, kept with the dataset, used to standardise."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fooddit.data.records import RecordError

FILE = "latent_statistics.json"


@dataclass(frozen=True)
class LatentStatistics:
    """Of the latents as the autoencoder gives them: mean and deviation (the posterior's own spread included) of each
    channel, over `pictures` pictures."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    pictures: int

    def to_dict(self) -> dict[str, Any]:
        """JSON that `from_dict` takes back."""
        return {"mean": list(self.mean), "deviation": list(self.deviation), "pictures": self.pictures}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> LatentStatistics:
        return cls(tuple(values["mean"]), tuple(values["deviation"]), values["pictures"])


@dataclass(frozen=True)
class LatentSums:
    """What adds up over pictures, shards and hosts: float64 sums by channel over positions, and how many there were."""

    first: Float[np.ndarray, "channels"]
    second: Float[np.ndarray, "channels"]
    positions: int
    pictures: int

    def __add__(self, other: LatentSums) -> LatentSums:
        return LatentSums(*(getattr(self, f.name) + getattr(other, f.name) for f in dataclasses.fields(self)))

    def statistics(self) -> LatentStatistics:
        """ValueError if a channel is constant: nothing can be learned from it, and a deviation of 0 cannot divide."""
        if not self.positions:
            raise ValueError("no pictures to measure latents of; expected at least one")
        mean = self.first / self.positions
        deviation = np.sqrt(np.maximum(self.second / self.positions - mean**2, 0.0))
        if constant := np.flatnonzero(deviation < 1e-6).tolist():
            raise ValueError(f"latent channels {constant} are constant over {self.pictures} pictures")
        return LatentStatistics(tuple(mean.tolist()), tuple(deviation.tolist()), self.pictures)


def sums_of_moments(params, moments: Float[Array, "batch h w moments"]) -> LatentSums:
    """Sums over what `PictureSpace.moments` gave of one batch with these `params`, their scale undone."""
    first, second = jax.device_get(_batch_sums(params["mean"], params["deviation"], moments))
    batch, height, width, _ = moments.shape
    return LatentSums(first.astype(np.float64), second.astype(np.float64), batch * height * width, batch)


def save_statistics(
    folder: Path, space: Mapping[str, Any], size: int, statistics: LatentStatistics, dataset: str
) -> None:
    """Keeps them in a dataset's folder, beside those of other autoencoders and picture sizes, whole or not at all.

    What was measured on this dataset before stays: runs may have been trained with it.

    Args:
      space: the picture space's description.
      dataset: the dataset's fingerprint.
    """
    path = Path(folder) / FILE
    known = _read(path) if path.exists() else {}
    if known.get(_key(space, size), {}).get("dataset") == dataset:
        return
    known[_key(space, size)] = statistics.to_dict() | {"dataset": dataset}
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def load_statistics(path: Path, space: Mapping[str, Any], size: int) -> LatentStatistics:
    """What `save_statistics` kept in the file for this picture space (its description) and size, of whatever dataset.

    Raises:
      RecordError: none of them, or a damaged file.
    """
    path, measures = Path(path), "`fooddit prepare --cache` with this config measures them"
    if not path.exists():
        raise RecordError(f"config.space.statistics: {path} is not there; {measures}")
    known = _read(path)
    if not all(isinstance(entry, dict) and "mean" in entry for entry in known.values()):
        raise RecordError(f"config.space.statistics: {path} is no file of latents' statistics; {measures}")
    if (found := known.get(_key(space, size))) is None:
        has = ", ".join(f"of autoencoder {key[:12]} at {key.rpartition('-')[2]} pixels" for key in known)
        raise RecordError(
            f"config.space.statistics: {path}: expected those of autoencoder {_key(space, size)[:12]} at {size} "
            f"pixels, found {f'those {has}' if has else 'none'}; {measures}"
        )
    return LatentStatistics.from_dict(found)


@jax.jit
def _batch_sums(mean, deviation, moments):
    channels = mean.shape[0]
    latent = moments[..., :channels].astype(jnp.float32) * deviation + mean
    square = latent**2
    if moments.shape[-1] > channels:
        square += jnp.exp(moments[..., channels:].astype(jnp.float32)) * deviation**2
    return latent.sum(axis=(0, 1, 2)), square.sum(axis=(0, 1, 2))


def _key(space: Mapping[str, Any], size: int) -> str:
    return f"{space['sha256']}-{size}"


def _read(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RecordError(f"{path}: not JSON ({error}); delete the file and measure again") from error

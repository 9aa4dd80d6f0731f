"""What `fooddit prepare --cache` does: an experiment's frozen encoders, once, over all records."""

from __future__ import annotations

from typing import Any

from fooddit.caching.build import Summary, build_cache
from fooddit.caching.devices import device_encoders
from fooddit.config import ConfigError
from fooddit.data.records import open_dataset
from fooddit.models.latent_statistics import save_statistics
from fooddit.models.picture_space import PictureSpace
from fooddit.models.prompts import cut_captions
from fooddit.models.towers import Towers


def cache(source: str, out: str, experiment: Any, *, text: bool) -> Summary:
    """Fills the cache `out` with moments of the records in `source` and, with `text`, features of their captions.

    The latents' statistics, which come of it, are kept with the records. `experiment`: of the task `denoise`.

    Raises:
      ConfigError: an experiment without frozen encoders; besides what `build_cache` raises.
    """
    if not hasattr(experiment, "towers"):
        raise ConfigError(
            f"--config: the task {experiment.task!r} has no frozen encoders; give one of the task 'denoise'"
        )
    space = PictureSpace(experiment.space) if experiment.space.autoencoder != "pixels" else None
    reader = Towers(experiment.towers, image_prompts=False) if text else None
    towers = reader.parts if reader else {}
    if text and not towers:
        raise ConfigError(
            "--text: config.towers names no frozen tower, and the text transformer of config.text is trained along; "
            "set config.towers.t5 or config.towers.eclip, or leave --text away"
        )
    if space is None and not towers:
        raise ConfigError(
            "--cache: there is nothing to compute, config.space.autoencoder is 'pixels' and --text is off"
        )
    for key, part in {"space.autoencoder": space, **{f"towers.{name}": part for name, part in towers.items()}}.items():
        # Said before a folder is begun whose key could never be met.
        if part is not None and None in [part.description.get(name, "") for name in ("sha256", "fingerprint")]:
            raise ConfigError(f"config.{key} is the name of a shape without weights; give the folder that holds them")
    summary = build_cache(source, out, experiment.data, device_encoders(space, towers))
    if reader:
        captions = open_dataset(source, "train", cache=experiment.data.cache).captions()
        summary.notes += filter(None, [cut_captions(reader, captions)])
    if space is not None:
        summary.notes.append(_keep_statistics(space, source, experiment.data, summary))
    return summary


def _keep_statistics(space: PictureSpace, source: str, config: Any, summary: Summary) -> str:
    dataset = open_dataset(source, "train", cache=config.cache)
    try:
        statistics = summary.sums.statistics()
        save_statistics(dataset.folder, space.description, config.image_size, statistics, dataset.fingerprint)
    except (OSError, ValueError) as error:
        return f"statistics of the latents are not kept with the records: {error}"
    return f"statistics of {statistics.pictures:,} pictures' latents kept in {dataset.folder}"

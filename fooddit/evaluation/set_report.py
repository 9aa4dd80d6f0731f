"""The report of an evaluation: what was measured of each picture, overall, by category and for the long tail."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from fooddit.evaluation.bootstrap import mean_estimate
from fooddit.evaluation.diversity import diversity
from fooddit.evaluation.features import ClipFeatures
from fooddit.evaluation.measurements import ByNetwork, Material, Measurements
from fooddit.evaluation.set_distances import set_distances
from fooddit.evaluation.subjects import category_counts, tail_limit
from fooddit.models.weights import BUILTIN


def set_report(material: Material, measured: Measurements, tail: float | None = None) -> dict:
    """The report as JSON; docs/evaluation.md says what is in it.

    Args:
      tail: categories of which the dataset has fewer pictures are the long tail; None: fewer than `tail_limit`.

    Raises:
      ValueError: fewer than two pictures.
    """
    counted = material.counted
    if len(counted) < 2:
        raise ValueError(
            f"{material.folder}: found {len(counted)} pictures, expected at least 2 to compare with others"
        )
    return {
        "pictures": len(counted),
        "prompts": len(np.unique(material.prompts[counted])),
        "repeats": len(material.pictures) - len(counted),
        "shape": list(material.shape),
        "photos_of_the_same_dishes": len(measured.networks[0].photos.numbers),
        "training_pictures": len(measured.networks[0].training.numbers),
        "networks": [_network(material, by) for by in measured.networks],
        "fit": None if measured.fit is None else {"by": measured.fit.by} | measured.fit.summary,
        "memorisation": None if measured.memorisation is None else measured.memorisation.to_dict(),
        **_groups(material, measured, tail),
        "samples": _samples(material, measured),
    }


def _network(material: Material, by: ByNetwork) -> dict:
    """Distances from photos of the same dishes and from training pictures, each beside real pictures' own."""
    matched, every, prompts = _with_subject(material), material.counted, material.prompts
    photos, training = by.photos.features, by.training.features
    dishes = np.array([material.subjects[i].dish for i in matched], np.int64)
    return {
        "name": by.network.name,
        "description": by.network.description,
        "dimension": by.network.dimension,
        "knows_only_scenes": _ships(by.network.description) and _are_photos(material),
        "same_dishes": {
            "pictures": _distances(by, by.pictures[matched], photos, dishes=(dishes, by.photos.dishes)),
            "real": _distances(by, training[: len(matched)], photos),
        },
        "training": {
            "pictures": _distances(by, by.pictures[every], training, prompts=prompts[every]),
            "real": _distances(by, photos[: len(every)], training),
        },
        "diversity": diversity(by.pictures, prompts, photos, by.photos.dishes).to_dict(),
    }


def _ships(description: Mapping[str, Any]) -> bool:
    """Whether a network is one that ships with the package: all of them are trained on drawn scenes."""
    return any(str(value).startswith(BUILTIN) for value in description.values())


def _are_photos(material: Material) -> bool:
    first = next(iter(material.train_set), None)
    return first is not None and first.attributes is None


def _groups(material: Material, measured: Measurements, tail: float | None) -> dict:
    """Rows for the categories of the pictures, those of few pictures last, for the long tail and for the rest."""
    counts = category_counts(material.train_set)
    limit = tail_limit(counts) if tail is None else tail
    categories = np.array(["" if s is None else s.category for s in material.subjects], object)
    known = [name for name in dict.fromkeys(categories[material.counted]) if name]
    in_tail = {name for name in known if counts.get(name, 0) < limit}
    rows = [
        {"name": name, "dataset_pictures": counts.get(name, 0), "long_tail": name in in_tail}
        | _group(material, measured, categories, {name})
        for name in sorted(known, key=lambda name: (-counts.get(name, 0), name))
    ]
    both = {
        "tail": _group(material, measured, categories, in_tail),
        "rest": _group(material, measured, categories, set(known) - in_tail),
    }
    return {"categories": rows, "long_tail": {"limit": limit, "categories": sorted(in_tail)} | both}


def _group(material: Material, measured: Measurements, categories: np.ndarray, names: set[str]) -> dict:
    """The pictures of some categories against the photos of the same dishes of those categories."""
    members = np.array([i for i in material.counted if categories[i] in names], np.int64)
    prompts, dishes = material.prompts[members], np.array([material.subjects[i].dish for i in members], np.int64)
    row = {"pictures": len(members), "photos": 0, "distances": {}, "fit": None, "nearest": None}
    for by in measured.networks:
        photos = np.array([name in names for name in by.photos.categories], bool)
        both = dishes, by.photos.dishes[photos]
        found = _distances(by, by.pictures[members], by.photos.features[photos], dishes=both)
        row["distances"][by.network.name] = found
        row["photos"] = int(photos.sum())
    if measured.fit is not None:
        row["fit"] = _mean(measured.fit.values[members], prompts)
    distances = [measured.nearest[i].distance if measured.nearest[i] else np.nan for i in members]
    row["nearest"] = _mean(np.array(distances, np.float64), prompts)
    return row


def _samples(material: Material, measured: Measurements) -> list[dict]:
    rows = []
    for i, (picture, subject) in enumerate(zip(material.pictures, material.subjects)):
        fit, nearest = measured.fit, measured.nearest[i]
        known = fit is not None and np.isfinite(fit.values[i])
        rows.append(
            {
                "file": picture.name,
                "prompt": picture.prompt,
                "seed": picture.seed,
                "repeat": picture.repeat,
                "record": None if subject is None else subject.id,
                "record_number": None if subject is None else subject.number,
                "category": None if subject is None else subject.category,
                "fit": float(fit.values[i]) if known else None,
                "nearest": None if nearest is None else asdict(nearest) | {"copied": nearest.copied},
            }
        )
    return rows


def _with_subject(material: Material) -> np.ndarray:
    return np.array([i for i in material.counted if material.subjects[i] is not None], np.int64)


def _distances(by: ByNetwork, pictures: np.ndarray, real: np.ndarray, **groups) -> dict | None:
    """None where one of the sets has fewer than two pictures, or only pictures of one dish."""
    distinct = [len(np.unique(dishes)) for dishes in groups.get("dishes", ())]
    if min(len(pictures), len(real), *distinct) < 2:
        return None
    return set_distances(pictures, real, clip=isinstance(by.network, ClipFeatures), **groups).to_dict()


def _mean(values: np.ndarray, groups: np.ndarray) -> dict | None:
    known = np.isfinite(values)
    return mean_estimate(values[known], groups[known]).to_dict() if known.any() else None

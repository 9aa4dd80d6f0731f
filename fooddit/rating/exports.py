"""Ratings as files: tables for analysis, Label Studio's JSON, and a folder's metadata that `fooddit prepare` reads."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from fooddit.rating.protocol import Ratings, ratings_of
from fooddit.rating.records import Given
from fooddit.rating.store import Store
from fooddit.standards import Standard

# How Label Studio's tags name our controls: <Rating name="form.whole">, <RectangleLabels name="anomaly">.
_BOXES, _PICTURE = "anomaly", "image"


def item_rows(ratings: Ratings, given: Iterable[Given]) -> list[dict[str, Any]]:
    """A row an item: how many rated it, the mean and spread of each sub-standard and the mean of all, rounds, who
    skipped it, and the boxes as JSON."""
    boxes: dict[str, list] = {}
    skipped: dict[str, int] = {}
    rounds: dict[str, int] = {}
    for label in given:
        rounds[label.key] = max(rounds.get(label.key, 0), label.round)
        skipped[label.key] = skipped.get(label.key, 0) + (label.kind == "skip")
        found = [{**box, "rater": label.rater, "round": label.round} for box in label.values.get("boxes", [])]
        boxes.setdefault(label.key, []).extend(found)
    means, spreads = ratings.mean(), ratings.spread()
    raters = np.isfinite(ratings.levels).any(axis=2).sum(axis=1)
    rows = []
    for number, key in enumerate(ratings.keys):
        row = {"key": key, "raters": int(raters[number]), "round": rounds[key], "skipped": skipped[key]}
        row["mean"] = float(np.mean(means[number]))
        for sub, mean, spread in zip(ratings.subs, means[number], spreads[number]):
            row |= {f"{sub}.mean": float(mean), f"{sub}.spread": float(spread)}
        rows.append(row | {"boxes": json.dumps(boxes[key], ensure_ascii=False)})
    return rows


def label_rows(history: Iterable[Given]) -> list[dict[str, Any]]:
    """A row a label, also of those that were withdrawn or said again: what there is to know of who said what when."""
    names = ("id", "round", "key", "rater", "revision", "kind", "created")
    return [
        {name: getattr(label, name) for name in names}
        | {"seconds": label.seconds, "values": json.dumps(label.values, ensure_ascii=False)}
        for label in history
    ]


def write_tables(store: Store, project: int, folder: Path) -> list[Path]:
    """items.parquet and labels.parquet in `folder`. ImportError without pyarrow."""
    import pyarrow
    import pyarrow.parquet

    subs, given = tuple(store.standard(project).subs), store.given(project)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, rows in (
        ("items", item_rows(ratings_of(given, subs), given)),
        ("labels", label_rows(store.history(project))),
    ):
        path = folder / f"{name}.parquet"
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        written.append(path)
    return written


def metadata_lines(
    rows: Iterable[dict[str, Any]], files: dict[str, str], texts: dict[str, str], accept: Callable[[dict], bool]
) -> list[str]:
    """Lines of a metadata.jsonl (a Hugging Face ImageFolder) for the items that `accept` takes: file_name, title, the
    mean level and how many rated it."""
    return [
        json.dumps(
            {"file_name": files[row["key"]], "title": texts.get(row["key"], ""), "rating": round(row["mean"], 4),
             "raters": row["raters"]},
            ensure_ascii=False,
        )
        for row in rows
        if accept(row)
    ]  # fmt: skip


def to_label_studio(
    given: Iterable[Given], files: dict[str, str], address: str = "/data/local-files/?d="
) -> list[dict]:
    """Tasks with annotations, as Label Studio imports them: levels as ratings, boxes as rectangles in percent."""
    tasks: dict[str, dict] = {}
    for label in given:
        task = tasks.setdefault(
            label.key, {"data": {_PICTURE: address + files[label.key], "key": label.key}, "annotations": []}
        )
        results = [
            {"from_name": sub, "to_name": _PICTURE, "type": "rating", "value": {"rating": level}}
            for sub, level in label.values.get("levels", {}).items()
        ]
        for box in label.values.get("boxes", []):
            left, top, right, bottom = (100 * side for side in box["box"])
            value = {"x": left, "y": top, "width": right - left, "height": bottom - top, "rotation": 0}
            value |= {"rectanglelabels": [box["anomaly"]]}
            meta = {"meta": {"text": [box["note"]]}} if box["note"] else {}
            results.append(
                {"from_name": _BOXES, "to_name": _PICTURE, "type": "rectanglelabels", "value": value, **meta}
            )
        task["annotations"].append(
            {
                "completed_by": {"email": label.rater},
                "result": results,
                "was_cancelled": label.kind == "skip",
                "created_at": label.created,
                "lead_time": label.seconds,
                "meta": {"round": label.round, "reason": label.values.get("reason", "")},
            }
        )
    return list(tasks.values())


def from_label_studio(tasks: Iterable[dict], standard: Standard) -> list[tuple[str, str, dict[str, Any]]]:
    """(key, rater, values of a "levels" or "skip" label) of each annotation, checked against the standard.

    Raises:
      LabelError, StandardError: levels or boxes that the standard has not. ValueError: no task of this form.
    """
    from fooddit.rating.label_values import check_label

    found = []
    for number, task in enumerate(tasks):
        try:
            key = task["data"].get("key") or task["data"][_PICTURE]
            for annotation in task["annotations"]:
                rater = annotation["completed_by"]
                rater = rater.get("email", "") if isinstance(rater, dict) else str(rater)
                found.append((key, rater, _values(annotation, standard, check_label)))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"task {number}: expected Label Studio's data and annotations, found no {error}"
            ) from error
    return found


def _values(annotation: dict, standard: Standard, check_label) -> dict[str, Any]:
    if annotation.get("was_cancelled"):
        return check_label("skip", {"reason": annotation.get("meta", {}).get("reason") or "skipped"}, standard)
    levels, boxes = {}, []
    for result in annotation["result"]:
        value = result["value"]
        if result["type"] == "rating":
            levels[result["from_name"]] = value["rating"]
        elif result["type"] == "rectanglelabels":
            sides = [value["x"], value["y"], value["x"] + value["width"], value["y"] + value["height"]]
            note = " ".join(result.get("meta", {}).get("text", []))
            box = [min(max(side / 100, 0.0), 1.0) for side in sides]
            boxes += [{"anomaly": name, "box": box, "note": note} for name in value["rectanglelabels"]]
    return check_label("levels", {"levels": levels, "boxes": boxes, "note": ""}, standard)

"""What a label may say, checked against the project's standard before it is kept."""

import math
import re
from collections.abc import Mapping
from typing import Any

from fooddit.standards import Standard

MAX_BOXES, MAX_NOTE, MAX_SECONDS = 50, 500, 7 * 86_400
_ID = re.compile(r"[0-9A-Za-z-]{8,36}")
# What no database keeps in a text: NUL, and halves of characters.
_UNKEPT = re.compile("[\x00\ud800-\udfff]")


class LabelError(ValueError):
    """A label that cannot be kept; the message is for whoever sent it."""


def check_id(id: Any) -> None:
    """LabelError for what cannot be a label's id."""
    if not isinstance(id, str) or not _ID.fullmatch(id):
        raise LabelError(f"id: found {id!r:.60}, expected 8 to 36 letters, digits and hyphens, made up for this label")


def check_seconds(seconds: Any) -> None:
    """LabelError for what is no time that somebody looked at a picture."""
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds <= MAX_SECONDS:
        raise LabelError(f"seconds: found {seconds!r:.60}, expected 0 to {MAX_SECONDS}")


def check_label(kind: str, values: Any, standard: Standard) -> dict[str, Any]:
    """The values of a label of that kind, and nothing else of what was sent.

    "levels": {"levels": {sub: level} for every sub-standard, "boxes": [{"anomaly", "box", "note"}], "note"}; a box is
    [left, top, right, bottom] as shares of the picture. "pair": {"better": 0, 1 or None for a tie, "note"}. "skip":
    {"reason"}. "withdrawn": {}.

    Raises:
      LabelError: something is missing, unknown or out of range.
    """
    if kind not in _KINDS:
        raise LabelError(f"kind: found {kind!r}, expected one of {', '.join(_KINDS)}")
    if not isinstance(values, Mapping):
        raise LabelError(f"values: expected an object, found {type(values).__name__}")
    return _KINDS[kind](values, standard)


def _levels(values: Mapping, standard: Standard) -> dict[str, Any]:
    _known(values, ("levels", "boxes", "note"))
    levels = values.get("levels")
    if not isinstance(levels, Mapping):
        raise LabelError("levels: expected a level for each sub-standard")
    for sub, level in levels.items():
        standard.require(sub, level)
    if missing := [sub for sub in standard.subs if sub not in levels]:
        raise LabelError(f"levels: {len(missing)} are missing, such as {missing[0]}")
    boxes = values.get("boxes", [])
    if not isinstance(boxes, list) or len(boxes) > MAX_BOXES:
        raise LabelError(f"boxes: expected a list of at most {MAX_BOXES}")
    return {
        "levels": {sub: levels[sub] for sub in standard.subs},
        "boxes": [_box(box, standard) for box in boxes],
        "note": _note(values, "note"),
    }


def _box(box: Any, standard: Standard) -> dict[str, Any]:
    if not isinstance(box, Mapping):
        raise LabelError("boxes: expected objects with anomaly, box and note")
    _known(box, ("anomaly", "box", "note"))
    anomalies = [anomaly.id for anomaly in standard.anomalies]
    if box.get("anomaly") not in anomalies:
        raise LabelError(f"boxes: found anomaly {box.get('anomaly')!r}, expected one of {', '.join(anomalies)}")
    sides = box.get("box")
    if not isinstance(sides, list) or len(sides) != 4 or not all(map(_is_share, sides)):
        raise LabelError("boxes: expected [left, top, right, bottom], each from 0 to 1")
    left, top, right, bottom = map(float, sides)
    if not (left < right and top < bottom):
        raise LabelError(f"boxes: {sides} has no area")
    return {"anomaly": box["anomaly"], "box": [left, top, right, bottom], "note": _note(box, "note")}


def _pair(values: Mapping, standard: Standard) -> dict[str, Any]:
    _known(values, ("better", "note"))
    better = values.get("better", "")
    if isinstance(better, bool) or better not in (0, 1, None):
        raise LabelError(f"better: found {better!r}, expected 0, 1, or null for a tie")
    return {"better": better, "note": _note(values, "note")}


def _skip(values: Mapping, standard: Standard) -> dict[str, Any]:
    _known(values, ("reason",))
    if not (reason := _note(values, "reason")):
        raise LabelError("reason: is empty; say in a few words why the picture cannot be rated")
    return {"reason": reason}


def _withdrawn(values: Mapping, standard: Standard) -> dict[str, Any]:
    _known(values, ())
    return {}


_KINDS = {"levels": _levels, "pair": _pair, "skip": _skip, "withdrawn": _withdrawn}


def _known(values: Mapping, names: tuple[str, ...]) -> None:
    if unknown := [name for name in values if name not in names]:
        raise LabelError(f"{unknown[0]!r}: unknown; expected {', '.join(names) or 'nothing'}")


def _note(values: Mapping, name: str) -> str:
    note = values.get(name, "")
    if not isinstance(note, str) or len(note) > MAX_NOTE:
        raise LabelError(f"{name}: expected a text of at most {MAX_NOTE} characters")
    return _UNKEPT.sub("", note).strip()


def _is_share(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and 0 <= value <= 1

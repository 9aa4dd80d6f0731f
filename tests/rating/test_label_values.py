"""A label is kept as the standard has it, or refused with what is wrong."""

import pytest

from fooddit.rating.label_values import LabelError, check_label
from fooddit.standards import load_standard

STANDARD = load_standard("generated")
LEVELS = dict.fromkeys(STANDARD.subs, 4)
BOX = {"anomaly": "hand", "box": [0.1, 0.2, 0.5, 1], "note": " six fingers "}


def test_a_whole_label_is_kept_in_the_standards_order():
    sent = {"levels": dict(reversed(LEVELS.items())), "boxes": [BOX], "note": "好"}
    kept = check_label("levels", sent, STANDARD)
    assert list(kept["levels"]) == list(STANDARD.subs) and kept["note"] == "好"
    assert kept["boxes"] == [{"anomaly": "hand", "box": [0.1, 0.2, 0.5, 1.0], "note": "six fingers"}]
    assert check_label("levels", {"levels": LEVELS}, STANDARD)["boxes"] == []


WRONG = {
    "a level less": ({"levels": {**LEVELS, "form.whole": None}}, "form.whole: found level None"),
    "a question less": ({"levels": {"form.whole": 1}}, "levels: 18 are missing, such as form.shape"),
    "an unknown question": ({"levels": {**LEVELS, "form.hole": 1}}, "has no 'form.hole'"),
    "half a level": ({"levels": {**LEVELS, "form.whole": 2.5}}, "found level 2.5; expected a whole number from 1 to 5"),
    "no levels": ({}, "levels: expected a level for each sub-standard"),
    "an unknown key": ({"levels": LEVELS, "rater": "somebody else"}, "'rater': unknown"),
    "no object": ([1], "values: expected an object, found list"),
    "an unknown anomaly": ({"levels": LEVELS, "boxes": [{**BOX, "anomaly": "ghost"}]}, "found anomaly 'ghost'"),
    "a box outside": ({"levels": LEVELS, "boxes": [{**BOX, "box": [0, 0, 1.1, 1]}]}, "each from 0 to 1"),
    "a box of NaN": ({"levels": LEVELS, "boxes": [{**BOX, "box": [0, 0, float("nan"), 1]}]}, "each from 0 to 1"),
    "a box of texts": ({"levels": LEVELS, "boxes": [{**BOX, "box": ["0", 0, 1, 1]}]}, "each from 0 to 1"),
    "an empty box": ({"levels": LEVELS, "boxes": [{**BOX, "box": [0.5, 0, 0.5, 1]}]}, "has no area"),
    "too many boxes": ({"levels": LEVELS, "boxes": [BOX] * 51}, "a list of at most 50"),
    "a long note": ({"levels": LEVELS, "note": "x" * 501}, "a text of at most 500 characters"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said(name):
    values, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        check_label("levels", values, STANDARD)


@pytest.mark.parametrize(
    "kind, values, message",
    [
        ("pair", {"better": 2}, "found 2, expected 0, 1, or null"),
        ("pair", {"better": True}, "found True, expected 0, 1, or null"),
        ("pair", {}, "expected 0, 1, or null"),
        ("skip", {"reason": " "}, "reason: is empty"),
        ("withdrawn", {"x": 1}, "'x': unknown; expected nothing"),
        ("guess", {}, "kind: found 'guess', expected one of levels, pair, skip, withdrawn"),
    ],
)
def test_other_kinds(kind, values, message):
    with pytest.raises(LabelError, match=message):
        check_label(kind, values, STANDARD)

"""The sheet says of each scene what the reader read; neighbours are written where the report finds them."""

import numpy as np
import pytest
from PIL import Image

from fooddit.data.records import open_dataset
from fooddit.data.scenes import ATTRIBUTES, SceneSpec, prompt, render_image, sample_spec
from fooddit.tasks import sheets
from fooddit.tasks.neighbours import TrainingNeighbours
from tests.data.made import dataset, picture, record


def other(spec, attribute):
    """The spec with the next value of one attribute."""
    values = ATTRIBUTES[attribute]
    value = values[(values.index(getattr(spec, attribute)) + 1) % len(values)]
    return SceneSpec(**{**vars(spec), attribute: value})


@pytest.fixture
def notes(monkeypatch):
    """What the sheet was given, instead of a picture of it."""
    given = {}
    monkeypatch.setattr(sheets, "sample_sheet", lambda images, prompts, **rest: given.update(rest, n=len(images)))
    return given


def test_a_wrong_attribute_is_named(notes):
    specs = [sample_spec(7, i, "holdout") for i in range(14)]
    drawn = [other(other(spec, "table"), "light") if i in (2, 5) else spec for i, spec in enumerate(specs)]
    images = np.stack([render_image(spec, 64) for spec in drawn])
    sheets.scene_sheet(images, [prompt(spec) for spec in specs], specs, 1500)
    assert notes["n"] == 12 and [i for i, note in enumerate(notes["notes"]) if note.wrong] == [2, 5]
    note = notes["notes"][2].text
    assert note.startswith(f"table: asked {specs[2].table}, read {drawn[2].table}; light: asked")
    assert "1,500 steps" in notes["subtitle"] and "10 of these 12" in notes["subtitle"]


def test_many_wrong_attributes_are_counted(notes):
    spec = sample_spec(7, 0, "holdout")
    drawn = other(other(other(spec, "kind"), "table"), "light")
    sheets.scene_sheet(render_image(drawn, 64)[None], [prompt(spec)], [spec], 1)
    assert notes["notes"] == [("3 of 8 attributes wrong: kind, table, light", True)]


def test_neighbours_of_copies_are_themselves(tmp_path, notes):
    dataset(tmp_path / "records", [record(i, 64, 64) for i in range(30)], [record(i, 64, 64) for i in range(40, 52)])
    train, holdout = (open_dataset(tmp_path / "records", split) for split in ("train", "holdout"))
    images = np.stack([picture(i, 64, 64) for i in (4, 17, 45)])
    found = TrainingNeighbours(train, holdout, 64, tmp_path / "run").find(images, ["a", "b", "c"])
    assert [row["record"] for row in found.rows[:2]] == ["r4", "r17"]
    assert found.summary.nearer_share == pytest.approx(2 / 3) and found.summary.holdout_n == 12
    for name in ("sample", "training_picture"):
        np.testing.assert_array_equal(Image.open(tmp_path / "run" / found.rows[1][name]), images[1])
    assert found.rows[2]["distance"] > found.summary.holdout_5_percent / 2
    assert found.details()["memorisation"]["n"] == 3 and found.scalars()["nearest/holdout_median"] > 0.05
    sheets.neighbour_sheet(images, ["a", "b", "c"], 9, found.nearest, found.summary)
    assert [note.wrong for note in notes["notes"]] == [True, True, None] and "67% are close" in notes["subtitle"]

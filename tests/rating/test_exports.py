"""Files that others read: tables, Label Studio and back, metadata that `fooddit prepare` takes."""

import json
import uuid

import pyarrow.parquet
import pytest

from fooddit.rating.exports import from_label_studio, item_rows, metadata_lines, to_label_studio, write_tables
from fooddit.rating.label_values import LabelError
from fooddit.rating.protocol import ratings_of
from tests.rating.test_store import PHOTOS, levels

BOX = {"anomaly": "hand", "box": [0.1, 0.25, 0.5, 0.75], "note": "two hands"}


@pytest.fixture
def rated(store, project, raters):
    """Both raters have rated dish-0, one of them twice and with a box; one has skipped dish-1."""
    say = lambda rater, item, kind, values: store.give(project, rater, 1, item, str(uuid.uuid4()), kind, values, 3.5)
    say(raters[0], 1, "levels", levels(1))
    say(raters[0], 1, "levels", levels(3) | {"boxes": [BOX]})
    say(raters[1], 1, "levels", levels(2))
    say(raters[1], 2, "skip", {"reason": "暗"})
    return store


def test_tables_have_means_spreads_boxes_and_the_whole_history(rated, project, tmp_path):
    paths = write_tables(rated, project, tmp_path / "out")
    items, labels = (pyarrow.parquet.read_table(path).to_pylist() for path in paths)
    [row] = items
    assert (row["key"], row["raters"], row["round"], row["skipped"], row["mean"]) == ("dish-0", 2, 1, 0, 2.5)
    assert (row["light.colour.mean"], row["light.colour.spread"]) == (2.5, 1.0)
    assert json.loads(row["boxes"]) == [{**BOX, "rater": "Ana", "round": 1}]
    assert [(label["key"], label["rater"], label["revision"], label["kind"]) for label in labels] == [
        ("dish-0", "Ana", 1, "levels"),
        ("dish-0", "Ana", 2, "levels"),
        ("dish-0", "明", 1, "levels"),
        ("dish-1", "明", 1, "skip"),
    ]
    assert labels[0]["seconds"] == 3.5 and json.loads(labels[3]["values"]) == {"reason": "暗"}


def test_label_studio_and_back_is_the_same(rated, project):
    given = rated.given(project)
    files = {key: found[0] for key, (found, _) in rated.items(project).items()}
    tasks = json.loads(json.dumps(to_label_studio(given, files)))
    assert tasks[0]["data"]["image"] == "/data/local-files/?d=dish-0.jpg"
    [box] = [r for r in tasks[0]["annotations"][0]["result"] if r["type"] == "rectanglelabels"]
    assert box["value"] == {"x": 10, "y": 25, "width": 40, "height": 50, "rotation": 0, "rectanglelabels": ["hand"]}
    back = from_label_studio(tasks, PHOTOS)
    assert [(key, rater) for key, rater, _ in back] == [("dish-0", "Ana"), ("dish-0", "明"), ("dish-1", "明")]
    assert [values for _, _, values in back] == [label.values for label in given]


def test_what_label_studio_has_of_another_standard_is_refused(rated, project):
    tasks = to_label_studio(rated.given(project), {f"dish-{i}": "x.jpg" for i in range(6)})
    tasks[0]["annotations"][0]["result"][0]["value"]["rating"] = 5
    with pytest.raises(ValueError, match="form.whole: found level 5"):
        from_label_studio(tasks, PHOTOS)
    del tasks[0]["annotations"][0]["result"][0]
    with pytest.raises(LabelError, match="levels: 1 are missing, such as form.whole"):
        from_label_studio(tasks, PHOTOS)
    with pytest.raises(ValueError, match="task 0: expected Label Studio's data and annotations, found no 'data'"):
        from_label_studio([{}], PHOTOS)


def test_prepare_reads_the_metadata_of_what_was_accepted(rated, project, tmp_path):
    from PIL import Image

    from fooddit.data.catalogue import open_catalogue

    given = rated.given(project)
    rows = item_rows(ratings_of(given, tuple(PHOTOS.subs)), given)
    accept = lambda row: row["mean"] >= 2.5
    lines = metadata_lines(rows, {"dish-0": "dish-0.jpg"}, {"dish-0": "红烧肉"}, accept)
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")
    Image.new("RGB", (64, 64)).save(tmp_path / "dish-0.jpg")
    [row] = list(open_catalogue(str(tmp_path)))
    assert row.captions[0].text == "红烧肉"
    assert json.loads(lines[0]) == {"file_name": "dish-0.jpg", "title": "红烧肉", "rating": 2.5, "raters": 2}
    assert metadata_lines(rows, {"dish-0": "dish-0.jpg"}, {}, lambda row: row["mean"] > 2.5) == []

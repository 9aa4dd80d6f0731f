"""`fooddit rate`: from a folder to a project, raters, and what is asked again; one line for what is wrong."""

import json
import re
import uuid
from pathlib import Path

import pytest
from PIL import Image

from fooddit.cli import main
from fooddit.rating.database import open_database
from fooddit.rating.store import Store
from tests.rating.test_store import levels


@pytest.fixture
def rate(url, capsys):
    def run(*arguments, code=0) -> str:
        action, *rest = map(str, arguments)
        assert main(["rate", action, "--database", url, *rest]) == code
        said = capsys.readouterr()
        return said.err if code else said.out

    return run


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    for name in ("a.jpg", "b.png", "more/c.jpg"):
        Image.new("RGB", (8, 8)).save(folder / name)
    (folder / "readme.txt").write_text("no picture")
    (folder / "metadata.jsonl").write_text(json.dumps({"file_name": "a.jpg", "title": "汤"}) + "\n", encoding="utf-8")
    return folder


def test_a_folder_becomes_a_project_that_is_rated_and_asked_again(rate, pictures, url, tmp_path):
    said = rate("new", "menu", "--pictures", pictures, "--standard", "photos", "--raters", 2)
    assert said == "project 1: 3 items, each for 2 raters\n"
    tokens = [re.search(r"#token=(\S+) ", rate("add-rater", name))[1] for name in ("Ana", "明")]
    store = Store(open_database(url))
    people = [store.rater(token).id for token in tokens]
    assert store.rater(tokens[1]).name == "明" and store.rater(tokens[0]).role == "rater"
    seen = {}
    for level, rater in zip((1, 3), people):
        while (asked := store.next_item(1, rater)) is not None:
            seen[asked.key] = asked.about
            given = levels(2, **{"light.colour": level if asked.key == "b.png" else 2})
            store.give(1, rater, 1, asked.item, str(uuid.uuid4()), "levels", given)
    assert seen == {"a.jpg": {"caption": "汤"}, "b.png": {}, "more/c.jpg": {}}
    assert rate("again", 1, "--apart", 2) == "no item's raters are more than 2 levels apart: nothing to ask again\n"
    assert rate("again", 1) == "round 2: 1 of 3 items are asked again\n"
    assert store.next_item(1, people[0]).why == {"light.colour": [1, 3]}
    written = rate("export", 1, tmp_path / "out").split()
    assert [Path(path).name for path in written] == ["items.parquet", "labels.parquet", "label-studio.json"]
    assert len(json.loads(Path(written[2]).read_text(encoding="utf-8"))) == 3
    rate("shut-out", "Ana")
    assert store.rater(tokens[0]) is None


def test_pairs_come_from_a_file(rate, pictures, tmp_path):
    file = tmp_path / "pairs.csv"
    file.write_text("a.jpg,b.png\na.jpg,more/c.jpg\n")
    assert rate("new", "pairs", "--pictures", pictures, "--pairs", file).startswith("project 1: 2 items")
    file.write_text("a.jpg,b.png\na.jpg,none.jpg\n")
    assert "line 2: found ['a.jpg', 'none.jpg'], expected two pictures of" in rate(
        "new", "more", "--pictures", pictures, "--pairs", file, code=2
    )


def test_what_is_wrong_is_one_line(rate, pictures, tmp_path):
    (tmp_path / "empty").mkdir()
    wrong = {
        "found no picture; expected .jpg, .jpeg, .png, .webp": ("new", "x", "--pictures", tmp_path / "empty"),
        "no such file; expected a standard's": ("new", "x", "--pictures", pictures, "--standard", tmp_path / "s.yaml"),
        "no project 7": ("again", 7),
        "no rater named 'Bo'": ("shut-out", "Bo"),
        "can be reached by others": ("serve", "--alone", "Bo", "--host", "0.0.0.0"),
        "no rater named 'Cy'; fooddit rate add-rater adds one": ("serve", "--alone", "Cy"),
    }
    for message, arguments in wrong.items():
        said = rate(*arguments, code=2)
        assert said.startswith("fooddit rate: ") and message in said and said.count("\n") == 1, said

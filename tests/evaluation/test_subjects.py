"""Pictures find the held-out records that they are of; the long tail is the categories of few pictures."""

import json

import pytest

from fooddit.data.records import open_dataset
from fooddit.data.scenes import ATTRIBUTES, sample_spec
from fooddit.evaluation.picture_folder import Drawn
from fooddit.evaluation.subjects import category_counts, find_subjects, photos_of_the_same_dishes, tail_limit
from tests.data.made import dataset, record
from tests.evaluation.made_set import scene_record


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six held-out records, the last two of which are scenes."""
    folder = tmp_path_factory.mktemp("made") / "records"
    dataset(
        folder, [record(i) for i in range(3)], [*map(record, range(4)), *(scene_record(i, "holdout") for i in (0, 1))]
    )
    return folder


@pytest.fixture(scope="module")
def holdout(folder):
    return open_dataset(folder, "holdout")


def test_a_picture_is_of_the_record_it_names_or_whose_caption_it_was_asked_for(holdout):
    asked = [Drawn("a", "anything", record="r2"), Drawn("b", "第1道菜"), Drawn("c", "a prompt of nobody"), Drawn("d")]
    found = find_subjects(asked, holdout)
    assert [None if s is None else (s.number, s.id, s.category) for s in found] == [
        (2, "r2", "dish"),
        (1, "r1", "dish"),
        None,
        None,
    ]


def test_a_record_that_is_not_there_is_named(holdout):
    with pytest.raises(ValueError, match="its holdout split has no whole record 'r99', .*other records"):
        find_subjects([Drawn("a", "soup", record="r99")], holdout)


def test_scenes_know_what_was_asked_and_photos_do_not(holdout):
    photo, scene = find_subjects([Drawn("a", record="r0"), Drawn("b", record="holdout-1")], holdout)
    assert photo.indices is None and scene.indices == sample_spec(3, 1, "holdout").indices
    assert len(scene.indices) == len(ATTRIBUTES) and scene.category == "common"


def test_photos_of_the_same_dishes_are_all_of_them(holdout):
    subjects = find_subjects([Drawn("a", record="r3"), Drawn("b", record="r3"), Drawn("c")], holdout)
    holdout.dishes[:] = [7, 8, 7, 7, 9, 9]
    subjects = [subjects[0].__class__(3, "r3", 7, "dish", None), None]
    assert photos_of_the_same_dishes(subjects, holdout).tolist() == [0, 2, 3]
    assert photos_of_the_same_dishes([None], holdout).tolist() == []


def test_categories_are_counted_by_the_card_or_in_the_records(folder):
    train = open_dataset(folder, "train")
    assert category_counts(train) == {"dish": 3}
    (folder / "dataset_card.json").write_text(json.dumps({"categories": {"soup": 5, "cake": 1}}))
    assert category_counts(train) == {"soup": 5, "cake": 1}


def test_the_long_tail_is_below_half_of_what_a_pictures_category_has():
    assert tail_limit(dict.fromkeys("abcd", 30)) == 15
    # Forty categories of one picture do not hide that of 12 beside 100 and 60.
    counts = {"a": 100, "b": 60, "c": 12, **{f"one {i}": 1 for i in range(40)}}
    assert 12 < tail_limit(counts) < 60
    assert tail_limit({}) == 0

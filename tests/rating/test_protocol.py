"""Tables of ratings, what is asked again, and where a model differs."""

import numpy as np
import pytest

from fooddit.rating.protocol import against_model, ratings_of, to_ask_again
from fooddit.rating.records import Given

SUBS = ("form.whole", "light.colour")


def label(key, rater, whole, colour, round=1, kind="levels"):
    values = {"levels": dict(zip(SUBS, (whole, colour)))} if kind == "levels" else {"reason": "dark"}
    return Given(f"{key}{rater}{round}", round, 0, key, rater, 1, kind, values, "2026-01-01")


GIVEN = [
    label("b", "Ana", 4, 4),
    label("b", "Bo", 5, 4),
    label("a", "Ana", 1, 3),
    label("a", "Bo", 4, 3),
    label("a", "Chen", 2, 3),
    label("c", "Chen", 2, 2),
    label("b", "Chen", 0, 0, kind="skip"),
]


def test_the_table_has_what_was_said_and_nan_elsewhere():
    ratings = ratings_of(GIVEN, SUBS)
    assert ratings.keys == ("a", "b", "c") and ratings.raters == ("Ana", "Bo", "Chen")
    np.testing.assert_array_equal(ratings.of("form.whole"), [[1, 4, 2], [4, 5, np.nan], [np.nan, np.nan, 2]])
    np.testing.assert_allclose(ratings.mean(), [[7 / 3, 3], [4.5, 4], [2, 2]])
    np.testing.assert_array_equal(ratings.spread(), [[3, 0], [1, 0], [0, 0]])
    without = ratings.without(["Chen"])
    assert without.raters == ("Ana", "Bo") and np.isnan(without.mean()[2]).all() and np.isnan(without.spread()[2]).all()


def test_a_later_round_counts_in_place_of_an_earlier_one():
    again = [label("a", "Bo", 2, 3, round=2), *GIVEN]
    np.testing.assert_array_equal(ratings_of(again, SUBS).of("form.whole")[0], [1, 2, 2])


def test_items_far_apart_are_asked_again_with_what_was_said():
    ratings = ratings_of(GIVEN, SUBS)
    assert to_ask_again(ratings, 1) == {"a": {"form.whole": [1, 2, 4]}}
    assert to_ask_again(ratings, 0) == {"a": {"form.whole": [1, 2, 4]}, "b": {"form.whole": [4, 5]}}
    assert to_ask_again(ratings, 3) == {}


def test_a_model_that_differs_is_named_with_both_values():
    scores = {"a": {"form.whole": 4.5, "light.colour": 3.2}, "c": {"light.colour": 4}, "nobody": {"form.whole": 1}}
    found = against_model(ratings_of(GIVEN, SUBS), scores, 1)
    assert found == {"a": {"form.whole": [pytest.approx(7 / 3), 4.5]}, "c": {"light.colour": [2, 4]}}


def test_no_labels_are_an_empty_table():
    ratings = ratings_of([], SUBS)
    assert ratings.levels.shape == (0, 0, 2) and to_ask_again(ratings, 1) == {}

"""Recall with several right items and ties, chance, galleries of captions; the colour histogram baseline."""

import itertools

import numpy as np
import pytest

from fooddit.evaluation.colour_histogram import ColourHistogram, colour_histograms
from fooddit.evaluation.retrieval import Gallery, recall, table


def test_recall_counts_a_query_by_its_best_right_item():
    similarity = np.array([[0.9, 0.1, 0.5], [0.9, 0.8, 0.1], [0.1, 0.2, 0.3]])
    right = np.array([[True, False, True], [False, True, False], [True, False, False]])
    found = recall(similarity, right, (1, 2, 3))
    assert found.at == {1: 1 / 3, 2: 2 / 3, 3: 1.0}
    low, high = found.intervals[1]
    assert 0.06 < low < 1 / 3 < high < 0.8
    assert (found.queries, found.items) == (3, 3)


def test_a_query_without_anything_right_is_left_out():
    right = np.array([[True, False], [False, False]])
    assert recall(np.eye(2), right, (1,)).queries == 1
    assert recall(np.eye(2), np.zeros((2, 2), bool), (1,)) is None


def test_equal_similarities_are_not_counted_as_found():
    """A model that says the same of everything does no better than chance."""
    right = np.eye(10, dtype=bool)
    found = recall(np.zeros((10, 10)), right)
    assert found.at[1] == 0 and found.at[10] == 1
    assert found.chance == pytest.approx({1: 0.1, 5: 0.5, 10: 1.0})


def test_chance_is_what_random_orders_score():
    right = np.array([[1, 1, 0, 0, 0], [1, 0, 0, 0, 0], [1, 1, 1, 1, 0]], bool)
    found = recall(np.zeros((3, 5)), right, (1, 2, 3))
    for k in (1, 2, 3):
        draws = list(itertools.combinations(range(5), k))
        hits = [np.mean([row[list(draw)].any() for draw in draws]) for row in right]
        assert found.chance[k] == pytest.approx(np.mean(hits))


def gallery() -> Gallery:
    """Two pictures of which one caption is true, a third with another one, a fourth with none in this language."""
    true = [
        frozenset({"soup", "a hot soup"}),
        frozenset({"soup", "a hot soup"}),
        frozenset({"cake", "a tart"}),
        frozenset(),
    ]
    return Gallery(["a hot soup", "a hot soup", "a tart", ""], ["cake", "soup"], true)


def test_a_caption_that_is_true_of_several_pictures_is_right_for_each():
    # The second picture is nearest to both soups' captions.
    similarity = np.array([[0.5, 0.5, 0.1, 9], [0.9, 0.9, 0.2, 9], [0.1, 0.1, 0.8, 9], [0.0, 0.0, 0.9, 9]])
    report = gallery().report(similarity, np.array([[0.1, 0.9], [0.2, 0.3], [0.1, 0.4], [0, 0]]))
    assert report.text_to_image.at[1] == 2 / 3 and report.text_to_image.items == 4
    assert report.image_to_text.at[1] == 1.0 and report.image_to_text.queries == 3
    # Three of the pictures have a class; the cake is taken for a soup.
    assert report.zero_shot.at == {1: 2 / 3} and report.zero_shot.chance == {1: pytest.approx(0.5)}
    assert report.scalars("en")["text_to_image/en@1"] == 2 / 3 and report.scalars("en")["zero_shot/en"] == 2 / 3


def test_the_table_has_a_line_for_each_measure_and_a_column_for_each_baseline():
    report = gallery().report(np.random.default_rng(0).normal(size=(4, 4)), np.zeros((4, 2)))
    lines = table({"E-CLIP": {"en": report}, "colours": {"en": report}}).splitlines()
    assert len(lines) == 1 + 1 + 2 * 3
    assert lines[0].split() == ["E-CLIP", "95", "%", "interval", "colours", "chance", "queries", "items"]
    assert lines[1].startswith("zero shot en") and "text to image en @5" in lines[3]


def test_galleries_survive_json():
    assert Gallery.from_json(gallery().to_json()) == gallery()


def picture(colour, rng) -> np.ndarray:
    """Half of it in a colour, half of it anything."""
    image = rng.integers(0, 256, size=(16, 16, 3)).astype(np.uint8)
    image[:, :8] = np.clip(np.array(colour) + rng.integers(-20, 20, size=(16, 8, 3)), 0, 255)
    return image


@pytest.mark.parametrize("fitted", [False, True], ids=["mean", "fitted"])
def test_colours_find_what_is_named_by_its_colour(fitted):
    rng = np.random.default_rng(0)
    colours = {"red": (220, 30, 30), "green": (30, 220, 30), "blue": (30, 30, 220)}
    names = [name for name in colours for _ in range(20)]
    images = colour_histograms(picture(colours[name], rng) for name in names)
    np.testing.assert_allclose((images**2).sum(axis=1), 1, rtol=1e-5)
    captions = [[["a", name, "plate"], [name]] for name in names]
    model = ColourHistogram(images, captions, fitted=fitted)
    held_out = colour_histograms(picture(colours[name], rng) for name in colours)
    found = model.similarity(held_out, [["the", "a", name] for name in colours])
    assert found.shape == (3, 3) and (found.argmax(axis=1) == np.arange(3)).all()
    assert np.abs(model.similarity(held_out, [["unheard", "of"]])).max() <= 1


def test_large_pictures_are_shrunk_to_the_same_colours():
    image = np.zeros((300, 200, 3), np.uint8)
    image[:150] = (250, 10, 10)
    np.testing.assert_allclose(colour_histograms([image]), colour_histograms([image[::10, ::10]]), atol=0.1)

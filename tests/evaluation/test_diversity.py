"""Diversity is the mean distance of two pictures, of one prompt or of several."""

import numpy as np
import pytest

from fooddit.evaluation.diversity import diversity, euclidean


def test_figures_are_means_of_distances():
    pictures = np.array([[0.0, 0], [3, 4], [6, 8], [0, 1], [10, 0]])
    prompts = [0, 1, 2, 0, 2]
    real, dishes = np.array([[0.0], [1], [3], [7], [7]]), [4, 5, 6, 7, 7]
    found = diversity(pictures, prompts, real @ np.ones((1, 2)), dishes)
    # The first of each prompt: (0, 0), (3, 4), (6, 8).
    assert found.of_set.value == pytest.approx((5 + 10 + 5) / 3)
    assert found.within_prompt.value == pytest.approx((1 + np.sqrt(16 + 64)) / 2) and found.within_prompt.n == 2
    gaps = [1, 3, 7, 2, 6, 4]
    assert found.real.value == pytest.approx(np.sqrt(2) * np.mean(gaps)) and found.within_dish.value == 0
    assert found.to_dict()["ratio"] == pytest.approx(found.of_set.value / found.real.value)


def test_one_picture_a_prompt_has_no_diversity_within_it_and_one_prompt_none_of_the_set():
    points = np.random.default_rng(0).normal(size=(20, 4))
    found = diversity(points, np.arange(20), points[:1], [3])
    assert found.within_prompt is None and found.real is None and "ratio" not in found.to_dict()
    assert found.of_set.low < found.of_set.value < found.of_set.high
    assert diversity(points, np.zeros(20), points, np.arange(20)).of_set is None


def test_a_collapsed_set_is_narrower_than_its_interval_of_a_wide_one():
    rng = np.random.default_rng(1)
    wide, narrow = rng.normal(size=(60, 8)), 0.3 * rng.normal(size=(60, 8))
    found = diversity(narrow, np.arange(60), wide, np.arange(60))
    assert found.of_set.high < found.real.low and found.to_dict()["ratio"] == pytest.approx(0.3, rel=0.2)


def test_distances_are_euclidean():
    x, y = np.random.default_rng(2).normal(size=(2, 5, 3))
    np.testing.assert_allclose(euclidean(x, y), np.linalg.norm(x[:, None] - y[None], axis=2), atol=1e-7)

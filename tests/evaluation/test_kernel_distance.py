"""KID equals torch-fidelity's over all pairs, is unbiased at any number of pictures, and needs no whole matrix."""

import json

import numpy as np
import pytest

from fooddit.evaluation import kernel_distance as module
from fooddit.evaluation.kernel_distance import kernel_distance, polynomial, resampled_kernel_distance
from tests.evaluation.feature_sets import CASES, GOLDEN, feature_sets


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("block", [7, 1024])
def test_it_equals_the_golden_values_of_torch_fidelity(case, block, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK", block)
    x, y = feature_sets(case)
    assert kernel_distance(x, y) == pytest.approx(json.loads(GOLDEN.read_text())[case]["kid"], abs=1e-9)


def test_it_is_the_sum_over_pairs_of_different_pictures():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(5, 3)), rng.normal(size=(7, 3)) + 1
    kernel = lambda a, b: (a @ b / 3 + 1) ** 3
    pairs = lambda points: [kernel(a, b) for i, a in enumerate(points) for j, b in enumerate(points) if i != j]
    across = [kernel(a, b) for a in x for b in y]
    assert kernel_distance(x, y) == pytest.approx(np.mean(pairs(x)) + np.mean(pairs(y)) - 2 * np.mean(across))


def test_it_is_unbiased_where_the_frechet_distance_is_not():
    """Two sets of one distribution: zero on average, at 6 pictures as at 60, within three standard errors."""
    rng = np.random.default_rng(1)
    for count, repeats in ((6, 4000), (60, 400)):
        draws = rng.normal(size=(2, repeats, count, 4))
        values = [kernel_distance(x, y) for x, y in zip(*draws)]
        assert abs(np.mean(values)) < 3 * np.std(values) / repeats**0.5
        assert min(values) < 0 < max(values)


def test_a_picture_that_was_taken_twice_is_not_paired_with_itself():
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(6, 4)), rng.normal(size=(6, 4)) + 1
    v = np.array([[2.0, 1, 0, 3, 0, 0]])
    found = resampled_kernel_distance(x, y, v, np.ones((1, 6)))[0]
    kept = [(i, j) for i in range(6) for j in range(6) if i != j]
    weights = np.array([v[0, i] * v[0, j] for i, j in kept])
    within = np.array([polynomial(x[i : i + 1], x[j : j + 1])[0, 0] for i, j in kept])
    of_y = polynomial(y, y)
    across = v[0] @ polynomial(x, y).sum(axis=1) / 36
    expected = (weights @ within) / weights.sum() + (of_y.sum() - of_y.trace()) / 30 - 2 * across
    assert found == pytest.approx(expected)


def test_pictures_of_the_same_dishes_are_compared_over_pairs_of_two_dishes():
    """Pictures that follow their dishes' photos, from the same distribution: zero on average, and below it with pairs
    of one dish."""
    rng = np.random.default_rng(3)
    labels, ones = np.arange(12), np.ones((1, 12))
    values = []
    for _ in range(600):
        dishes = rng.normal(size=(12, 4))
        x, y = (dishes + 0.3 * rng.normal(size=(12, 4)) for _ in range(2))
        both = resampled_kernel_distance(x, y, ones, ones, labels=(labels, labels)), kernel_distance(x, y)
        values.append([float(both[0][0]), both[1]])
    apart, together = np.mean(values, axis=0)
    error = np.std(values, axis=0)[0] / 600**0.5
    assert abs(apart) < 3 * error and together < -10 * error


def test_sets_that_cannot_be_compared_are_refused():
    x, y = feature_sets("alike")
    with pytest.raises(ValueError, match="found 1 and 200 pictures, expected at least 2"):
        kernel_distance(x[:1], y)
    with pytest.raises(ValueError, match=r"shapes \(200, 16\) and \(200, 3\)"):
        kernel_distance(x, y[:, :3])

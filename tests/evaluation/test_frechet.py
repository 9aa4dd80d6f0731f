"""The Fréchet distance equals torch-fidelity's, whatever way it is computed, and says when it means little."""

import json
import warnings

import numpy as np
import pytest

from fooddit.evaluation.frechet import Moments, RankDeficient, frechet_distance, resampled_frechet
from tests.evaluation.feature_sets import CASES, GOLDEN, feature_sets


def distance(x, y):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RankDeficient)
        return frechet_distance(Moments.of(x), Moments.of(y))


def once(x):
    return np.ones((1, len(x)))


@pytest.mark.parametrize("case", CASES)
def test_it_equals_the_golden_values_of_torch_fidelity(case):
    x, y = feature_sets(case)
    # Of fewer pictures than features the reference's own roots are good to a few digits less.
    expected = pytest.approx(json.loads(GOLDEN.read_text())[case]["fid"], abs=1e-6)
    assert distance(x, y) == expected
    assert resampled_frechet(x, y, once(x), once(y))[0] == expected


@pytest.mark.parametrize("count, dimension", [(30, 80), (300, 20), (60, 60)])
def test_both_ways_to_compute_it_agree_to_float64(count, dimension):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(count, dimension)), 0.7 * rng.normal(size=(count + 5, dimension)) + 3
    assert resampled_frechet(x, y, once(x), once(y))[0] == pytest.approx(distance(x, y), rel=1e-9)


def test_gaussians_with_diagonal_covariances_are_as_far_as_the_formula_says():
    # Points at +-a along each axis: mean 0, variance 2 a^2 / (n - 1) along it.
    points = lambda a: np.concatenate([np.diag(a), -np.diag(a)])
    a, b, shift = np.array([1.0, 2.0, 3.0]), np.array([2.0, 0.5, 3.0]), np.array([0.0, 1.0, -2.0])
    spread = (np.sqrt(2 / 5) * (a - b)) ** 2
    assert distance(points(a), points(b) + shift) == pytest.approx(spread.sum() + 5.0)


def test_moments_are_the_same_in_parts_and_far_from_zero():
    x = 1e6 + np.random.default_rng(1).normal(size=(500, 7))
    parts = Moments(7)
    for part in np.split(x, [0, 1, 3, 3, 250]):
        parts.add(part)
    assert parts.count == 500
    np.testing.assert_allclose(parts.mean, x.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(parts.covariance, np.cov(x, rowvar=False), atol=1e-8)


@pytest.mark.parametrize("dimension", [5, 100], ids=["more pictures than features", "fewer"])
def test_resampled_sets_are_those_with_pictures_repeated(dimension):
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(40, dimension)) + 1, rng.normal(size=(30, dimension)) * 1.5
    v, w = rng.integers(0, 4, size=(3, 40)).astype(float), rng.integers(0, 3, size=(3, 30)).astype(float)
    found = resampled_frechet(x, y, v, w)
    repeat = lambda points, counts: np.repeat(points, counts.astype(int), axis=0)
    expected = [distance(repeat(x, v[i]), repeat(y, w[i])) for i in range(3)]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_a_resample_of_fewer_than_two_pictures_has_no_distance():
    x, y = feature_sets("few")
    v, w = np.ones((2, len(x))), np.ones((2, len(y)))
    w[1] = 0
    found = resampled_frechet(x, y, v, w)
    assert np.isfinite(found[0]) and np.isnan(found[1])
    with pytest.raises(ValueError, match="not finite"):
        resampled_frechet(np.full_like(x, np.nan), y, v, w)


def test_a_set_is_at_no_distance_from_itself_and_order_does_not_matter():
    x, y = feature_sets("apart")
    assert distance(x, x) == pytest.approx(0, abs=1e-9)
    assert distance(x, y) == pytest.approx(distance(y, x), rel=1e-12)
    assert distance(x, np.random.default_rng(0).permutation(y)) == pytest.approx(distance(x, y), rel=1e-12)


def test_too_few_pictures_are_refused_and_few_are_warned_of():
    x, y = feature_sets("few")
    with pytest.raises(ValueError, match="found 1 pictures, expected at least 2"):
        distance(x[:1], y)
    with pytest.warns(RankDeficient, match="40 pictures for 64 features"):
        frechet_distance(Moments.of(x), Moments.of(y))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frechet_distance(*map(Moments.of, feature_sets("wide")))


def test_other_features_and_broken_ones_are_refused():
    x, y = feature_sets("alike")
    with pytest.raises(ValueError, match="found 16 and 15 features"):
        distance(x, y[:, 1:])
    with pytest.raises(ValueError, match="not finite"):
        Moments.of(np.where(x > x.max() - 1e-9, np.nan, x))

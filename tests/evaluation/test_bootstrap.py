"""Intervals cover what another draw gives, and are centred where a resampled distance's own values are not."""

import numpy as np
import pytest

from fooddit.evaluation.bootstrap import distance_estimate, mean_estimate, resample
from fooddit.evaluation.frechet import resampled_frechet
from fooddit.evaluation.kernel_distance import kernel_distance, resampled_kernel_distance


def test_a_resample_has_as_many_groups_and_keeps_each_together():
    counts = resample([7, 7, 3, 9], 500, seed=1)
    assert counts.shape == (500, 4) and np.array_equal(counts[:, 0], counts[:, 1])
    groups = counts[:, 1:]
    assert np.all(groups.sum(axis=1) == 3) and groups.mean() == pytest.approx(1)
    assert np.array_equal(counts, resample([7, 7, 3, 9], 500, seed=1))
    assert not np.array_equal(counts, resample([7, 7, 3, 9], 500, seed=2))


def test_a_means_interval_covers_the_true_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    estimates = [mean_estimate(rng.exponential(size=100)) for _ in range(200)]
    assert 0.88 <= np.mean([e.low <= 1 <= e.high for e in estimates]) <= 0.99
    assert all(e.low <= e.value <= e.high and e.n == 100 and e.bias is None for e in estimates)


def test_pictures_of_one_prompt_make_a_wider_interval_than_as_many_prompts():
    values = np.repeat(np.random.default_rng(1).normal(size=20), 5)
    together, apart = mean_estimate(values, np.repeat(np.arange(20), 5)), mean_estimate(values)
    assert together.n == 20 and apart.n == 100
    assert together.high - together.low > 1.8 * (apart.high - apart.low)


def test_no_value_has_no_mean():
    with pytest.raises(ValueError, match="found no value"):
        mean_estimate(np.array([]))


@pytest.mark.parametrize("count, dimension, shift", [(80, 8, 0.4), (40, 60, 0.3)])
def test_a_distances_interval_covers_what_as_many_pictures_give_on_average(count, dimension, shift):
    """Resampled Fréchet distances lie above the one they come from: their quantiles would leave it out."""
    rng = np.random.default_rng(2)
    sets = rng.normal(size=(2, 40, count, dimension))
    sets[0] += shift
    once = np.ones((1, count))
    frechet = [resampled_frechet(x, y, once, once)[0] for x, y in zip(*sets)]
    kernel = [kernel_distance(x, y) for x, y in zip(*sets)]
    estimates = []
    for i, (x, y) in enumerate(zip(*sets)):
        counts = resample(np.arange(count), 60, seed=i), resample(np.arange(count), 60, seed=100 + i)
        values = resampled_frechet(x, y, *counts)
        assert np.quantile(values, 0.025 if count < dimension else 0.3) > frechet[i]
        of_kernel = distance_estimate(kernel[i], resampled_kernel_distance(x, y, *counts), count, biased=False)
        estimates.append((distance_estimate(frechet[i], values, count, biased=True), of_kernel))
    for of_kind, values in zip(zip(*estimates), (frechet, kernel)):
        assert np.mean([e.low < np.mean(values) < e.high for e in of_kind]) >= 0.9
    assert all(of_kernel.bias is None for _, of_kernel in estimates)
    # What the distance owes to the number of pictures; with fewer pictures than features only a part of it is seen.
    many = rng.normal(size=(2, 20000, dimension))
    every = np.ones((1, 20000))
    owed = np.mean(frechet) - resampled_frechet(many[0] + shift, many[1], every, every)[0]
    bias = np.mean([of_frechet.bias for of_frechet, _ in estimates])
    assert 0.7 * owed < bias < 1.3 * owed if count > dimension else 0.2 * owed < bias < owed

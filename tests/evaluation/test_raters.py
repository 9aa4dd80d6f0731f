import numpy as np
import pytest

from fooddit.evaluation.raters import bt500_rejected, next_to_rate, rater_reports


def rated(rng, items=300, raters=8, per_item=3, noise=0.6):
    """Ratings of 1 to 5 on a hidden truth; each item by some of the raters."""
    truth = rng.uniform(1, 5, (items, 1))
    ratings = np.clip(np.round(truth + rng.normal(0, noise, (items, raters))), 1, 5)
    ratings[np.argsort(rng.random(ratings.shape), axis=1) >= per_item] = np.nan
    return ratings


def test_who_does_not_look_is_found_and_nobody_else():
    wrongly = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        ratings = rated(rng)
        there = np.isfinite(ratings)
        ratings[:, 2] = np.where(there[:, 2], rng.integers(1, 6, len(ratings)), np.nan)
        ratings[:, 5] = np.where(there[:, 5], 3, np.nan)
        out = {report.rater for report in rater_reports(ratings) if report.out_of_line}
        assert {2, 5} <= out
        wrongly += len(out - {2, 5})
    assert wrongly == 0


def test_a_harsh_rater_is_harsh_and_in_line():
    rng = np.random.default_rng(0)
    ratings = rated(rng, noise=0.3)
    ratings[:, 1] -= 1
    reports = rater_reports(ratings)
    assert reports[1].bias < -0.8 and not reports[1].out_of_line
    assert all(abs(report.bias) < 0.6 for report in reports if report.rater != 1)
    assert reports[0].low < reports[0].correlation < reports[0].high


def test_of_few_ratings_nothing_is_concluded():
    ratings = np.full((10, 3), np.nan)
    ratings[:3], ratings[:, 0] = 4, np.arange(10)
    reports = rater_reports(ratings)
    assert [report.count for report in reports] == [3, 3, 3]
    assert not any(report.out_of_line for report in reports) and reports[1].correlation is None


def literally(scores):
    """BT.500's screening as its text has it, one rating after the other."""
    above, below = np.zeros(scores.shape[1]), np.zeros(scores.shape[1])
    for row in scores:
        mean, deviation = row.mean(), row.std(ddof=1)
        kurtosis = np.mean((row - mean) ** 4) / np.mean((row - mean) ** 2) ** 2
        limit = (2 if 2 <= kurtosis <= 4 else np.sqrt(20)) * deviation
        above += row >= mean + limit
        below += row <= mean - limit
    beyond = above + below
    return [
        rater
        for rater in range(scores.shape[1])
        if beyond[rater] / len(scores) > 0.05 and abs(above[rater] - below[rater]) / beyond[rater] < 0.3
    ]


def test_bt500_is_its_text_and_finds_who_is_far_off_on_both_sides():
    wrongly, found = [], 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        scores = rng.uniform(30, 70, (60, 1)) + rng.normal(0, 5, (60, 40))
        assert bt500_rejected(scores) == literally(scores)
        wrongly += bt500_rejected(scores)
        scores[:, 7] = rng.uniform(0, 100, 60)
        # Far off on one side alone: a bias, which BT.500 leaves in.
        scores[:, 3] += 15
        assert bt500_rejected(scores) == literally(scores)
        found += 7 in bt500_rejected(scores)
        assert 3 not in bt500_rejected(scores) and bt500_rejected(scores[:, :8]) == []
    # Whether both sides are even enough is left to chance; of the others a tenth is lost.
    assert found >= 7 and len(wrongly) < 0.2 * 400


def test_the_next_to_rate_is_the_least_certain():
    nan = np.nan
    ratings = np.array([[3, 3, 3, 3], [1, 5, 2, 4], [nan, nan, nan, nan], [3, nan, nan, nan]])
    assert next_to_rate(ratings).tolist()[-1] == 0
    assert next_to_rate(ratings)[0] == 2
    # At a boundary a small spread matters more than a large one far away from it.
    ratings = np.array([[3, 3, 4, 4], [1, 1, 1, 2], [2, 1, 5, 1]], float)
    assert next_to_rate(ratings, boundaries=[3.5]).tolist() == [0, 2, 1]


@pytest.mark.parametrize("function", [rater_reports, bt500_rejected, next_to_rate])
def test_what_are_no_ratings_is_refused(function):
    with pytest.raises(ValueError, match=r"ratings: found shape \(3,\)"):
        function(np.zeros(3))

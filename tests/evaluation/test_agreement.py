import numpy as np
import pytest

from fooddit.evaluation.agreement import (
    krippendorff_alpha,
    overlap,
    quadratic_weighted_kappa,
    single_rater_ceiling,
    variance_parts,
)

NAN = np.nan
# Krippendorff 2011, "Computing Krippendorff's alpha-reliability", section C: four observers, twelve units.
OBSERVERS = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, NAN, NAN, NAN],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NAN, 3],
        [NAN, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NAN],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NAN],
    ]
).T
# Shrout & Fleiss 1979, table 2: six targets, four judges.
JUDGES = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], float)


@pytest.mark.parametrize("metric, published", [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_is_the_published_one(metric, published):
    assert krippendorff_alpha(OBSERVERS, metric) == pytest.approx(published, abs=5e-4)


def test_alpha_is_one_zero_and_below():
    same = np.repeat(np.arange(1.0, 6.0)[:, None], 3, axis=1)
    assert krippendorff_alpha(same) == 1
    drawn = np.random.default_rng(0).integers(1, 6, (4000, 3)).astype(float)
    assert abs(krippendorff_alpha(drawn)) < 0.03
    assert krippendorff_alpha(np.array([[1.0, 2], [2, 1], [1, 2], [2, 1]])) < 0


def test_icc_is_the_published_one():
    parts = variance_parts(JUDGES)
    assert parts.icc() == pytest.approx(0.29, abs=5e-3) and parts.icc(4) == pytest.approx(0.62, abs=5e-3)


def test_variances_are_recovered_where_every_item_has_other_raters():
    rng = np.random.default_rng(0)
    ratings = rng.normal(0, 1, (2000, 1)) + rng.normal(0, 0.5, (1, 60)) + rng.normal(0, 0.7, (2000, 60))
    ratings[np.argsort(rng.random(ratings.shape), axis=1) >= 3] = NAN
    parts = variance_parts(ratings)
    assert parts.items == pytest.approx(1, abs=0.08) and parts.residual == pytest.approx(0.49, abs=0.04)
    assert parts.raters == pytest.approx(0.25, abs=0.12)


def test_kappa_with_squared_distances():
    # By hand: mean squared differences of .5 where chance has 2 * (mean square - square of mean) for these two rows.
    a, b = np.array([1.0, 2, 3, 4]), np.array([1.0, 3, 3, 5])
    assert quadratic_weighted_kappa(a, b) == pytest.approx(1 - 0.5 / np.mean((a[:, None] - b) ** 2))
    assert quadratic_weighted_kappa(a, a) == 1
    assert quadratic_weighted_kappa(a, a[::-1]) < 0


def test_overlap_has_an_interval_that_covers():
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(100):
        found = overlap(np.zeros(200), (rng.random(200) > 0.7).astype(float), within=0.5)
        inside += found.low <= 0.7 <= found.high
    assert inside >= 88
    assert overlap([1.0, 2, 3], [1.5, 2.5, 4.0], 0.5).value == pytest.approx(2 / 3)


def test_the_ceiling_is_of_one_rater_against_the_mean_of_the_others():
    found = single_rater_ceiling(np.array([[3.0, 3, 4], [1, 1, 1], [5, NAN, NAN], [2, 3, NAN]]))
    # Rows: 3 to 3.5 (a 4, rounded), 3 to 3.5, 4 to 3; three alike; alone; 2 to 3 and 3 to 2.
    assert found.overlaps[0.0].value == pytest.approx(3 / 8)
    assert found.overlaps[0.5].value == pytest.approx(5 / 8)
    assert found.overlaps[1.0].value == 1
    assert found.overlaps[1.0].n == 3


def test_more_noise_lowers_every_measure():
    rng = np.random.default_rng(1)
    truth = rng.uniform(1, 5, (400, 1))

    def measures(noise):
        ratings = np.clip(np.round(truth + rng.normal(0, noise, (400, 3))), 1, 5)
        ceiling = single_rater_ceiling(ratings)
        kappa = quadratic_weighted_kappa(ratings[:, 0], ratings[:, 1])
        return krippendorff_alpha(ratings), variance_parts(ratings).icc(3), kappa, ceiling.correlation

    assert all(sharp > blurred for sharp, blurred in zip(measures(0.3), measures(1.0)))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: krippendorff_alpha(np.full((3, 2), 4.0)), "all ratings are 4"),
        (lambda: krippendorff_alpha(np.array([[1.0, NAN], [NAN, 2]])), "no item has two ratings"),
        (lambda: krippendorff_alpha(OBSERVERS, "ratio"), "found 'ratio', expected nominal, ordinal or interval"),
        (lambda: krippendorff_alpha(np.zeros(3)), r"found shape \(3,\)"),
        (lambda: krippendorff_alpha(np.array([[1, np.inf]])), "expected finite numbers or NaN"),
        (lambda: variance_parts(np.array([[1.0, 2, 3]])), "at least two raters, two items"),
        (lambda: quadratic_weighted_kappa([1, 2], [1, 2, 3]), "equally long"),
        (lambda: quadratic_weighted_kappa([2, 2], [2, 2]), "all ratings are 2"),
        (lambda: single_rater_ceiling(np.array([[1.0, NAN]])), "no item has two ratings"),
    ],
)
def test_what_has_no_agreement_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()

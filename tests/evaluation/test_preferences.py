import numpy as np
import pytest

from fooddit.evaluation.preferences import bradley_terry


def choices_of(strengths, count, rng):
    pairs = np.array([rng.choice(len(strengths), 2, replace=False) for _ in range(count)])
    first = rng.random(count) < 1 / (1 + np.exp(strengths[pairs[:, 1]] - strengths[pairs[:, 0]]))
    return np.where(first[:, None], pairs, pairs[:, ::-1])


def test_two_items_have_the_logit_of_their_share():
    found = bradley_terry(np.array([[0, 1]] * 30 + [[1, 0]] * 10), 2, penalty=1e-9)
    assert found.values[0] - found.values[1] == pytest.approx(np.log(3), abs=1e-6)
    assert found.compared.tolist() == [40, 40]
    # The error of a logit is 1 / sqrt(n p q); of a strength, which is half of it, half as much.
    assert found.high[0] - found.values[0] == pytest.approx(1.96 / np.sqrt(40 * 0.75 * 0.25) / 2, rel=1e-4)


def test_intervals_cover_the_strengths():
    rng = np.random.default_rng(0)
    strengths = rng.normal(size=8)
    truth, covered = strengths - strengths.mean(), []
    for _ in range(40):
        found = bradley_terry(choices_of(strengths, 400, rng), 8)
        covered.append((found.low <= truth) & (truth <= found.high))
    assert 0.9 < np.mean(covered) < 0.99


def test_always_chosen_is_strong_and_not_infinite():
    found = bradley_terry(np.array([[0, 1], [0, 2], [1, 2]] * 5), 3)
    assert found.values[0] > found.values[1] > found.values[2] and np.isfinite(found.high).all()
    alone = bradley_terry(np.zeros((0, 2), int), 2)
    assert alone.values.tolist() == [0, 0] and alone.high[0] > 5


def test_a_tie_is_half_a_choice_each_way():
    ties = np.array([[0, 1], [1, 0]] * 6)
    found = bradley_terry(ties, 2, weights=np.full(12, 0.5))
    same = bradley_terry(ties[:6], 2)
    np.testing.assert_allclose(found.values, 0, atol=1e-9)
    np.testing.assert_allclose(found.high, same.high)


@pytest.mark.parametrize(
    "choices, options, message",
    [
        ([[0, 3]], {}, "found indices 0 to 3, expected 0 to 2"),
        ([[1, 1]], {}, "chosen over itself"),
        ([0, 1], {}, r"found shape \(2,\)"),
        ([[0, 1]], {"penalty": 0}, "found 0, expected a number above 0"),
    ],
)
def test_what_is_no_choice_is_refused(choices, options, message):
    with pytest.raises(ValueError, match=message):
        bradley_terry(np.array(choices), 3, **options)

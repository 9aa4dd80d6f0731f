"""CMMD equals the published formula, which torch-fidelity's Gaussian kernel gives (parity/test_evaluation.py)."""

import json

import numpy as np
import pytest

from fooddit.evaluation.cmmd import cmmd, resampled_cmmd, unit_length
from tests.evaluation.feature_sets import CASES, GOLDEN, feature_sets


@pytest.mark.parametrize("case", CASES)
def test_it_equals_the_golden_values(case):
    assert cmmd(*feature_sets(case)) == pytest.approx(json.loads(GOLDEN.read_text())[case]["cmmd"], abs=1e-9)


def test_two_points_are_as_far_as_the_formula_says():
    """Both sets are one direction each, at right angles: squared distance 2, so 1000 * 2 * (1 - exp(-2 / 200))."""
    x, y = np.tile([[5.0, 0.0]], (3, 1)), np.tile([[0.0, 0.1]], (4, 1))
    assert cmmd(x, y) == pytest.approx(2000 * (1 - np.exp(-0.01)))


def test_lengths_do_not_matter_and_resamples_are_sets_with_pictures_repeated():
    x, y = feature_sets("apart")
    assert cmmd(3 * x, 0.1 * y) == pytest.approx(cmmd(x, y))
    v = np.random.default_rng(0).integers(0, 3, size=(1, len(x))).astype(float)
    repeated = np.repeat(x, v[0].astype(int), axis=0)
    assert resampled_cmmd(x, y, v, np.ones((1, len(y))))[0] == pytest.approx(cmmd(repeated, y))


def test_an_embedding_without_direction_is_refused():
    with pytest.raises(ValueError, match="zero or not finite"):
        unit_length(np.array([[1.0, 0.0], [0.0, 0.0]]))

"""All distances of two sets at once: apart is far, alike is near, and few pictures are said to be few."""

import numpy as np
import pytest

from fooddit.evaluation.cmmd import cmmd
from fooddit.evaluation.kernel_distance import kernel_distance
from fooddit.evaluation.set_distances import set_distances
from tests.evaluation.feature_sets import feature_sets


def test_values_are_those_of_each_distance_and_lie_in_their_intervals():
    x, y = feature_sets("apart")
    found = set_distances(x, y, clip=True)
    assert found.kid.value == pytest.approx(kernel_distance(x, y)) and found.cmmd.value == pytest.approx(cmmd(x, y))
    for estimate in (found.fid, found.kid, found.cmmd):
        assert 0 <= estimate.low < estimate.value < estimate.high and estimate.n == 200
    assert found.fid.bias > 0 and found.kid.bias is None and not found.singular
    assert found.scalars() == {
        "fid": found.fid.value,
        "kid": found.kid.value,
        "cmmd": found.cmmd.value,
    }
    assert found.to_dict()["real_n"] == 200


def test_sets_apart_are_further_than_sets_alike():
    apart, alike = (set_distances(*feature_sets(case)) for case in ("apart", "alike"))
    assert alike.fid.high < apart.fid.low and alike.kid.high < apart.kid.low and alike.kid.low < 0 < alike.kid.high
    assert alike.cmmd is None and "cmmd" not in alike.to_dict()


def test_fewer_pictures_than_features_are_singular_and_fewer_than_five_have_no_interval():
    x, y = feature_sets("few")
    assert set_distances(x, y).singular
    few = set_distances(x[:3], y)
    assert few.fid.low is None and few.kid.high is None and few.fid.bias is None and few.fid.value > 0
    with pytest.raises(ValueError, match="at least 2"):
        set_distances(x[:1], y)


def test_pictures_of_one_prompt_are_resampled_together():
    x, y = feature_sets("wide")
    x = np.repeat(x[:60], 5, axis=0)
    apart, together = set_distances(x, y), set_distances(x, y, prompts=np.repeat(np.arange(60), 5))
    assert together.kid.n == 60 and apart.kid.n == 300
    assert together.kid.high - together.kid.low > 1.3 * (apart.kid.high - apart.kid.low)


def test_pictures_of_the_same_dishes_are_resampled_with_them():
    """Pictures that follow their dishes closely: what dishes there are changes both sets alike."""
    rng = np.random.default_rng(0)
    dishes = rng.normal(size=(150, 6))
    x, y = (dishes + 0.1 * rng.normal(size=dishes.shape) for _ in range(2))
    numbers = np.arange(150)
    joint, apart = set_distances(x, y, dishes=(numbers, numbers)), set_distances(x, y)
    assert joint.fid.value == pytest.approx(apart.fid.value) and joint.fid.high < 0.5 * apart.fid.high
    assert joint.kid.low < 0 < joint.kid.high and apart.kid.value < joint.kid.low

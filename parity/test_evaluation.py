"""Distances between sets of features equal those of clean-fid 0.1.35 and torch-fidelity 0.4.0, to 1e-6.

Quirks that were found, and are stepped around here:
- clean-fid draws KID's subsets from NumPy's global generator, torch-fidelity from a seed; with subsets of all pictures
  both become the estimate over all pairs, which is ours.
- torch-fidelity computes in the features' own type (float32 as a network gives them; its option "float64" means
  float32, too), refuses sets smaller than a subset, and takes the roots of eigenvalues of a product that is not
  symmetric.
- clean-fid's root of a matrix (scipy.linalg.sqrtm) loses digits where there are fewer pictures than features.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from fooddit.evaluation.cmmd import cmmd, unit_length
from fooddit.evaluation.frechet import Moments, frechet_distance, resampled_frechet
from fooddit.evaluation.kernel_distance import kernel_distance
from parity.published_metrics import cleanfid, torch_fidelity
from tests.evaluation.feature_sets import CASES, GOLDEN, feature_sets

pytestmark = pytest.mark.filterwarnings("ignore")


def statistics(x):
    return {"mu": x.mean(axis=0), "sigma": np.cov(x, rowvar=False)}


def clean_fid(x, y):
    a, b = statistics(x), statistics(y)
    return cleanfid.fid.frechet_distance(a["mu"], a["sigma"], b["mu"], b["sigma"])


def torch_fid(x, y):
    metric = torch_fidelity.metric_fid.fid_statistics_to_metric
    return metric(statistics(x), statistics(y), False)[torch_fidelity.KEY_METRIC_FID]


def clean_kid(x, y):
    return cleanfid.fid.kernel_distance(x, y, num_subsets=1, max_subset_size=len(x))


def torch_kid(x, y):
    settings = {"kid_subsets": 1, "kid_subset_size": len(x), "verbose": False}
    metric = torch_fidelity.metric_kid.kid_features_to_metric
    return metric(torch.from_numpy(x), torch.from_numpy(y), **settings)[torch_fidelity.KEY_METRIC_KID_MEAN]


def torch_cmmd(x, y):
    """CMMD's formula from torch-fidelity's Gaussian kernel of bandwidth 10 and its biased estimate."""
    x, y = unit_length(x), unit_length(y)
    kernel = lambda a, b: torch_fidelity.metric_kid.kernel_rbf(a, b, kid_kernel_rbf_sigma=10)
    return 1000 * torch_fidelity.metric_kid.mmd2(kernel(x, x), kernel(x, y), kernel(y, y), mmd_est="biased")


def our_fid(x, y):
    return frechet_distance(Moments.of(x), Moments.of(y))


def our_fid_of_inner_products(x, y):
    return resampled_frechet(x, y, np.ones((1, len(x))), np.ones((1, len(y))))[0]


@pytest.mark.parametrize("case", [name for name in CASES if name != "few"])
@pytest.mark.parametrize("ours", [our_fid, our_fid_of_inner_products])
def test_fid_equals_both(case, ours):
    x, y = feature_sets(case)
    assert ours(x, y) == pytest.approx(clean_fid(x, y), rel=1e-6, abs=1e-6)
    assert ours(x, y) == pytest.approx(torch_fid(x, y), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("ours", [our_fid, our_fid_of_inner_products])
def test_fid_of_fewer_pictures_than_features_equals_both(ours):
    """To the digits that their roots of a singular matrix leave."""
    x, y = feature_sets("few")
    assert ours(x, y) == pytest.approx(clean_fid(x, y), abs=1e-4)
    assert ours(x, y) == pytest.approx(torch_fid(x, y), abs=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_kid_equals_both(case):
    x, y = feature_sets(case)
    assert kernel_distance(x, y) == pytest.approx(clean_kid(x, y), rel=1e-6, abs=1e-6)
    assert kernel_distance(x, y) == pytest.approx(torch_kid(x, y), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_cmmd_equals_torch_fidelitys_kernel(case):
    x, y = feature_sets(case)
    assert cmmd(x, y) == pytest.approx(torch_cmmd(x, y), rel=1e-6, abs=1e-6)


def test_subsets_as_published_estimate_the_same_number():
    x, y = feature_sets("wide")
    np.random.seed(0)
    published = [cleanfid.fid.kernel_distance(x, y, num_subsets=50, max_subset_size=40) for _ in range(8)]
    assert kernel_distance(x, y) == pytest.approx(np.mean(published), abs=3 * np.std(published) / 8**0.5)


@pytest.mark.parametrize("case", CASES)
def test_the_golden_file_is_what_they_give(case):
    import json

    golden = json.loads(Path(GOLDEN).read_text(encoding="utf-8"))[case]
    x, y = feature_sets(case)
    found = {"fid": torch_fid(x, y), "kid": torch_kid(x, y), "cmmd": torch_cmmd(x, y)}
    assert golden == pytest.approx(found, rel=1e-6, abs=1e-6)

"""Inception-v3 gives torch-fidelity's features for the same made weights (parity/test_inception.py makes the file)."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from fooddit.evaluation.features import inception_features, open_features, resize_clean
from fooddit.models.inception import load_inception, resize
from fooddit.models.weights import WeightsError
from tests.models.inception_weights import made_pictures, made_tensors

GOLDEN = Path(__file__).parent / "golden/inception.npz"


@pytest.fixture(scope="module")
def tensors():
    return made_tensors()


@pytest.fixture(scope="module")
def weights_file(tensors, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "inception.safetensors"
    save_file(tensors, path)
    return path


def test_features_equal_the_golden_file_of_torch_fidelity(weights_file):
    features = inception_features(weights_file, batch_size=2)
    assert features.dimension == 2048 and len(features.description["sha256"]) == 64
    found = features(made_pictures(64, 64))
    with np.load(GOLDEN) as golden:
        expected = golden["features"]
    assert found.shape == (2, 2048) and found.dtype == np.float32
    np.testing.assert_allclose(found[:, ::8], expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_the_first_pixel_stays_where_it_is_and_a_ramp_stays_one():
    ramp = np.arange(64, dtype=np.float32)[None, :, None, None] * np.ones((1, 1, 64, 3), np.float32)
    large = np.asarray(resize(ramp))
    assert large.shape == (1, 299, 299, 3) and large[0, 0, 0, 0] == 0
    np.testing.assert_allclose(large[0, :, 5, 1], np.minimum(np.arange(299) * 64 / 299, 63), atol=1e-4)


def test_clean_resizing_smooths_before_it_shrinks():
    stripes = np.zeros((1, 1196, 1196, 3), np.uint8)
    stripes[:, ::2] = 254
    np.testing.assert_allclose(resize_clean(stripes)[0, 10:-10], 127, atol=1)
    # Every fourth row is looked at, and all of those are white.
    np.testing.assert_allclose(resize(stripes.astype(np.float32)), 254)


def test_missing_tensors_are_named(tensors, tmp_path):
    few = {name: array for name, array in tensors.items() if not name.startswith("Mixed_7c.branch3x3_2a.")}
    save_file(few, tmp_path / "few.safetensors")
    with pytest.raises(WeightsError, match=r"1 tensors are missing \(Mixed_7c.branch3x3_2a.conv.weight.*6726825d.pth"):
        load_inception(tmp_path / "few.safetensors")


def test_another_networks_tensors_are_refused(tensors, tmp_path):
    changed = tensors | {"Conv2d_1a_3x3.conv.weight": np.zeros((32, 3, 5, 5), np.float32)}
    save_file(changed, tmp_path / "changed.safetensors")
    with pytest.raises(
        WeightsError, match=r"Conv2d_1a_3x3.conv.weight becomes \(5, 5, 3, 32\), expected \(3, 3, 3, 32"
    ):
        load_inception(tmp_path / "changed.safetensors")


def test_what_is_no_weights_file_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.safetensors: no such file; expected Inception-v3's published"):
        open_features(f"inception:{tmp_path}/none.safetensors")
    (tmp_path / "junk").write_bytes(b"junk" * 100)
    with pytest.raises(WeightsError, match="junk: expected a .pth file of tensors or safetensors"):
        load_inception(tmp_path / "junk")

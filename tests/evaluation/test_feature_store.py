"""What a network has looked at is read from disk; another network's, another picture's and damaged files are not."""

import numpy as np

from fooddit.evaluation.feature_store import FeatureStore
from tests.evaluation.made_set import Bar, noise


class Mean:
    """Counts its calls."""

    name, dimension = "mean", 3

    def __init__(self, version: int = 1):
        self.description, self.calls = {"network": "mean", "version": version}, 0

    def __call__(self, images):
        self.calls += 1
        return images.mean(axis=(1, 2)).astype(np.float32)


def test_a_second_look_is_read_from_disk(tmp_path):
    store, network, bar = FeatureStore(tmp_path / "features"), Mean(), Bar("features", 16)
    blocks = [noise(0), noise(1)]
    found = store(network, blocks, bar)
    np.testing.assert_array_equal(found, np.concatenate([b.mean(axis=(1, 2)).astype(np.float32) for b in blocks]))
    assert network.calls == 2 and bar.done == 16
    np.testing.assert_array_equal(store(network, blocks, bar), found)
    assert network.calls == 2
    # One block is another: only that is looked at.
    store(network, [noise(0), noise(2)], bar)
    assert network.calls == 3


def test_another_network_looks_itself_and_a_damaged_file_is_made_anew(tmp_path):
    store, bar = FeatureStore(tmp_path), Bar("features", 8)
    first, other = Mean(), Mean(version=2)
    expected = store(first, [noise(0)], bar)
    store(other, [noise(0)], bar)
    assert other.calls == 1
    for path in tmp_path.glob("*.npy"):
        path.write_bytes(path.read_bytes()[:-7])
    np.testing.assert_array_equal(store(first, [noise(0)], bar), expected)
    assert first.calls == 2


def test_no_picture_has_no_features(tmp_path):
    assert FeatureStore(tmp_path)(Mean(), [], Bar("features", 0)).shape == (0, 3)

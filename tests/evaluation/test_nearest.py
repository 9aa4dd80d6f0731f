"""A copy is found and is at distance 0; everything else is at the distance that plain arithmetic gives."""

import dataclasses

import cv2
import numpy as np
import pytest

from fooddit.data.images import decode_image
from fooddit.data.records import open_dataset
from fooddit.evaluation import nearest as module
from fooddit.evaluation.nearest import (
    Nearest,
    holdout_images,
    memorisation,
    nearest_images,
    nearest_training,
    pairs,
)
from tests.data.made import dataset, jpeg, picture, record


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """40 training pictures of 64 x 64 and one wide one, 6 in the hold-out."""
    folder = tmp_path_factory.mktemp("made") / "records"
    dataset(folder, [record(i, 64, 64) for i in range(40)] + [record(40, 160, 64)], [record(i) for i in range(50, 56)])
    return folder


@pytest.fixture(scope="module")
def train(folder):
    return open_dataset(folder, "train")


@pytest.fixture(params=[7, 256])
def block(request, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK", request.param)


def test_a_copy_is_at_distance_zero_and_noise_is_far(train, block):
    copies = np.stack([picture(i, 64, 64) for i in (3, 39, 0)])
    noise = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    found = nearest_training(np.concatenate([copies, noise]), train)
    assert [(f.index, f.id, f.distance, f.ratio) for f in found[:3]] == [
        (3, "r3", 0.0, 0.0),
        (39, "r39", 0.0, 0.0),
        (0, "r0", 0.0, 0.0),
    ]
    assert all(f.distance > 0.15 and f.ratio > 0.8 for f in found[3:])


def test_distances_are_those_of_plain_arithmetic(train, block):
    images = np.stack([picture(100 + i, 64, 64) for i in range(5)])
    every = [decode_image(r.image) for r in train]
    shapes = [
        [e[:, :64], e[:, 24:88], e[:, 48:112], e[:, 72:136], e[:, 96:]] if e.shape[1] > 64 else [e] for e in every
    ]
    small = [[cv2.resize(c, (32, 32), interpolation=cv2.INTER_AREA) / 255.0 for c in crops] for crops in shapes]
    for image, found in zip(images, nearest_training(images, train)):
        mine = cv2.resize(image, (32, 32), interpolation=cv2.INTER_AREA) / 255.0
        expected = np.sort([min(np.sqrt(((mine - c) ** 2).mean()) for c in crops) for crops in small])
        assert found.distance == pytest.approx(expected[0], abs=1e-6)
        assert found.ratio == pytest.approx(expected[0] / expected[:10].mean(), abs=1e-4)


def test_a_crop_of_a_wide_picture_is_found(train):
    wide = picture(40, 160, 64)
    found = nearest_training(np.stack([wide[:, 96:], wide[:, :64], wide[:, 30:94]]), train)
    assert [f.index for f in found] == [40, 40, 40]
    assert [f.crop for f in found[:2]] == [1.0, 0.0] and found[0].distance == found[1].distance == 0
    assert 0 < found[2].distance
    shown = nearest_images(found, train, (64, 64))
    np.testing.assert_array_equal(shown[0], wide[:, 96:])


@pytest.mark.parametrize("copies", [1, 8, 12, 30])
def test_a_copy_of_what_is_there_often_is_found_as_one(tmp_path, block, copies):
    # Re-encoded, so that no two are equal to the bit.
    again = [dataclasses.replace(record(3, 64, 64), image=jpeg(3, 64, 64, quality=60 + i)) for i in range(copies)]
    rows = [*again[: copies // 2], *(record(10 + i, 64, 64) for i in range(40)), *again[copies // 2 :]]
    twins = [0 if row.id == "r3" else i + 1 for i, row in enumerate(rows)]
    dataset(tmp_path / "records", rows, dishes=[(twin, twin) for twin in twins])
    noisy = picture(3, 64, 64) + np.random.default_rng(0).normal(0, 6, (64, 64, 3))
    noisy = np.clip(noisy, 0, 255).astype(np.uint8)
    [found] = nearest_training(noisy[None], open_dataset(tmp_path / "records", "train"))
    assert found.id == "r3" and found.copied and found.ratio < 0.3


def test_more_change_is_further(train):
    base = picture(5, 64, 64)
    noise = np.random.default_rng(1).normal(size=base.shape)
    changed = np.stack([np.clip(base + amount * noise, 0, 255).astype(np.uint8) for amount in (0, 5, 15, 40)])
    distances = [f.distance for f in nearest_training(changed, train)]
    assert distances == sorted(distances) and len(set(distances)) == 4


def test_a_blurred_copy_is_one_and_a_smooth_picture_is_not(train):
    blurred = cv2.GaussianBlur(picture(5, 64, 64), (0, 0), 3) * 0.9
    grey = np.full((64, 64, 3), 128)
    copy, smooth, new = nearest_training(np.stack([blurred, grey, picture(77, 64, 64)]).astype(np.uint8), train)
    assert copy.copied and copy.id == "r5" and not smooth.copied and not new.copied
    assert smooth.distance < new.distance


def test_summary():
    def at(*distances):
        return [Nearest(i, str(i), 0.5, d, d) for i, d in enumerate(distances)]

    found = memorisation(at(0.01, 0.02, 0.3, 0.4), at(*np.linspace(0.1, 0.3, 21)))
    assert (found.generated_median, found.nearer_share, found.n, found.holdout_n) == (pytest.approx(0.16), 0.5, 4, 21)
    assert found.holdout_median == pytest.approx(0.2) and found.holdout_5_percent == pytest.approx(0.11)
    assert found.copied_share == 1 and found.holdout_copied_share == 1
    assert set(found.to_dict()) >= {"generated_median", "generated_ratio", "nearer_share"}


def test_pairs_show_each_picture_above_its_neighbour(folder, train):
    images = holdout_images(open_dataset(folder, "holdout"), (64, 64), 5)
    assert images.shape == (5, 64, 64, 3)
    page = pairs(images, images[::-1], columns=3)
    assert page.shape == (2 * (128 + 8) + 4, 3 * 68 + 4, 3)
    np.testing.assert_array_equal(page[4:68, 4:68], images[0])
    np.testing.assert_array_equal(page[68:132, 4:68], images[4])
    np.testing.assert_array_equal(page[140:204, 72:136], images[4])


def test_no_records_is_an_error(tmp_path):
    dataset(tmp_path / "none", [record(0)])
    with pytest.raises(ValueError, match="split 'holdout' has no whole record"):
        nearest_training(picture(0)[None], open_dataset(tmp_path / "none", "holdout"))

"""The evaluation inside training: real features once, the same figures on one device and on eight."""

import jax
import numpy as np
import pytest

from fooddit.data.records import open_dataset
from fooddit.data.scenes import render_image, sample_spec
from fooddit.evaluation.features import scene_reader_features
from fooddit.evaluation.set_evaluation import Reference, evaluate_set
from fooddit.parallel import MeshConfig, make_mesh
from tests.evaluation.made_set import HOLDOUT, SIDE, TRAIN, noise, scene_dataset


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = scene_dataset(tmp_path_factory.mktemp("made") / "records")
    return open_dataset(folder, "train"), open_dataset(folder, "holdout")


@pytest.fixture(scope="module")
def network():
    return scene_reader_features()


def pictures(count):
    return np.stack([render_image(sample_spec(8, i), SIDE) for i in range(count)])


def test_real_pictures_are_read_once_and_noise_is_further_than_scenes(sets, network):
    reference = Reference(network, *sets, (SIDE, SIDE))
    scenes = evaluate_set(pictures(20), reference)
    assert len(reference.train.features) == TRAIN and len(reference.holdout.features) == HOLDOUT
    assert sorted(reference.holdout.dishes) == list(range(HOLDOUT))
    before = reference.holdout.features
    far = evaluate_set(noise(0, 20), reference)
    assert reference.holdout.features is before
    assert far.distances.fid.low > scenes.distances.fid.high
    assert far.distances.kid.low > scenes.distances.kid.high
    assert far.yardstick == scenes.yardstick and far.yardstick.n == 20
    names = {"distance/fid", "distance/kid", "distance/real_fid", "distance/real_kid"}
    assert far.scalars().keys() == names and far.to_dict()["features"] == network.description


def test_under_a_mesh_the_figures_are_the_same(sets, network):
    images = pictures(20)
    alone = evaluate_set(images, Reference(network, *sets, (SIDE, SIDE)))
    with jax.set_mesh(make_mesh(MeshConfig(data=4, fsdp=2))):
        spread = evaluate_set(images, Reference(network, *sets, (SIDE, SIDE)))
    assert spread.scalars() == pytest.approx(alone.scalars(), rel=1e-4, abs=1e-6)


def test_pictures_of_the_holdouts_own_dishes_are_paired_with_them(sets, network):
    reference = Reference(network, *sets, (SIDE, SIDE))
    own = np.stack([render_image(sample_spec(3, i, "holdout"), SIDE) for i in range(HOLDOUT)])
    found = evaluate_set(own, reference, dishes=np.arange(HOLDOUT)).distances
    assert found.fid.value == pytest.approx(0, abs=1e-3) and found.kid.value == pytest.approx(0, abs=1e-4)
    assert evaluate_set(own, reference).distances.kid.value < 0


def test_fewer_real_pictures_are_taken_where_that_is_asked(sets, network):
    reference = Reference(network, *sets, (SIDE, SIDE), count=7)
    assert len(reference.train.features) == len(reference.holdout.features) == 7


def test_pictures_of_another_size_than_the_real_ones_are_refused(sets, network):
    with pytest.raises(ValueError, match=r"pictures of \(64, 64\), expected \(32, 32\)"):
        evaluate_set(noise(0), Reference(network, *sets, (32, 32)))

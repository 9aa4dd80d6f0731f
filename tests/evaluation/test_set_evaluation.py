"""The evaluation inside training: real features once, the same figures on one device and on eight."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from fooddit.data.records import open_dataset
from fooddit.data.scenes import render_image, sample_spec
from fooddit.evaluation.features import scene_reader_features
from fooddit.evaluation.set_evaluation import Reference, evaluate_set, wanted_pictures
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


def test_what_to_draw_is_one_caption_of_each_dish_the_same_at_every_call(sets):
    wanted = wanted_pictures(sets[1], 10)
    assert len(set(wanted.dishes.tolist())) == len(set(wanted.seeds)) == 10
    for prompt, dish in zip(wanted.prompts, wanted.dishes):
        assert prompt in {caption.text for caption in sets[1][int(dish)].captions if caption.style == "dense"}
    again = wanted_pictures(sets[1], 99)
    assert len(again.prompts) == HOLDOUT and again.prompts[:10] == wanted.prompts


def test_fewer_real_pictures_are_taken_where_that_is_asked(sets, network):
    reference = Reference(network, *sets, (SIDE, SIDE), count=7)
    assert len(reference.train.features) == len(reference.holdout.features) == 7


def test_pictures_of_another_size_than_the_real_ones_are_refused(sets, network):
    with pytest.raises(ValueError, match=r"pictures of \(64, 64\), expected \(32, 32\)"):
        evaluate_set(noise(0), Reference(network, *sets, (32, 32)))


TOGETHER = """
import json, sys
import jax
import numpy as np
from fooddit.data.records import open_dataset
from fooddit.evaluation.features import scene_reader_features
from fooddit.evaluation.set_evaluation import Reference, evaluate_set
from fooddit.parallel import make_mesh
from fooddit.parallel.processes import join
from tests.evaluation.made_set import noise

folder, where = sys.argv[1:]
join(where)
train, holdout = (open_dataset(folder, split) for split in ("train", "holdout"))
if jax.process_index() == 1:
    holdout.discard(3, "damaged on this disk alone")
with jax.set_mesh(make_mesh()):
    found = evaluate_set(noise(0, 20), Reference(scene_reader_features(), train, holdout, (64, 64)))
print(json.dumps([jax.device_count(), found.to_dict()]))
"""


def test_two_processes_get_the_same_figures_as_one(sets, network):
    """Also where one of them cannot read all records."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    root = Path(__file__).resolve().parents[2]
    flags = os.environ["XLA_FLAGS"].replace("device_count=8", "device_count=1")
    environment = {**os.environ, "PYTHONPATH": str(root), "XLA_FLAGS": flags}
    command = [sys.executable, "-c", TOGETHER, str(sets[0].folder)]
    both = [
        subprocess.Popen([*command, f"127.0.0.1:{port},2,{i}"], env=environment, stdout=subprocess.PIPE, text=True)
        for i in range(2)
    ]
    said = [process.communicate(timeout=300)[0].splitlines()[-1] for process in both]
    assert said[0] == said[1]
    devices, found = json.loads(said[0])
    alone = evaluate_set(noise(0, 20), Reference(network, *sets, (SIDE, SIDE))).to_dict()
    assert devices == 2 and found["distances"]["real_n"] == HOLDOUT
    assert found["distances"]["fid"] == pytest.approx(alone["distances"]["fid"], rel=1e-4)

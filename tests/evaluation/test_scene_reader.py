import dataclasses

import numpy as np
import pytest

from fooddit.data.scenes import ATTRIBUTES, render_image, sample_spec
from fooddit.evaluation import scene_reader
from fooddit.evaluation.scene_reader import SceneReader, accuracy


@pytest.fixture(scope="module")
def reader():
    return SceneReader()


def render(specs, size=64):
    return np.stack([render_image(spec, size) for spec in specs])


def indices(specs):
    return np.array([spec.indices for spec in specs])


SPECS = [sample_spec(11, i, "holdout") for i in range(40)]


def test_the_shipped_reader_is_right_about_everything_on_held_out_renders(reader):
    measured = accuracy(reader, count=2048)
    assert measured["all_exact"] >= 0.995, measured
    assert measured.keys() == {"all_exact", *ATTRIBUTES} and min(measured.values()) == measured["all_exact"]


@pytest.mark.parametrize("position, name", enumerate(ATTRIBUTES))
def test_one_changed_attribute_is_read_as_the_new_one_and_the_others_stay(reader, position, name):
    values = ATTRIBUTES[name]
    turn = lambda value: values[(values.index(value) + 1) % len(values)]
    changed = [dataclasses.replace(spec, **{name: turn(getattr(spec, name))}) for spec in SPECS]
    read = reader.read(render(changed))
    assert np.all(read[:, position] != indices(SPECS)[:, position])
    assert np.mean(np.all(read == indices(changed), axis=1)) >= 0.95


@pytest.mark.parametrize(
    "perturb",
    [
        lambda x: np.roll(x, 32, axis=1),
        lambda x: x[:, ::-1],
        lambda x: 255 - x,
        lambda x: np.full_like(x, 128),
        lambda x: x[..., ::-1],
        lambda x: np.random.default_rng(0).permuted(x.reshape(len(x), -1, 3), axis=1).reshape(x.shape),
    ],
    ids=["rolled", "upside down", "negative", "grey", "blue for red", "scrambled"],
)
def test_a_perturbed_picture_is_not_read_as_the_original(reader, perturb):
    exact = np.all(reader.read(perturb(render(SPECS))) == indices(SPECS), axis=1)
    assert exact.mean() <= 0.1


def test_a_larger_picture_is_read_too_and_a_picture_alone_as_in_a_batch(reader):
    read = reader.read(render(SPECS))
    np.testing.assert_array_equal(reader.read(render(SPECS[7:8])), read[7:8])
    larger = np.all(reader.read(render(SPECS, size=128)) == indices(SPECS), axis=1)
    assert larger.mean() >= 0.9


def test_weights_of_other_attributes_are_refused(monkeypatch):
    monkeypatch.setattr(scene_reader, "load_weights", lambda path: ({}, {"classes": {"kind": 3}}, ""))
    with pytest.raises(ValueError, match="train it again: python main.py --config=configs/scene_reader.py"):
        SceneReader()

"""Features are the picture's alone, whatever it is given with and however many devices there are."""

import jax
import numpy as np
import pytest

from fooddit.config import ConfigError
from fooddit.evaluation import features as module
from fooddit.evaluation.features import ClipFeatures, Network, open_features, resize_bicubic, scene_reader_features
from fooddit.parallel import MeshConfig, make_mesh
from tests.evaluation.made_set import noise, small_eclip


@pytest.fixture(scope="module")
def reader():
    return scene_reader_features()


def test_the_scene_readers_features_are_those_before_its_heads(reader):
    from fooddit.evaluation.scene_reader import classifier
    from fooddit.models.autoencoder import pixels_from_bytes
    from fooddit.models.weights import load_weights

    params, _, digest = load_weights("builtin:scene_reader")
    images = noise(0, 3)
    found = reader(images)
    assert found.shape == (3, reader.dimension) == (3, 128) and found.dtype == np.float32
    assert reader.description == {"network": "builtin:scene_reader", "scale": 1 / 16, "sha256": digest}
    logits = jax.jit(lambda images: classifier().bind(params)(pixels_from_bytes(images)))(images)
    out = params["out"]
    np.testing.assert_allclose(16 * found @ out["kernel"] + out["bias"], logits, atol=1e-3)


def test_a_picture_has_the_same_features_alone_and_in_any_batch(reader):
    images = noise(1, 70)
    found = reader(images)
    np.testing.assert_array_equal(reader(images[69:]), found[69:])
    np.testing.assert_array_equal(reader(images[::-1])[::-1], found)
    assert reader(images[:0]).shape == (0, 128)


def test_over_eight_devices_features_are_the_same(reader):
    images = noise(2, 70)
    alone = reader(images)
    with jax.set_mesh(make_mesh(MeshConfig(data=4, fsdp=2))):
        spread = reader(images)
    np.testing.assert_allclose(spread, alone, atol=1e-5)


def test_a_batch_is_spread_over_the_devices_and_filled_to_a_multiple_of_them():
    shapes = []

    def function(params, images):
        shapes.append(images.shape)
        return params + images.mean(axis=(1, 2, 3))[:, None]

    network = Network(function, lambda sharding: np.float32(1), batch_size=12)
    with jax.set_mesh(make_mesh(MeshConfig(data=8))):
        found = network(np.ones((20, 2, 2, 3), np.float32))
    assert shapes == [(16, 2, 2, 3)] and found.shape == (20, 1) and np.all(found == 2)


def test_an_eclip_gives_pictures_and_prompts_in_one_space(tmp_path):
    clip = open_features(f"eclip:{small_eclip(tmp_path / 'eclip')}")
    assert isinstance(clip, ClipFeatures) and clip.dimension == 12 and clip.name == "E-CLIP eclip"
    assert len(clip.description["fingerprint"]) > 16
    images, texts = clip(noise(3, 3)), clip.text(["a soup", "两只饺子", ""])
    assert images.shape == texts.shape == (3, 12)
    np.testing.assert_allclose(np.linalg.norm(images, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(texts, axis=1), [1, 1, 0], atol=1e-5)


@pytest.mark.parametrize("source", ["scene_reader", "builtin:vgg", "inception", "eclip:", ""])
def test_networks_that_are_not_known_are_refused(source):
    with pytest.raises(ValueError, match="expected builtin:scene_reader, inception:FILE, inception-clean:FILE or ecl"):
        open_features(source)


def test_an_eclip_that_is_no_folder_is_refused(tmp_path):
    with pytest.raises((ConfigError, ValueError), match="none"):
        open_features(f"eclip:{tmp_path}/none")


def test_bicubic_resizing_leaves_a_picture_of_that_size_alone():
    images = noise(4, 2)
    assert resize_bicubic(images, 64) is images and resize_bicubic(images, 32).shape == (2, 32, 32, 3)
    assert module.KINDS.count("FILE") == 2

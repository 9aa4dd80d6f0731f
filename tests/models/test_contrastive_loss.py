"""The sigmoid loss around a ring of devices equals the dense one, with its gradients, and gathers nothing."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fooddit.models.contrastive_loss import sigmoid_loss
from fooddit.parallel import MeshConfig, batch_sharding, make_mesh

BATCH, EMBED = 32, 8
rng = np.random.default_rng(0)
IMAGE, TEXT = (rng.normal(size=(BATCH, EMBED)).astype(np.float32) for _ in range(2))
IMAGE_NAMES = rng.integers(-1, 40, size=(BATCH, 3)).astype(np.int32)
TEXT_NAMES = rng.integers(-1, 40, size=(BATCH, 2)).astype(np.int32)
SCALE, BIAS = np.float32(1.5), np.float32(-0.7)
MESHES = [
    MeshConfig(slice=1, data=1),
    *(MeshConfig(slice=1, data=n) for n in (2, 4, 8)),
    MeshConfig(slice=1, data=2, fsdp=4),
    MeshConfig(slice=2, data=2, tensor=2),
]


def ring(image, text, scale, bias, image_names, text_names):
    return tuple(sigmoid_loss(image, text, scale, bias, image_names=image_names, text_names=text_names))


def dense(image, text, scale, bias):
    """The whole matrix at once; pairs with a common name found one by one."""
    common = [[bool((set(i) & set(t)) - {-1}) for t in TEXT_NAMES.tolist()] for i in IMAGE_NAMES.tolist()]
    own = np.eye(BATCH, dtype=bool)
    left_out = np.array(common) & ~own
    logits = scale * image @ text.T + bias
    terms = jnp.where(left_out, 0, -jax.nn.log_sigmoid(jnp.where(own, logits, -logits)))
    return terms.sum() / BATCH, left_out.sum() / BATCH


def with_gradients(function):
    return jax.jit(jax.value_and_grad(function, argnums=(0, 1, 2, 3), has_aux=True))


@pytest.fixture(scope="module")
def expected():
    (loss, ignored), gradients = with_gradients(dense)(IMAGE, TEXT, SCALE, BIAS)
    assert ignored > 1
    return float(loss), float(ignored), jax.device_get(gradients)


@pytest.mark.parametrize("config", MESHES, ids=str)
def test_any_mesh_equals_the_dense_loss(config, expected):
    devices = math.prod((config.slice, config.data, config.fsdp, config.tensor))
    mesh = make_mesh(config, jax.devices()[:devices])
    with jax.set_mesh(mesh):
        image, text, *names = jax.device_put((IMAGE, TEXT, IMAGE_NAMES, TEXT_NAMES), batch_sharding(mesh))
        compiled = with_gradients(ring).lower(image, text, SCALE, BIAS, *names).compile()
        (loss, ignored), gradients = compiled(image, text, SCALE, BIAS, *names)
    np.testing.assert_allclose(loss, expected[0], rtol=1e-6)
    np.testing.assert_allclose(ignored, expected[1])
    for found, wanted in zip(gradients, expected[2]):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-6 * np.abs(wanted).max())
    text = compiled.as_text()
    # Nothing is gathered, and no array is as large as all captions or all logits.
    assert "all-gather" not in text and "all-to-all" not in text
    shares = config.slice * config.data * config.fsdp
    if shares > 1:
        assert "collective-permute" in text
        assert f"[{BATCH}," not in text and f",{BATCH}]" not in text
        assert f"f32[{BATCH // shares},{BATCH // shares}]" in text


def test_without_gradients_it_is_the_same_loss(expected):
    np.testing.assert_allclose(
        jax.jit(ring)(IMAGE, TEXT, SCALE, BIAS, IMAGE_NAMES, TEXT_NAMES)[0], expected[0], rtol=1e-6
    )


def test_a_batch_whose_captions_are_all_true_of_all_has_no_negatives():
    names = {"image_names": np.zeros((BATCH, 1), np.int32), "text_names": np.zeros((BATCH, 1), np.int32)}
    found = sigmoid_loss(IMAGE, TEXT, SCALE, BIAS, **names)
    own = SCALE * (IMAGE * TEXT).sum(axis=1) + BIAS
    np.testing.assert_allclose(found.loss, np.log1p(np.exp(-own)).mean(), rtol=1e-5)
    assert found.ignored == BATCH - 1


def test_no_name_equals_nothing():
    names = {"image_names": np.full((BATCH, 2), -1, np.int32), "text_names": np.full((BATCH, 2), -1, np.int32)}
    assert sigmoid_loss(IMAGE, TEXT, SCALE, BIAS, **names).ignored == 0

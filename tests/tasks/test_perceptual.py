from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fooddit.models import eclip_folder
from fooddit.tasks.perceptual import Perceptual, PerceptualConfig


class Tower:
    """An image tower of two patches: the mean colour of the upper and of the lower half."""

    image_size, shapes, axes = 8, {}, {}
    description = {"model": "eclip", "fingerprint": "abc"}

    def load(self, shardings=None):
        return {}

    def bind(self, params):
        def encode_image(pixels):
            assert pixels.shape[1:] == (8, 8, 3)
            halves = pixels.reshape(len(pixels), 2, 32, 3)
            return SimpleNamespace(tokens=halves.mean(axis=2).astype(jnp.bfloat16))

        return SimpleNamespace(encode_image=encode_image)


@pytest.fixture
def perceptual(monkeypatch):
    monkeypatch.setattr(eclip_folder, "open_eclip", lambda source: Tower())
    return Perceptual("towers/eclip")


def flat(*colours) -> np.ndarray:
    """A picture of 16 pixels a side whose halves have these colours."""
    rows = [np.broadcast_to(np.float32(colour), (8, 16, 3)) for colour in colours]
    return np.concatenate(rows)[None]


RED, GREEN = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)


def test_the_distance_is_of_directions_of_patch_tokens_at_the_towers_size(perceptual):
    assert perceptual.description["fingerprint"] == "abc"
    distance = lambda a, b: float(perceptual.distance({}, a, b)[0])  # noqa: E731
    assert distance(flat(RED, GREEN), flat(RED, GREEN)) == 0
    assert distance(flat(RED, GREEN), 0.5 * flat(RED, GREEN)) == pytest.approx(0, abs=1e-3)
    # One of two patches is at a right angle: a squared distance of 2, halved; resizing blurs the border between them.
    assert distance(flat(RED, GREEN), flat(RED, RED)) == pytest.approx(1, abs=0.05)
    assert distance(flat(RED, RED), flat(GREEN, GREEN)) == pytest.approx(2, abs=0.02)


def test_only_the_decoded_picture_is_moved(perceptual):
    loss = lambda image, decoded: perceptual.distance({}, image, decoded).sum()  # noqa: E731
    image, decoded = jax.grad(loss, argnums=(0, 1))(flat(RED, GREEN), flat(RED, RED) * 0.9 + 0.05)
    assert not np.any(image) and np.any(decoded)


def test_a_negative_weight_is_refused():
    with pytest.raises(ValueError, match="perceptual.weight must be at least 0"):
        PerceptualConfig(weight=-0.1)

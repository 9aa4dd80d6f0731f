import jax.numpy as jnp
import numpy as np
import pytest

from fooddit.data.scenes import render_image, sample_spec
from fooddit.models.picture_space import PictureSpace, SpaceConfig
from fooddit.models.weights import load_weights


@pytest.fixture(scope="module")
def renders():
    return np.stack([render_image(sample_spec(3, i, "holdout"), 64) for i in range(64)])


@pytest.fixture(scope="module")
def latents():
    return PictureSpace(SpaceConfig(autoencoder="builtin:scenes", patch=2))


def encode(space, image, length):
    return space.tokens(space.moments(space.load(), image), length)


def noise(height, width, batch=2):
    return np.random.default_rng(0).integers(0, 256, (batch, height, width, 3), np.uint8)


@pytest.mark.parametrize("height, width", [(32, 32), (16, 48)])
def test_pixels_there_and_back_are_the_same_bytes(height, width):
    space, image = PictureSpace(SpaceConfig(patch=8)), noise(height, width)
    tokens = encode(space, image, length=20)
    rows, columns = space.shape(height, width)
    assert (rows, columns) == (height // 8, width // 8) and space.grid == 8 and space.features == 8 * 8 * 3
    assert tokens.values.shape == (2, 20, space.features)
    assert tokens.mask.tolist() == [True] * rows * columns + [False] * (20 - rows * columns)
    assert not np.any(tokens.values[:, rows * columns :])
    np.testing.assert_array_equal(space.decode(space.load(), tokens.values, (rows, columns)), image)


def test_tokens_are_row_major_with_their_positions():
    space, image = PictureSpace(SpaceConfig(patch=8)), np.zeros((1, 16, 24, 3), np.uint8)
    image[0, 8:, 16:] = 255
    tokens = encode(space, image, length=7)
    assert tokens.positions[:6].tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]
    assert jnp.all(tokens.values[0, 5] == 1) and jnp.all(tokens.values[0, :5] == -1)


def test_latents_are_standardised_and_an_eighth_of_the_size(latents, renders):
    tokens = encode(latents, renders, length=16)
    assert latents.grid == 16 and tokens.values.shape == (64, 16, latents.features)
    channels = np.asarray(tokens.values).reshape(-1, latents.features // 4)
    np.testing.assert_allclose(channels.mean(0), 0, atol=0.15)
    np.testing.assert_allclose(channels.std(0), 1, atol=0.15)


def test_decoded_latents_look_like_the_picture(latents, renders):
    tokens = encode(latents, renders, length=16)
    decoded = np.asarray(latents.decode(latents.load(), tokens.values, (4, 4)))
    assert decoded.dtype == np.uint8 and decoded.shape == renders.shape
    assert np.mean(np.abs(decoded.astype(float) - renders)) < 15
    assert np.mean(np.abs(decoded.astype(float) - np.roll(renders, 1, axis=0))) > 30


def test_the_description_names_the_weights_by_their_hash(latents):
    assert PictureSpace(SpaceConfig()).description == {"autoencoder": "pixels"}
    assert latents.description == {"autoencoder": "builtin:scenes", "sha256": load_weights("builtin:scenes")[2]}


@pytest.mark.parametrize("height, width", [(64, 60), (60, 64), (0, 64), (-64, 64)])
def test_sides_that_are_not_multiples_of_a_token_are_refused(height, width):
    with pytest.raises(ValueError, match=f"{height} x {width} pixels: expected sides that are multiples of 8"):
        PictureSpace(SpaceConfig(patch=8)).shape(height, width)


def test_a_picture_with_more_tokens_than_the_model_is_refused():
    space = PictureSpace(SpaceConfig(patch=8))
    with pytest.raises(ValueError, match=r"\(4, 4\) tokens is longer than the model's 15"):
        encode(space, noise(32, 32), length=15)


def test_bad_configs_are_refused():
    with pytest.raises(ValueError, match="space.patch must be at least 1, found 0"):
        SpaceConfig(patch=0)
    with pytest.raises(FileNotFoundError, match="none.safetensors"):
        PictureSpace(SpaceConfig(autoencoder="none.safetensors"))

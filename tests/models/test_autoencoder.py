import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fooddit.data.scenes import render_image, sample_spec
from fooddit.models.autoencoder import (
    TinyAutoencoder,
    TinyAutoencoderConfig,
    bytes_from_pixels,
    patchify,
    pixels_from_bytes,
    unpatchify,
)
from fooddit.models.convolution import depth_to_space, space_to_depth
from fooddit.models.module import define
from fooddit.models.weights import load_weights


def grid(height, width, channels=3, batch=2):
    return jax.random.normal(jax.random.key(0), (batch, height, width, channels))


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_depth_to_space_is_the_inverse_of_space_to_depth(factor):
    x = grid(8, 12)
    deep = space_to_depth(x, factor)
    assert deep.shape == (2, 8 // factor, 12 // factor, 3 * factor**2)
    np.testing.assert_array_equal(depth_to_space(deep, factor), x)


def test_channels_are_in_the_order_row_column_channel():
    x = grid(4, 6)
    np.testing.assert_array_equal(space_to_depth(x, 2)[:, 1, 2], x[:, 2:4, 4:6].reshape(2, -1))


@pytest.mark.parametrize("height, width", [(8, 8), (4, 12)])
def test_unpatchify_is_the_inverse_of_patchify_and_drops_padding(height, width):
    x = grid(height, width)
    tokens = patchify(x, 2)
    assert tokens.shape == (2, height * width // 4, 12)
    # Row-major: the second token lies to the right of the first.
    np.testing.assert_array_equal(tokens[:, 1], x[:, :2, 2:4].reshape(2, -1))
    padded = jnp.pad(tokens, ((0, 0), (0, 5), (0, 0)), constant_values=9.0)
    np.testing.assert_array_equal(unpatchify(padded, (height // 2, width // 2), 2), x)


def test_every_byte_survives_pixels_and_out_of_range_is_clipped():
    every = np.arange(256, dtype=np.uint8)
    pixels = pixels_from_bytes(every)
    assert pixels.min() == -1 and pixels.max() == 1
    np.testing.assert_array_equal(bytes_from_pixels(pixels), every)
    assert bytes_from_pixels(jnp.array([-3.0, 3.0])).tolist() == [0, 255]


def test_shapes_of_a_fresh_autoencoder():
    definition = define(lambda r: TinyAutoencoder(TinyAutoencoderConfig(channels=5, width=24), rngs=r))
    model = definition.bind(jax.jit(definition.init)(jax.random.key(0)))
    latent = jax.eval_shape(model.encode, grid(32, 48))
    assert latent.shape == (2, 4, 6, 5) and jax.eval_shape(model.decode, latent).shape == (2, 32, 48, 3)


def test_every_parameter_learns_from_a_reconstruction():
    definition = define(lambda r: TinyAutoencoder(TinyAutoencoderConfig(channels=4, width=24), rngs=r))
    # A residual block's last convolution starts at zero, which blocks the gradient of the first.
    params = jax.tree.map(lambda x: x + 0.05, jax.jit(definition.init)(jax.random.key(0)))

    def loss(params):
        model = definition.bind(params)
        return jnp.mean((model.decode(model.encode(grid(16, 16))) - grid(16, 16)) ** 2)

    still = [
        jax.tree_util.keystr(path)
        for path, g in jax.tree.leaves_with_path(jax.jit(jax.grad(loss))(params))
        if not g.any()
    ]
    assert still == []


def test_the_shipped_weights_reconstruct_held_out_scenes_above_22_db():
    params, description, _ = load_weights("builtin:scenes")
    definition = define(lambda r: TinyAutoencoder(TinyAutoencoderConfig(**description["config"]), rngs=r))
    images = np.stack([render_image(sample_spec(5, i, "holdout"), 64) for i in range(64)])

    @jax.jit
    def reconstruct(params, images):
        model = definition.bind(params)
        return bytes_from_pixels(model.decode(model.encode(pixels_from_bytes(images))))

    squared = (np.asarray(reconstruct(params["weights"], images)).astype(float) - images) ** 2
    psnr = 10 * np.log10(255**2 / squared.mean(axis=(1, 2, 3)))
    assert psnr.mean() > 22 and psnr.min() > 17, (psnr.mean(), psnr.min())

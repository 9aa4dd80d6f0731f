"""E-CLIP's towers: published outputs, pictures of any shape, padding, what is refused."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fooddit.models.autoencoder import patch_positions, patchify
from fooddit.models.clip_layers import resize_table
from fooddit.models.eclip import Eclip
from fooddit.models.eclip_config import SIZES, EclipConfig, ImageTowerConfig, TextTowerConfig
from fooddit.models.module import define
from tests.models.eclip_cases import CASES, GOLDEN, inputs, published, random_weights, weights

IMAGE = ImageTowerConfig(width=32, depth=2, head_dim=8, patch=4, image_size=16)
TEXT = TextTowerConfig(width=24, depth=2, head_dim=8, vocabulary=50, length=9)
CONFIG = EclipConfig(IMAGE, TEXT, embed=12)
rng = np.random.default_rng(0)


def random_model(config: EclipConfig):
    module = define(lambda r: Eclip(config, rngs=r)).bind(jax.tree.map(jnp.asarray, random_weights(config)))
    # Under jit: one program compiles faster than its operations one by one.
    encode = lambda name: jax.jit(lambda *arrays: getattr(module, name)(*arrays))
    patches = jax.jit(module.image.encode_patches)
    return SimpleNamespace(image=encode("encode_image"), text=encode("encode_text"), patches=patches)


@pytest.fixture(scope="module")
def model():
    return random_model(CONFIG)


@pytest.mark.parametrize("name", CASES)
def test_published_models_give_what_transformers_gave(name):
    config, _ = published(name)
    definition, x = define(lambda r: Eclip(config, rngs=r)), inputs(name, (20, 16))

    @jax.jit
    def run(params):
        module = definition.bind(params)
        image, text = module.encode_image(x["pixels"]), module.encode_text(jnp.asarray(x["ids"]), x["mask"])
        logits = module.logits(image.pooled, text.pooled)
        return {"image_tokens": image.tokens[:1], "text_tokens": text.tokens[:1], "image": image.pooled} | {
            "text": text.pooled,
            "logits": logits,
        }

    golden, found = np.load(GOLDEN / f"eclip-{name}.npz"), run(weights(name))
    assert set(golden) == set(found)
    for key, value in found.items():
        np.testing.assert_allclose(value, golden[key], rtol=0, atol=1e-5 * max(np.abs(golden[key]).max(), 1))


def test_pictures_of_any_shape_have_a_token_a_patch_and_a_vector_of_length_one(model):
    for shape in ((16, 16), (8, 32), (24, 4)):
        features = model.image(jnp.asarray(rng.uniform(-1, 1, size=(2, *shape, 3)), jnp.float32))
        assert features.tokens.shape == (2, shape[0] * shape[1] // 16, 32) and features.pooled.shape == (2, 12)
        np.testing.assert_allclose(np.linalg.norm(features.pooled, axis=1), 1, rtol=1e-5)
    with pytest.raises(ValueError, match="16 x 18 pixels: expected sides that are multiples of 4"):
        model.image(jnp.zeros((1, 16, 18, 3)))


def test_padded_patches_change_nothing_whatever_is_at_padding(model):
    pixels = jnp.asarray(rng.uniform(-1, 1, size=(2, 12, 16, 3)), jnp.float32)
    whole = model.image(pixels)
    patches = jnp.pad(patchify(pixels, 4), ((0, 0), (0, 5), (0, 0)), constant_values=0.7)
    positions = jnp.pad(patch_positions((3, 4)), ((0, 5), (0, 0)), constant_values=3)
    mask = jnp.broadcast_to(jnp.arange(17) < 12, (2, 17))
    for tower in (
        model,
        random_model(dataclasses.replace(CONFIG, image=dataclasses.replace(IMAGE, pooling="attention"))),
    ):
        whole = tower.image(pixels)
        padded = tower.patches(patches, positions, mask)
        np.testing.assert_allclose(padded.tokens[:, :12], whole.tokens, atol=1e-5)
        np.testing.assert_allclose(padded.pooled, whole.pooled, atol=1e-5)


def test_where_a_patch_is_counts(model):
    pixels = rng.uniform(-1, 1, size=(1, 16, 16, 3)).astype(np.float32)
    found = model.image(jnp.asarray(np.concatenate([pixels, pixels[:, :, ::-1]]))).pooled
    assert np.abs(found[0] - found[1]).max() > 1e-3


def test_pixels_are_normalised_as_the_model_was_trained(model):
    """The mean and deviation of [0, 1] pixels applied inside are those applied before."""
    mean, deviation = np.array([0.4, 0.5, 0.3]), np.array([0.2, 0.25, 0.3])
    other = dataclasses.replace(IMAGE, mean=tuple(mean.tolist()), deviation=tuple(deviation.tolist()))
    pixels = rng.uniform(-1, 1, size=(2, 16, 16, 3))
    normalised = ((pixels + 1) / 2 - mean) / deviation
    found = random_model(dataclasses.replace(CONFIG, image=other)).image(jnp.asarray(pixels, jnp.float32))
    expected = model.image(jnp.asarray(normalised, jnp.float32))
    np.testing.assert_allclose(found.pooled, expected.pooled, atol=1e-5)


def test_padding_of_texts_changes_nothing_and_a_text_of_no_tokens_is_exactly_zero(model):
    ids = jnp.asarray(rng.integers(1, 50, size=(3, 9)), jnp.int32)
    mask = jnp.arange(9) < jnp.array([[5], [0], [9]])
    features = model.text(ids, mask)
    np.testing.assert_array_equal(features.pooled[1], 0)
    np.testing.assert_allclose(np.linalg.norm(features.pooled, axis=1), [1, 0, 1], rtol=1e-5)
    other = model.text(jnp.where(mask, ids, 7), mask)
    np.testing.assert_array_equal(features.pooled, other.pooled)
    np.testing.assert_array_equal(features.tokens[0, :5], other.tokens[0, :5])
    cut = model.text(ids[:1, :5], mask[:1, :5])
    np.testing.assert_allclose(cut.pooled, features.pooled[:1], atol=1e-5)


def test_a_table_is_resized_at_the_centres_of_patches():
    """Bilinear is exact for a plane, away from the borders; bicubic, whose a is -0.75, for what is constant."""
    plane = np.arange(8.0)[:, None] * 2 + np.arange(8.0)[None, :]
    found = np.asarray(resize_table(jnp.asarray(plane.reshape(64, 1)), (16, 24), "bilinear")).reshape(16, 24)
    expected = ((np.arange(16) + 0.5) / 2 - 0.5)[:, None] * 2 + ((np.arange(24) + 0.5) / 3 - 0.5)[None, :]
    np.testing.assert_allclose(found[1:-1, 1:-1], expected[1:-1, 1:-1], atol=1e-5)
    shrunk = np.asarray(resize_table(jnp.asarray(plane.reshape(64, 1)), (4, 8), "bilinear")).reshape(4, 8)
    np.testing.assert_allclose(shrunk[1:-1], (plane[::2] + plane[1::2])[1:-1] / 2, atol=1e-5)
    np.testing.assert_allclose(resize_table(jnp.ones((64, 2)), (5, 11), "bicubic"), 1, atol=1e-5)


@pytest.mark.parametrize("name", SIZES)
def test_the_named_sizes_are_traced_without_arrays(name):
    config = SIZES[name]
    definition = define(lambda r: Eclip(config, rngs=r))

    def run(params, pixels, ids):
        module = definition.bind(params)
        return module.encode_image(pixels), module.encode_text(ids, ids > 0)

    shape = jax.ShapeDtypeStruct
    given = shape((2, 256, 256, 3), jnp.float32), shape((2, config.text.length), jnp.int32)
    image, text = jax.eval_shape(run, definition.shapes, *given)
    assert image.tokens.shape == (2, 256, config.image.width)
    assert image.pooled.shape == text.pooled.shape == (2, config.embed)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: ImageTowerConfig(width=32, head_dim=12), "width 32, depth 4 and head_dim 12"),
        (lambda: ImageTowerConfig(image_size=60, patch=16), "found 60, expected a multiple of the patch, 16"),
        (lambda: ImageTowerConfig(pooling="max"), "found 'max', expected one of mean, class, attention"),
        (lambda: ImageTowerConfig(activation="gelu"), "mlp_width: found 0 with the activation 'gelu'"),
        (lambda: ImageTowerConfig(bias=True), "positions 'rope' has none"),
        (lambda: TextTowerConfig(causal=True), "causal: attention with positions 'rope' sees both ways"),
        (lambda: TextTowerConfig(pooling="end", end=40000), "end: found token 40000"),
        (
            lambda: EclipConfig(embed=8, text=TextTowerConfig(projection="none")),
            "its width, 256, must be model.embed, 8",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()

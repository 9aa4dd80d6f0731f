from types import SimpleNamespace

import jax
import numpy as np
import pytest

from fooddit.data.buckets import bucket_table
from fooddit.data.pipeline import DataConfig
from fooddit.data.tokenizer import train_tokenizer
from fooddit.diffusion import ObjectiveConfig
from fooddit.models.dit import DiTConfig
from fooddit.models.drawing import Artist
from fooddit.models.picture_space import PictureSpace, SpaceConfig
from fooddit.models.prompts import LearnedText, Prompt, encode_prompts
from fooddit.models.text import TextConfig
from fooddit.models.text_to_image import SamplingConfig, define_model

CONFIG = SimpleNamespace(
    data=DataConfig(source="none", batch_size=4, image_size=32, grid=8),
    model=DiTConfig(width=32, depth=2, head_dim=8),
    text=TextConfig(width=32, depth=1, head_dim=8, vocabulary=300, length=8),
    objective=ObjectiveConfig(prediction="x0"),
    sampling=SamplingConfig(steps=3, guidance_scale=3.0),
)
SPACE = PictureSpace(SpaceConfig(patch=8))
READER = LearnedText(8, train_tokenizer(["red soup", "white cake", "红汤", "白蛋糕"], 300))
FROZEN = {"space": SPACE.load()}
PROMPTS = ["red soup", "white cake", "红汤", ""]


@pytest.fixture(scope="module")
def artist():
    return Artist(CONFIG, SPACE, READER, (32, 32))


@pytest.fixture(scope="module")
def params():
    """Random everywhere, where a fresh model starts at zero and would draw grey."""
    definition = define_model(CONFIG, None, SPACE.features)
    leaves, tree = jax.tree.flatten(definition.init(jax.random.key(0)))
    keys = jax.random.split(jax.random.key(1), len(leaves))
    return tree.unflatten(leaf + 0.1 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys))


@pytest.fixture(scope="module")
def drawn(artist, params):
    return artist.draw(params, FROZEN, PROMPTS, [5, 6, 7, 8], batch_size=4)


def test_pictures_are_bytes_and_follow_prompt_and_seed(artist, params, drawn):
    assert drawn.shape == (4, 32, 32, 3) and drawn.dtype == np.uint8
    same_seed = artist.draw(params, FROZEN, PROMPTS, [5] * 4, batch_size=4)
    same_prompt = artist.draw(params, FROZEN, ["red soup"] * 4, [5, 6, 7, 8], batch_size=4)
    for pictures in (drawn, same_seed, same_prompt):
        assert len(np.unique(pictures.reshape(4, -1), axis=0)) == 4
    np.testing.assert_array_equal(same_seed[0], drawn[0])
    np.testing.assert_array_equal(same_prompt[0], drawn[0])


def test_neighbours_order_and_filling_up_change_no_bit(artist, params, drawn):
    backwards = artist.draw(params, FROZEN, PROMPTS[::-1], [8, 7, 6, 5], batch_size=4)
    np.testing.assert_array_equal(backwards[::-1], drawn)
    alone = artist.draw(params, FROZEN, PROMPTS[2:3], [7], batch_size=4)
    np.testing.assert_array_equal(alone, drawn[2:3])
    # Seven pictures are two batches, the second filled up.
    many = artist.draw(params, FROZEN, PROMPTS[:3] + PROMPTS, [1, 2, 3, 5, 6, 7, 8], batch_size=4)
    assert len(many) == 7
    np.testing.assert_array_equal(many[3:], drawn)


def test_sampling_settings_are_those_of_the_config_unless_given(artist, params, drawn):
    draw = lambda **changes: artist.draw(
        params, FROZEN, PROMPTS, [5, 6, 7, 8], batch_size=4, sampling=SamplingConfig(**changes)
    )
    np.testing.assert_array_equal(draw(steps=3, guidance_scale=3.0), drawn)
    plain = draw(steps=3, guidance_scale=1.0)
    assert np.any(plain[:3] != drawn[:3])
    # The last prompt is no prompt: guidance has nothing to push it away from.
    np.testing.assert_array_equal(plain[3], drawn[3])


def test_a_larger_picture_lies_in_the_area_that_training_knew():
    trained, larger, wide = (Artist(CONFIG, SPACE, READER, size) for size in ((32, 32), (64, 64), (16, 64)))
    assert trained.trained_tokens == len(trained.positions) == 16
    assert len(larger.positions) == 64 and larger.shape == (8, 8)
    np.testing.assert_allclose(larger.positions.max(axis=0), 3.5)
    np.testing.assert_allclose(larger.positions[1] - larger.positions[0], [0, 0.5])
    assert wide.shape == (2, 8) and len(wide.positions) == 16
    np.testing.assert_allclose(wide.positions.max(axis=0), [1, 7])


def test_bad_arguments_are_refused(artist, params):
    with pytest.raises(ValueError, match="2 prompts and 1 seeds"):
        artist.draw(params, FROZEN, ["a", "b"], [1], batch_size=4)
    with pytest.raises(ValueError, match="multiples of 8"):
        Artist(CONFIG, SPACE, READER, (30, 32))


def test_no_caption_is_what_training_dropped(artist, params):
    """Guidance's other side leaves the text out; training saw a caption whose mask is empty."""
    model = define_model(CONFIG, None, SPACE.features).bind(params)
    tokens = jax.random.normal(jax.random.key(2), (2, 16, SPACE.features))
    conditions = model.conditions(encode_prompts(READER, [Prompt("")] * 2))
    dropped = model(tokens, np.array([0.3, 0.9]), conditions, positions=artist.positions)
    absent = model(tokens, np.array([0.3, 0.9]), None, positions=artist.positions)
    np.testing.assert_allclose(absent, dropped, atol=1e-5)


@pytest.mark.parametrize("size", bucket_table(64, 8, 2.0))
def test_a_size_of_training_has_the_positions_of_training(size):
    config = SimpleNamespace(**vars(CONFIG))
    config.data = DataConfig(source="none", batch_size=4, image_size=64, grid=8, max_aspect=2.0)
    moments = np.zeros((1, size.height, size.width, 3), np.float32)
    rows = (size.height // 8) * (size.width // 8)
    expected = SPACE.tokens(moments, 64).positions[:rows]
    np.testing.assert_array_equal(Artist(config, SPACE, READER, (size.height, size.width)).positions, expected)


def test_nothing_asked_for_is_no_picture(artist, params):
    assert artist.draw(params, FROZEN, [], [], batch_size=4).shape == (0, 32, 32, 3)

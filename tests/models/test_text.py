import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fooddit.models.module import define
from fooddit.models.text import TextConfig, TextTransformer

CONFIG = TextConfig(width=32, depth=2, head_dim=8, vocabulary=50, length=9)


@pytest.fixture(scope="module")
def encode():
    definition = define(lambda r: TextTransformer(CONFIG, rngs=r))
    leaves, tree = jax.tree.flatten(definition.init(jax.random.key(0)))
    keys = jax.random.split(jax.random.key(1), len(leaves))
    params = tree.unflatten(leaf + 0.1 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys))
    return jax.jit(lambda ids, mask: definition.bind(params)(jnp.asarray(ids), jnp.asarray(mask)))


def captions(*lengths: int, padding: int = 0):
    """The same words cut to some lengths."""
    ids = np.tile(np.arange(1, CONFIG.length + 1, dtype=np.int32), (len(lengths), 1))
    mask = np.arange(CONFIG.length) < np.array(lengths)[:, None]
    return np.where(mask, ids, padding), mask


def test_what_is_at_padding_changes_no_feature(encode):
    short = encode(*captions(4, 7))
    other = encode(*captions(4, 7, padding=33))
    np.testing.assert_array_equal(short.pooled, other.pooled)
    np.testing.assert_array_equal(short.tokens[0, :4], other.tokens[0, :4])
    np.testing.assert_array_equal(short.tokens[1, :7], other.tokens[1, :7])


def test_padding_itself_changes_no_feature(encode):
    ids, mask = captions(4)
    padded, cut = encode(ids, mask), encode(ids[:, :4], mask[:, :4])
    np.testing.assert_allclose(padded.tokens[:, :4], cut.tokens, atol=2e-6)
    np.testing.assert_allclose(padded.pooled, cut.pooled, atol=2e-6)


def test_an_empty_caption_is_pooled_to_exactly_zero(encode):
    features = encode(*captions(0, 3, padding=7))
    np.testing.assert_array_equal(features.pooled[0], 0)
    assert np.all(np.isfinite(features.tokens)) and np.all(np.asarray(features.pooled[1]) != 0)


def test_pooled_is_the_mean_over_the_captions_own_tokens(encode):
    features = encode(*captions(3))
    np.testing.assert_allclose(features.pooled[0], np.asarray(features.tokens)[0, :3].mean(0), atol=1e-6)


def test_the_order_of_words_counts_and_other_captions_do_not(encode):
    ids, mask = captions(5, 5)
    swapped = ids.copy()
    swapped[1, [0, 4]] = ids[1, [4, 0]]
    features = encode(swapped, mask)
    assert np.abs(features.pooled[1] - features.pooled[0]).max() > 1e-3
    np.testing.assert_array_equal(features.pooled[0], encode(ids, mask).pooled[0])


def test_a_width_that_heads_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="found 12 and 32"):
        TextConfig(width=32, head_dim=12)

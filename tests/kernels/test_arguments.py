"""What does not fit is named before anything is computed."""

import jax.numpy as jnp
import pytest

from fooddit.kernels import cross_attention, decoupled_cross_attention, self_attention

X = jnp.ones((2, 6, 16))
GAIN = jnp.ones(4)
SELF = {"q": X, "k": X, "v": X, "num_heads": 4, "q_scale": GAIN, "k_scale": GAIN, "positions": jnp.ones((6, 2))}
CROSS = {name: value for name, value in SELF.items() if name != "positions"}
BOTH = {"q": X, "num_heads": 4, "q_scale": GAIN, "text_k_scale": GAIN, "image_k_scale": GAIN}
BOTH |= {name: jnp.ones((2, 5, 16)) for name in ("text_k", "text_v", "image_k", "image_v")}


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"q": X[0]}, r"q has shape \(6, 16\), expected \(batch, tokens, heads \* head_dim\)"),
        ({"q": X.reshape(2, 6, 4, 4)}, r"q has shape \(2, 6, 4, 4\), expected"),
        ({"q": X[:, :0]}, r"q has shape \(2, 0, 16\), expected .* none of them 0"),
        ({"q": X.astype(int)}, "q has dtype int32, expected floating point"),
        ({"q": None}, "q: found NoneType, expected an array"),
        ({"num_heads": 0}, "num_heads: found 0, expected an integer of at least 1"),
        ({"num_heads": 4.0}, "num_heads: found 4.0, expected an integer"),
        ({"num_heads": 3}, "width 16 of q is not a multiple of num_heads=3"),
        ({"k": X[:1]}, r"k has shape \(1, 6, 16\), expected q's batch and width, \(2, tokens, 16\)"),
        ({"k": X[:, :5], "v": X[:, :5]}, r"k has shape \(2, 5, 16\), expected \(2, 6, 16\)"),
        ({"v": X[..., :8]}, r"v has shape \(2, 6, 8\), expected \(2, 6, 16\)"),
        ({"q_scale": 1.0}, "q_scale: found float, expected an array"),
        ({"k_scale": jnp.ones(8)}, r"k_scale has shape \(8,\), expected one gain per channel of a head: \(4,\)"),
        ({"positions": None}, "positions: found NoneType, expected an array"),
        ({"positions": jnp.ones((6, 3))}, r"positions has shape \(6, 3\), expected \(6, 2\) or \(2, 6, 2\)"),
        ({"kv_mask": jnp.ones((2, 5), bool)}, r"kv_mask has shape \(2, 5\), expected \(2, 6\)"),
        ({"kv_mask": jnp.zeros((2, 6))}, "kv_mask has dtype float32, expected bool, True where a key may be attended"),
    ],
)
def test_self_attention_names_what_does_not_fit(changed, message):
    with pytest.raises(ValueError, match=message):
        self_attention(**SELF | changed)


def test_cross_attention_names_what_does_not_fit():
    assert cross_attention(**CROSS | {"k": X[:, :5], "v": X[:, :5]}).shape == X.shape
    with pytest.raises(ValueError, match=r"v has shape \(2, 6, 16\), expected \(2, 5, 16\)"):
        cross_attention(**CROSS | {"k": X[:, :5]})


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"image_k": X[..., :8]}, r"image_k has shape \(2, 6, 8\), expected q's batch and width"),
        ({"image_k": None}, "image_k: found NoneType"),
        ({"text_mask": jnp.ones((2, 6), bool)}, r"text_mask has shape \(2, 6\), expected \(2, 5\)"),
        ({"image_scale": jnp.ones(3)}, r"image_scale has shape \(3,\), expected \(\) or \(2,\)"),
    ],
)
def test_decoupled_cross_attention_names_what_does_not_fit(changed, message):
    with pytest.raises(ValueError, match=message):
        decoupled_cross_attention(**BOTH | changed)

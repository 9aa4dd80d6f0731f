"""Attention against a float64 NumPy loop over heads, and the properties that fused kernels will be held to."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fooddit.kernels import cross_attention, self_attention

BATCH, TOKENS, HEADS, HEAD_DIM = 3, 12, 2, 8
WIDTH = HEADS * HEAD_DIM
POSITIONS = jnp.stack(jnp.meshgrid(jnp.arange(3.0), jnp.arange(4.0), indexing="ij"), -1).reshape(-1, 2)
MASK = jnp.array([[True] * 12, [True] * 5 + [False] * 7, [False, True] * 6])


def inputs(seed=0, tokens=TOKENS, keys=TOKENS):
    q, k, v, gains = jax.random.split(jax.random.key(seed), 4)
    return {
        "q": jax.random.normal(q, (BATCH, tokens, WIDTH)),
        "k": jax.random.normal(k, (BATCH, keys, WIDTH)),
        "v": jax.random.normal(v, (BATCH, keys, WIDTH)),
        "q_scale": 1 + jax.random.uniform(gains, (HEAD_DIM,)),
        "k_scale": 2 - jax.random.uniform(gains, (HEAD_DIM,)),
    }


self_ = functools.partial(self_attention, num_heads=HEADS)
cross = functools.partial(cross_attention, num_heads=HEADS)


def reference(q, k, v, q_scale, k_scale, positions=None, kv_mask=None, softmax_scale=None):
    q, k, v, q_scale, k_scale = (np.asarray(x, np.float64) for x in (q, k, v, q_scale, k_scale))
    out = np.zeros(q.shape)
    for b in range(q.shape[0]):
        for h in range(HEADS):
            lanes = slice(h * HEAD_DIM, (h + 1) * HEAD_DIM)
            query, key = rms_norm(q[b, :, lanes], q_scale), rms_norm(k[b, :, lanes], k_scale)
            if positions is not None:
                where = np.asarray(positions if positions.ndim == 2 else positions[b], np.float64)
                query, key = rope(query, where), rope(key, where)
            logits = query @ key.T * (HEAD_DIM**-0.5 if softmax_scale is None else softmax_scale)
            weights = np.exp(logits) * (1 if kv_mask is None else np.asarray(kv_mask[b], np.float64))
            if weights.any():
                out[b, :, lanes] = weights / weights.sum(-1, keepdims=True) @ v[b, :, lanes]
    return out


def rms_norm(x, gain):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * gain


def rope(x, positions):
    """Pair i of the head is the complex number x[i] + 1j x[i + half], turned by its own angle."""
    half, quarter = HEAD_DIM // 2, HEAD_DIM // 4
    frequencies = 100.0 ** (-np.arange(quarter) / quarter)
    angles = np.concatenate([positions[:, :1] * frequencies, positions[:, 1:] * frequencies], axis=-1)
    turned = (x[:, :half] + 1j * x[:, half:]) * np.exp(1j * angles)
    return np.concatenate([turned.real, turned.imag], axis=-1)


@pytest.mark.parametrize("mask", [None, MASK], ids=["all", "masked"])
@pytest.mark.parametrize("softmax_scale", [None, 1 / HEAD_DIM])
def test_self_attention_equals_the_loop(mask, softmax_scale):
    arrays = inputs()
    options = {"positions": POSITIONS, "kv_mask": mask, "softmax_scale": softmax_scale}
    np.testing.assert_allclose(self_(**arrays, **options), reference(**arrays, **options), atol=2e-6)


@pytest.mark.parametrize("mask", [None, MASK[:, :7]], ids=["all", "masked"])
def test_cross_attention_equals_the_loop(mask):
    arrays = inputs(tokens=5, keys=7)
    np.testing.assert_allclose(cross(**arrays, kv_mask=mask), reference(**arrays, kv_mask=mask), atol=2e-6)


def test_positions_per_example_may_be_fractional_and_negative():
    positions = jax.random.uniform(jax.random.key(1), (BATCH, TOKENS, 2), minval=-7, maxval=20)
    arrays = inputs()
    out = self_(**arrays, positions=positions)
    np.testing.assert_allclose(out, reference(**arrays, positions=positions), atol=1e-5)
    shared = self_(**arrays, positions=positions[1])
    np.testing.assert_allclose(shared[1], out[1], atol=1e-6)
    assert not np.allclose(shared[0], out[0], atol=1e-2)


def test_only_relative_positions_count_and_rows_are_not_columns():
    arrays = inputs()
    out = self_(**arrays, positions=POSITIONS)
    np.testing.assert_allclose(self_(**arrays, positions=POSITIONS + jnp.array([3.5, -2.0])), out, atol=1e-5)
    assert not np.allclose(self_(**arrays, positions=POSITIONS[:, ::-1]), out, atol=1e-2)


@pytest.mark.parametrize("attention", [functools.partial(self_, positions=POSITIONS), cross], ids=["self", "cross"])
def test_masked_keys_change_nothing_bit_for_bit(attention):
    arrays = inputs()
    hidden = ~MASK[..., None]
    changed = arrays | {name: jnp.where(hidden, 1e4 * arrays[name] + 3, arrays[name]) for name in ("k", "v")}
    np.testing.assert_array_equal(attention(**changed, kv_mask=MASK), attention(**arrays, kv_mask=MASK))
    short = {**arrays, "k": arrays["k"][:, :5], "v": arrays["v"][:, :5]}
    np.testing.assert_allclose(cross(**short)[1], cross(**arrays, kv_mask=MASK)[1], atol=1e-6)


@pytest.mark.parametrize("attention", [functools.partial(self_, positions=POSITIONS), cross], ids=["self", "cross"])
def test_an_example_without_keys_gives_zero_and_finite_gradients(attention):
    arrays = inputs()
    mask = MASK.at[1].set(False)
    out = attention(**arrays, kv_mask=mask)
    np.testing.assert_array_equal(out[1], 0)
    assert bool(jnp.all(out[0] != 0))
    gradients = jax.grad(lambda a: jnp.sum(attention(**a, kv_mask=mask) ** 2 + attention(**a, kv_mask=mask)))(arrays)
    for name, gradient in gradients.items():
        assert bool(jnp.isfinite(gradient).all()), name
        if name in ("q", "k", "v"):
            np.testing.assert_array_equal(gradient[1], 0)
            assert bool(jnp.any(gradient[0] != 0)), name


def test_masked_keys_get_no_gradient():
    gradients = jax.grad(lambda a: jnp.sum(self_(**a, positions=POSITIONS, kv_mask=MASK) ** 2))(inputs())
    for name in ("k", "v"):
        np.testing.assert_array_equal(jnp.where(MASK[..., None], 0, gradients[name]), 0)


def test_zero_tokens_and_large_gains_stay_finite():
    arrays = inputs() | {"q": jnp.zeros((BATCH, TOKENS, WIDTH)), "q_scale": jnp.full(HEAD_DIM, 1e4)}
    value, gradients = jax.value_and_grad(lambda a: jnp.sum(self_(**a, positions=POSITIONS)))(arrays)
    assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves((value, gradients)))
    loud = inputs() | {"q_scale": jnp.full(HEAD_DIM, 1e4)}
    assert bool(jnp.isfinite(self_(**loud, positions=POSITIONS)).all())


def test_bfloat16_in_and_out_with_a_float32_softmax():
    arrays = inputs()
    half = {name: x.astype(jnp.bfloat16) if name in ("q", "k", "v") else x for name, x in arrays.items()}
    out = self_(**half, positions=POSITIONS)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(out.astype(jnp.float32), reference(**arrays, positions=POSITIONS), atol=0.05)


def test_wrong_shapes_are_named():
    arrays = inputs()
    with pytest.raises(ValueError, match="width 16 of q is not a multiple of num_heads=3"):
        cross_attention(**arrays, num_heads=3)
    with pytest.raises(ValueError, match=r"q_scale has shape \(8,\), expected .*\(4,\)"):
        cross_attention(**arrays, num_heads=4)
    with pytest.raises(ValueError, match="multiple of 4, found 2"):
        self_attention(**(arrays | {"q_scale": jnp.ones(2), "k_scale": jnp.ones(2)}), num_heads=8, positions=POSITIONS)

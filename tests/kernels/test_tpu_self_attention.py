"""The TPU kernel, interpreted on a CPU, against the plain reference: values and all gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fooddit.kernels import self_attention
from fooddit.kernels.tpu_self_attention import tpu_self_attention

HEADS, LANES = 2, 128


def arrays(tokens, gain=1.0, seed=0):
    keys = jax.random.split(jax.random.key(seed), 6)
    q, k, v, d_out = (jax.random.normal(key, (2, tokens, HEADS * LANES)) for key in keys[:4])
    q_scale, k_scale = (gain * (1 + 0.3 * jax.random.normal(key, (LANES,))) for key in keys[4:])
    return (q, k, v, q_scale, k_scale), d_out


@pytest.mark.parametrize(
    "tokens, masked, gain, batched",
    [(128, True, 1.0, True), (200, False, 1.0, False), (256, True, 5.0, False), (256, False, 5.0, True)],
)
def test_values_and_gradients_equal_the_reference(tokens, masked, gain, batched):
    primals, d_out = arrays(tokens, gain, seed=tokens)
    positions = jax.random.uniform(jax.random.key(1), (2, tokens, 2) if batched else (tokens, 2)) * 20
    mask = jax.random.bernoulli(jax.random.key(2), 0.7, (2, tokens)).at[1].set(False) if masked else None

    def of(attention, **options):
        def call(q, k, v, q_scale, k_scale):
            gains = {"q_scale": q_scale, "k_scale": k_scale}
            return attention(q, k, v, num_heads=HEADS, positions=positions, kv_mask=mask, **gains, **options)

        out, pull = jax.vjp(call, *primals)
        return out, pull(d_out)

    expected, expected_gradients = of(self_attention)
    found, gradients = of(functools.partial(tpu_self_attention, interpret=True))
    # Large gains make logits of hundreds, and their exponents are as right as float32 is there.
    tolerance = 2e-6 if gain == 1 else 1e-4
    np.testing.assert_allclose(found, expected, atol=tolerance)
    for name, gradient, wanted in zip(("q", "k", "v", "q_scale", "k_scale"), gradients, expected_gradients):
        np.testing.assert_allclose(gradient, wanted, atol=10 * tolerance * float(jnp.abs(wanted).max()), err_msg=name)
    if masked:
        np.testing.assert_array_equal(found[1], 0)


def test_another_head_dim_is_refused():
    (q, k, v, *_), _ = arrays(128)
    gains = {"q_scale": jnp.ones(64), "k_scale": jnp.ones(64)}
    with pytest.raises(NotImplementedError, match="head_dim 64: the TPU kernel is for 128"):
        tpu_self_attention(q, k, v, num_heads=4, positions=jnp.zeros((128, 2)), **gains)

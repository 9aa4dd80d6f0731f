"""The TPU kernel, interpreted on a CPU, against the plain reference: values and all gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax._src.pallas.mosaic.interpret import interpret_pallas_call
from jax.experimental.pallas import tpu as pltpu

from fooddit.kernels import self_attention
from fooddit.kernels.tpu_common import dot
from fooddit.kernels.tpu_layout import BLOCKS, layout_for
from fooddit.kernels.tpu_self_attention import tpu_self_attention

NAMES = ("q", "k", "v", "q_scale", "k_scale")
interpreted = functools.partial(tpu_self_attention, interpret=True)


def arrays(tokens, head_dim, gain=1.0, seed=0, batch=2, width=256):
    keys = jax.random.split(jax.random.key(seed), 6)
    q, k, v, d_out = (jax.random.normal(key, (batch, tokens, width)) for key in keys[:4])
    q_scale, k_scale = (gain * (1 + 0.3 * jax.random.normal(key, (head_dim,))) for key in keys[4:])
    return (q, k, v, q_scale, k_scale), d_out


def results(attention, primals, d_out, positions, mask):
    """The output, and the gradient of each of `NAMES`."""

    def call(q, k, v, q_scale, k_scale):
        num_heads = q.shape[-1] // q_scale.size
        return attention(
            q, k, v, num_heads=num_heads, q_scale=q_scale, k_scale=k_scale, positions=positions, kv_mask=mask
        )

    out, pull = jax.vjp(call, *primals)
    return out, pull(d_out.astype(out.dtype))


def check(found, expected, tolerance):
    """Values within `tolerance`, gradients within ten times that of the largest one (a lone token has none for q)."""
    np.testing.assert_allclose(found[0].astype(jnp.float32), expected[0], atol=tolerance)
    for name, gradient, wanted in zip(NAMES, found[1], expected[1]):
        atol = 10 * tolerance * max(float(jnp.abs(wanted).max()), 0.1)
        np.testing.assert_allclose(gradient.astype(jnp.float32), wanted, atol=atol, rtol=0, err_msg=name)


@pytest.mark.parametrize(
    "tokens, head_dim, masked, gain, batched",
    [
        (128, 128, True, 1.0, True),
        (200, 128, False, 1.0, False),
        (256, 128, True, 5.0, False),
        (256, 128, False, 5.0, True),
        (128, 64, False, 1.0, False),
        (200, 64, True, 1.0, True),
        (256, 64, True, 7.0, False),
        (1, 128, False, 1.0, True),
        (77, 64, True, 1.0, False),
    ],
)
def test_values_and_gradients_equal_the_reference(tokens, head_dim, masked, gain, batched):
    primals, d_out = arrays(tokens, head_dim, gain, seed=tokens)
    positions = jax.random.uniform(jax.random.key(1), (2, tokens, 2) if batched else (tokens, 2)) * 20
    mask = jax.random.bernoulli(jax.random.key(2), 0.7, (2, tokens)).at[1].set(False) if masked else None
    expected = results(self_attention, primals, d_out, positions, mask)
    found = results(interpreted, primals, d_out, positions, mask)
    # Large gains make logits of hundreds, and their exponents are as right as float32 is there.
    check(found, expected, 2e-6 if gain == 1 else 1e-4)
    if masked:
        np.testing.assert_array_equal(found[0][1], 0)


@pytest.mark.parametrize("gain", [1.0, 5.0])
def test_several_blocks_of_queries_and_of_keys(monkeypatch, gain):
    monkeypatch.setitem(BLOCKS, "v6e", BLOCKS["v6e"] | {"forward": (256, 128), "backward": (128, 256)})
    monkeypatch.setattr("fooddit.kernels.tpu_layout.SMALLEST_BLOCK", 128)
    for head_dim in (64, 128):
        primals, d_out = arrays(500, head_dim, gain, batch=1, width=4 * head_dim)
        positions = jax.random.uniform(jax.random.key(1), (500, 2)) * 20
        expected = results(self_attention, primals, d_out, positions, None)
        check(results(interpreted, primals, d_out, positions, None), expected, 2e-6 if gain == 1 else 1e-4)


def test_a_shallow_matrix_unit():
    primals, d_out = arrays(128, 64, batch=1, width=128)
    expected = results(self_attention, primals, d_out, jnp.ones((128, 2)), None)
    found = results(functools.partial(interpreted, generation="v5e"), primals, d_out, jnp.ones((128, 2)), None)
    check(found, expected, 1e-5)


def test_a_token_count_without_large_blocks():
    primals, d_out = arrays(1100, 128, batch=1, width=128)
    positions = jax.random.uniform(jax.random.key(1), (1100, 2)) * 20
    expected = results(self_attention, primals, d_out, positions, None)
    check(results(interpreted, primals, d_out, positions, None), expected, 2e-6)


@settings(max_examples=3, deadline=None)
@given(
    tokens=st.integers(1, 160),
    head_dim=st.sampled_from((64, 128)),
    present=st.floats(0, 1),
    gain=st.sampled_from((0.1, 1.0, 3.0)),
    seed=st.integers(0, 99),
)
def test_any_tokens_mask_and_gains(tokens, head_dim, present, gain, seed):
    primals, d_out = arrays(tokens, head_dim, gain, seed, batch=1, width=128)
    positions = jax.random.uniform(jax.random.key(seed), (tokens, 2), minval=-50, maxval=50)
    mask = jax.random.bernoulli(jax.random.key(seed), present, (1, tokens))
    expected = results(self_attention, primals, d_out, positions, mask)
    check(results(interpreted, primals, d_out, positions, mask), expected, 1e-5 if gain <= 1 else 1e-4)


def widened(x):
    return x.astype(jnp.float32)


@pytest.mark.parametrize("head_dim", [64, 128])
def test_bfloat16_is_near_the_float32_reference(head_dim, monkeypatch):
    # XLA's CPU has no such product of bfloat16 arrays in all layouts; in float32 it is the same, bit for bit.
    for module in ("tpu_self_attention", "tpu_self_attention_backward"):
        monkeypatch.setattr(
            f"fooddit.kernels.{module}.dot", lambda a, b, contract: dot(*map(widened, (a, b)), contract)
        )
    primals, d_out = arrays(256, head_dim, batch=1)
    rounded = [x.astype(jnp.bfloat16) for x in primals[:3]]
    positions = jax.random.uniform(jax.random.key(1), (256, 2)) * 20
    exact = [x.astype(jnp.float32) for x in rounded]
    d_out = d_out.astype(jnp.bfloat16).astype(jnp.float32)
    expected = results(self_attention, (*exact, *primals[3:]), d_out, positions, None)
    # 2 ** -8 is bfloat16's precision; a query, its weights and its output are rounded to it one after the other.
    check(results(interpreted, (*rounded, *primals[3:]), d_out, positions, None), expected, 2**-7)


def test_no_race_in_simulated_memories():
    primals, d_out = arrays(256, 64, batch=1, width=256)
    simulated = functools.partial(tpu_self_attention, interpret=pltpu.InterpretParams(detect_races=True))
    expected = results(self_attention, primals, d_out, jnp.zeros((256, 2)), None)
    # The gradients are made before the detector is asked.
    check(results(simulated, primals, d_out, jnp.zeros((256, 2)), None), expected, 1e-5)
    assert interpret_pallas_call.races is not None
    assert not interpret_pallas_call.races.races_found


@pytest.mark.parametrize("generation", BLOCKS)
def test_padding_leaves_large_blocks(generation):
    for tokens in (1, 77, 128, 1000, 1024, 1100, 2300, 4096, 4100, 8192):
        layout = layout_for(tokens, 128, 128, generation)
        assert tokens <= layout.tokens < max(tokens + 128, 1.2 * tokens)
        for size in (*layout.forward, *layout.backward):
            assert layout.tokens % size == 0
            assert size >= min(layout.tokens, 512)


def test_a_grid_step_takes_as_many_heads_as_divide_them():
    group = lambda tokens, heads: layout_for(tokens, heads * 128, 128, "v6e").group
    assert [group(256, heads) for heads in (1, 2, 7, 12, 16, 11)] == [1, 2, 7, 6, 8, 1]
    assert [group(tokens, 12) for tokens in (1024, 1280, 2048, 4096, 16384)] == [4, 3, 2, 1, 1]
    assert layout_for(1024, 12 * 64, 64, "v6e").group == 3


def test_more_tokens_than_vector_memory_holds_are_refused():
    assert layout_for(16384, 128, 128, "v6e").tokens == 16384
    with pytest.raises(NotImplementedError, match="16384 tokens: .* 84 of tpu7x's 60 MiB"):
        layout_for(16384, 128, 128, "tpu7x")


def test_other_heads_are_refused():
    (q, k, v, *_), _ = arrays(128, 128)
    for head_dim, message in ((32, "head_dim 32: the TPU kernel is for 128, a register's lanes, and 64, two heads"),):
        gains = {"q_scale": jnp.ones(head_dim), "k_scale": jnp.ones(head_dim)}
        with pytest.raises(NotImplementedError, match=message):
            tpu_self_attention(q, k, v, num_heads=256 // head_dim, positions=jnp.zeros((128, 2)), **gains)
    gains = {"q_scale": jnp.ones(64), "k_scale": jnp.ones(64)}
    with pytest.raises(NotImplementedError, match="3 heads of head_dim 64: .* an even number"):
        tpu_self_attention(*(x[..., :192] for x in (q, k, v)), num_heads=3, positions=jnp.zeros((128, 2)), **gains)

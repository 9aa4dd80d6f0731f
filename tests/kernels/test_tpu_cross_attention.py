"""The TPU kernel for cross-attention, interpreted on a CPU, against the plain reference: values and all gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from jax._src.pallas.mosaic.interpret import interpret_pallas_call as interpreter
from jax.experimental.pallas import tpu as pltpu

from fooddit.kernels import cross_attention, decoupled_cross_attention
from fooddit.kernels.tpu_cross_attention import tpu_cross_attention, tpu_decoupled_cross_attention
from fooddit.kernels.tpu_cross_layout import layout_for

ARRAYS = "q", "text_k", "text_v", "image_k", "image_v", "q_scale", "text_k_scale", "image_k_scale", "image_scale"
WIDTH = 256
decoupled = functools.partial(tpu_decoupled_cross_attention, interpret=True)


def arrays(tokens, text, image, head_dim=128, gain=1.0, seed=0, batch=3):
    keys = jax.random.split(jax.random.key(seed), 8)
    shapes = [(batch, n, WIDTH) for n in (tokens, text, text, image, image)]
    normal = [jax.random.normal(key, shape) for key, shape in zip(keys, shapes)]
    gains = [gain * (1 + 0.3 * jax.random.normal(key, (head_dim,))) for key in keys[5:]]
    return dict(zip(ARRAYS, [*normal, *gains, jnp.linspace(0.3, 1.7, batch)]))


def masks(text, image, batch=3):
    """The first example has keys of both branches; the second no image key; the third none at all."""
    key = jax.random.key(9)
    texts, images = (jax.random.bernoulli(key, 0.7, (batch, n)).at[:, 0].set(True) for n in (text, image))
    return {"text_mask": texts.at[2:].set(False), "image_mask": images.at[1:].set(False)}


def values_and_gradients(attention, primals, **options):
    def both(primals):
        call = lambda primals: attention(**primals, num_heads=WIDTH // len(primals["q_scale"]), **options)
        out, pull = jax.vjp(call, primals)
        return out, pull(jax.random.normal(jax.random.key(3), out.shape).astype(out.dtype))[0]

    return jax.jit(both)(primals)


def assert_equals_the_reference(primals, tolerance=3e-6, attention=decoupled, **options):
    expected, wanted = values_and_gradients(decoupled_cross_attention, primals, **options)
    found, gradients = values_and_gradients(attention, primals, **options)
    np.testing.assert_allclose(found, expected, atol=tolerance * max(1, float(jnp.abs(expected).max())))
    for name, gradient in gradients.items():
        atol = 10 * tolerance * (float(jnp.abs(wanted[name]).max()) + 0.1)
        np.testing.assert_allclose(gradient, wanted[name], atol=atol, err_msg=name)
    return found, gradients


# Large gains make logits of hundreds, and their exponents are as right as float32 is there.
@pytest.mark.parametrize("head_dim, gain, tolerance", [(128, 1.0, 3e-6), (64, 5.0, 1e-4), (128, 5.0, 1e-4)])
def test_values_and_gradients_equal_the_reference_under_masks(head_dim, gain, tolerance):
    primals = arrays(200, 77, 16, head_dim, gain)
    found, gradients = assert_equals_the_reference(primals, tolerance, **masks(77, 16))
    np.testing.assert_array_equal(found[2], 0)
    for name, examples in (("q", [2]), ("text_k", [2]), ("text_v", [2]), ("image_k", [1, 2]), ("image_v", [1, 2])):
        np.testing.assert_array_equal(gradients[name][np.array(examples)], 0, err_msg=name)


@settings(max_examples=3, deadline=None, derandomize=True, phases=[Phase.generate])
@given(
    tokens=st.integers(1, 300),
    text=st.integers(1, 140),
    image=st.integers(1, 140),
    head_dim=st.sampled_from([64, 128]),
    softmax_scale=st.sampled_from([None, 0.2]),
    seed=st.integers(0, 99),
)
def test_values_and_gradients_equal_the_reference_for_any_shape(tokens, text, image, head_dim, softmax_scale, seed):
    primals = arrays(tokens, text, image, head_dim, seed=seed, batch=1)
    assert_equals_the_reference(primals, softmax_scale=softmax_scale)


def test_a_step_of_several_pieces_and_a_head_of_several_steps(monkeypatch):
    monkeypatch.setattr("fooddit.kernels.tpu_cross_layout.BLOCK", 256)
    monkeypatch.setattr("fooddit.kernels.tpu_cross_attention.FORWARD_WEIGHTS", 128 * 384)
    monkeypatch.setattr("fooddit.kernels.tpu_cross_attention_backward.BACKWARD_WEIGHTS", 128 * 384)
    assert_equals_the_reference(arrays(600, 200, 60))


def test_one_number_scales_the_image_in_all_examples():
    primals = arrays(40, 30, 20, batch=2)
    _, gradients = assert_equals_the_reference(primals | {"image_scale": jnp.float32(0.7)})
    assert gradients["image_scale"].shape == ()
    del primals["image_scale"]
    assert_equals_the_reference(primals, image_scale=0.7)


def test_one_branch_equals_the_reference():
    primals = arrays(100, 77, 1)
    primals = {name: primals[name] for name in ("q", "text_k", "text_v", "q_scale", "text_k_scale")}
    renamed = lambda attention, **options: (
        lambda text_k, text_v, text_k_scale, **rest: attention(
            k=text_k, v=text_v, k_scale=text_k_scale, kv_mask=masks(77, 1)["text_mask"], **rest, **options
        )
    )
    expected, wanted = values_and_gradients(renamed(cross_attention), primals)
    found, gradients = values_and_gradients(renamed(tpu_cross_attention, interpret=True), primals)
    np.testing.assert_allclose(found, expected, atol=3e-6)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradient, wanted[name], atol=3e-5 * float(jnp.abs(wanted[name]).max()), err_msg=name)


@pytest.mark.parametrize("scale", [0.0, np.array([0.0, 0.5])], ids=["float", "per example"])
def test_a_scale_of_zero_equals_the_text_alone_bit_for_bit(scale):
    primals = arrays(130, 50, 30, batch=2)
    del primals["image_scale"]
    found = jax.jit(functools.partial(decoupled, num_heads=2))(**primals, image_scale=scale)
    names = {"q": "q", "text_k": "k", "text_v": "v", "q_scale": "q_scale", "text_k_scale": "k_scale"}
    alone = functools.partial(tpu_cross_attention, num_heads=2, interpret=True)
    expected = jax.jit(alone)(**{new: primals[name] for name, new in names.items()})
    np.testing.assert_array_equal(found[0].view(np.uint32), expected[0].view(np.uint32))
    assert np.array_equal(found[1], expected[1]) == (np.ndim(scale) == 0)


def test_bfloat16_is_within_its_rounding_of_the_float32_reference():
    primals = arrays(200, 77, 16)
    primals = {name: x.astype(jnp.bfloat16) if x.ndim == 3 else x for name, x in primals.items()}
    found, gradients = values_and_gradients(decoupled, primals, **masks(77, 16))
    exact = {name: x.astype(jnp.float32) for name, x in primals.items()}
    expected, wanted = values_and_gradients(decoupled_cross_attention, exact, **masks(77, 16))
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(found.astype(jnp.float32), expected, atol=0.03)
    for name, gradient in gradients.items():
        assert gradient.dtype == primals[name].dtype
        atol = 0.03 * float(jnp.abs(wanted[name]).max())
        np.testing.assert_allclose(gradient.astype(jnp.float32), wanted[name], atol=atol, err_msg=name)


def test_the_simulator_finds_no_race_and_no_read_of_memory_never_written(monkeypatch):
    monkeypatch.setattr("fooddit.kernels.tpu_cross_layout.BLOCK", 128)
    primals = arrays(256, 100, 50, batch=1)
    simulated = functools.partial(decoupled, interpret=pltpu.InterpretParams(detect_races=True))
    call = functools.partial(simulated, num_heads=2)
    out, pull = jax.vjp(lambda primals: call(**primals), primals)
    # Memory never written is NaN there.
    assert np.isfinite(jax.block_until_ready(out)).all()
    assert not interpreter.races.races_found
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(jax.block_until_ready(pull(out))))
    assert not interpreter.races.races_found


def test_a_grid_step_takes_as_many_heads_as_divide_them_and_its_logits_allow():
    group = lambda tokens, heads, *keys: layout_for(tokens, heads, 128, keys, learned_scale=True, interpret=False).group
    assert [group(256, heads, 128) for heads in (1, 2, 7, 12, 16, 11)] == [1, 2, 7, 6, 8, 1]
    assert [group(tokens, 12, 512, 256) for tokens in (256, 1024, 2048, 4096)] == [6, 2, 1, 1]


@pytest.mark.parametrize("head_dim, heads", [(32, 8), (256, 1), (64, 3)])
def test_another_layout_of_heads_is_refused(head_dim, heads):
    q, gain = jnp.ones((1, 8, head_dim * heads)), jnp.ones(head_dim)
    with pytest.raises(NotImplementedError, match=f"{heads} heads of head_dim {head_dim}: the TPU kernel is for"):
        tpu_cross_attention(q, q, q, num_heads=heads, q_scale=gain, k_scale=gain)


def test_other_and_mixed_dtypes_are_refused():
    q, gain = jnp.ones((1, 8, 128)), jnp.ones(128)
    with pytest.raises(NotImplementedError, match=r"q, k and v of \['bfloat16', 'float32'\]: the TPU kernel"):
        tpu_cross_attention(q, q.astype(jnp.bfloat16), q, num_heads=1, q_scale=gain, k_scale=gain)

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fooddit.diffusion import guide, guide_twice, sample, sampling_times

X = jax.random.normal(jax.random.key(0), (4, 5))
T = jnp.array([0.1, 0.4, 0.6, 0.9])


def conditional(x, t):
    return jnp.sin(3 * x) + t[:, None]


def unconditional(x, t):
    return jnp.cos(2 * x) - t[:, None]


def test_formula():
    guided = guide(conditional, unconditional, 3.0)(X, T)
    expected = unconditional(X, T) + 3 * (conditional(X, T) - unconditional(X, T))
    np.testing.assert_allclose(guided, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", ["euler", "heun", "dpmpp_2m"])
def test_scale_one_is_the_conditional_prediction_bit_for_bit(method):
    times = sampling_times(6)
    guided = jax.jit(lambda x: sample(guide(conditional, unconditional, 1.0), x, times, method))(X)
    plain = jax.jit(lambda x: sample(conditional, x, times, method))(X)
    np.testing.assert_array_equal(guided, plain)


def test_interval_holds_bit_for_bit():
    guided = guide(conditional, unconditional, 3.0, (0.3, 0.7))(X, T)
    np.testing.assert_array_equal(guided[jnp.array([0, 3])], conditional(X, T)[jnp.array([0, 3])])
    full = guide(conditional, unconditional, 3.0)(X, T)
    np.testing.assert_array_equal(guided[1:3], full[1:3])
    assert not np.allclose(guided[1:3], conditional(X, T)[1:3])


def test_interval_includes_its_ends():
    ends = jnp.array([0.25, 0.75, 0.25, 0.75])
    guided = guide(conditional, unconditional, 3.0, (0.25, 0.75))(X, ends)
    np.testing.assert_array_equal(guided, guide(conditional, unconditional, 3.0)(X, ends))


def test_scale_per_example():
    scales = jnp.array([1.0, 2.0, 5.0, 0.0])
    guided = guide(conditional, unconditional, scales)(X, T)
    for i, scale in enumerate(scales):
        np.testing.assert_allclose(guided[i], guide(conditional, unconditional, scale)(X, T)[i], rtol=1e-6)
    np.testing.assert_allclose(guided[3], unconditional(X, T)[3], atol=1e-6)


def test_unconditional_network_does_not_run_where_nothing_is_guided():
    calls = []

    def counted(x, t):
        jax.debug.callback(lambda t: calls.append(float(t[0])), t)
        return unconditional(x, t)

    denoise = guide(conditional, counted, 3.0, (0.3, 0.7))
    jax.block_until_ready(jax.jit(lambda x: sample(denoise, x, sampling_times(10), "euler"))(X))
    jax.effects_barrier()
    np.testing.assert_allclose(sorted(calls), [0.3, 0.4, 0.5, 0.6, 0.7], atol=1e-6)


def test_infinite_unconditional_prediction_outside_of_the_interval_is_harmless():
    guided = guide(conditional, lambda x, t: jnp.full_like(x, jnp.inf), 3.0, (0.3, 0.7))(X, T)
    assert bool(jnp.isfinite(guided[jnp.array([0, 3])]).all())


def test_gradients_flow_through_both_networks():
    def total(weight, t):
        return guide(conditional, lambda x, t: weight * x, 3.0, (0.3, 0.7))(X, t).sum()

    np.testing.assert_allclose(jax.grad(total)(1.0, jnp.full(4, 0.5)), -2 * X.sum(), rtol=1e-5)
    assert jax.grad(total)(1.0, jnp.full(4, 0.9)) == 0


def test_bad_interval_is_named():
    with pytest.raises(ValueError, match=r"\(0.7, 0.3\)"):
        guide(conditional, unconditional, 3.0, (0.7, 0.3))


def image_only(x, t):
    return jnp.sin(x) * jnp.cos(x) + 0.5 * t[:, None]


def test_two_guidances_formula():
    guided = guide_twice(conditional, image_only, unconditional, 3.0, 1.5)(X, T)
    none, image, both = unconditional(X, T), image_only(X, T), conditional(X, T)
    np.testing.assert_allclose(guided, none + 1.5 * (image - none) + 3.0 * (both - image), rtol=1e-5, atol=1e-5)


def test_an_image_that_says_nothing_leaves_text_guidance_bit_for_bit():
    twice = guide_twice(conditional, unconditional, unconditional, 3.0, 2.5, (0.3, 0.95))(X, T)
    np.testing.assert_array_equal(twice, guide(conditional, unconditional, 3.0, (0.3, 0.95))(X, T))


@pytest.mark.parametrize(("text", "image", "ran"), [(1.0, 1.0, set()), (3.0, 1.0, {"i"}), (1.0, 2.0, {"i", "u"})])
def test_a_scale_of_one_is_exact_and_runs_no_network_that_only_it_needs(text, image, ran):
    calls = set()

    def counted(name, function):
        def run(x, t):
            jax.debug.callback(lambda: calls.add(name))
            return function(x, t)

        return run

    guided = guide_twice(conditional, counted("i", image_only), counted("u", unconditional), text, image)(X, T)
    jax.effects_barrier()
    assert calls == ran
    if not ran:
        np.testing.assert_array_equal(guided, conditional(X, T))


def test_two_guidances_take_a_scale_per_example():
    text, image = jnp.array([1.0, 2.0, 5.0, 0.0]), jnp.array([2.0, 1.0, 0.0, 3.0])
    guided = guide_twice(conditional, image_only, unconditional, text, image)(X, T)
    for i in range(4):
        alone = guide_twice(conditional, image_only, unconditional, text[i], image[i])(X, T)[i]
        np.testing.assert_allclose(guided[i], alone, rtol=1e-6)

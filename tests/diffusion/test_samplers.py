"""Samplers against a flow that is known: for data of N(MEAN, SPREAD^2), x_t = (1 - t) MEAN + std_t z along a path."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fooddit.diffusion import STEPPERS, sample, sampling_times

MEAN, SPREAD = 0.7, 0.3
NOISE = jax.random.normal(jax.random.key(3), (4, 6))


def gaussian_velocity(x, t, mean=MEAN):
    t = t[:, None]
    variance = (1 - t) ** 2 * SPREAD**2 + t**2
    return -mean + (t - (1 - t) * SPREAD**2) / variance * (x - (1 - t) * mean)


def exact(noise, t=0.0):
    return (1 - t) * MEAN + np.sqrt((1 - t) ** 2 * SPREAD**2 + t**2) * noise


ORDERS = pytest.mark.parametrize(("method", "order"), [("euler", 1), ("heun", 2), ("dpmpp_2m", 2)])


def measured_orders(method, start, end, steps):
    """log2 of the error's ratio each time that the number of steps doubles."""

    def error(num_steps):
        times = jnp.linspace(start, end, num_steps + 1)
        result = sample(gaussian_velocity, exact(NOISE, start), times, method)
        return float(jnp.sqrt(jnp.mean((result - exact(NOISE, end)) ** 2)))

    errors = np.array([error(n) for n in steps])
    return np.log2(errors[:-1] / errors[1:])


@ORDERS
def test_order_of_convergence(method, order):
    np.testing.assert_allclose(measured_orders(method, 0.9, 0.1, (40, 80, 160)), order, atol=0.2)


@ORDERS
def test_order_over_the_whole_path(method, order):
    # The log-SNR is infinite at both ends, which costs the multistep method a logarithm: h^2 log(1 / h).
    slack = 0.45 if method == "dpmpp_2m" else 0.2
    np.testing.assert_allclose(measured_orders(method, 1.0, 0.0, (64, 128, 256)), order, atol=slack)


@pytest.mark.parametrize("method", STEPPERS)
def test_trajectory_follows_the_exact_path(method):
    times = sampling_times(40)
    result, trajectory = jax.jit(lambda x: sample(gaussian_velocity, x, times, method, return_trajectory=True))(NOISE)
    assert trajectory.shape == (41, *NOISE.shape)
    np.testing.assert_array_equal(trajectory[0], NOISE)
    np.testing.assert_array_equal(trajectory[-1], result)
    expected = np.stack([exact(NOISE, t) for t in times])
    assert np.abs(trajectory - expected).max() < (0.1 if method == "euler" else 0.01)


def test_euler_and_heun_equal_a_plain_loop():
    times, x_euler, x_heun = np.linspace(1, 0, 6), np.float64(NOISE), np.float64(NOISE)

    def velocity(x, t):
        return np.asarray(gaussian_velocity(jnp.asarray(x, jnp.float32), jnp.full(4, t, jnp.float32)), np.float64)

    for t, end in zip(times[:-1], times[1:], strict=True):
        x_euler = x_euler + (end - t) * velocity(x_euler, t)
        first = velocity(x_heun, t)
        predicted = x_heun + (end - t) * first
        x_heun = predicted if end == 0 else x_heun + (end - t) / 2 * (first + velocity(predicted, end))
    np.testing.assert_allclose(sample(gaussian_velocity, NOISE, sampling_times(5), "euler"), x_euler, atol=1e-5)
    np.testing.assert_allclose(sample(gaussian_velocity, NOISE, sampling_times(5), "heun"), x_heun, atol=1e-5)


@pytest.mark.parametrize("method", STEPPERS)
@pytest.mark.parametrize("num_steps", [1, 2, 5])
def test_a_single_picture_is_reached_exactly(method, num_steps):
    # All data in one point: the path is straight and every solver is exact.
    result = sample(lambda x, t: (x - 0.4) / t[:, None], NOISE, sampling_times(num_steps), method)
    np.testing.assert_allclose(result, np.full(NOISE.shape, 0.4), atol=1e-6)


@pytest.mark.parametrize(("method", "evaluations"), [("euler", 7), ("heun", 13), ("dpmpp_2m", 7)])
def test_network_evaluations_and_the_times_that_it_sees(method, evaluations):
    seen = []

    def denoise(x, t):
        jax.debug.callback(lambda t: seen.append(t), t, ordered=True)
        return x

    jax.block_until_ready(sample(denoise, NOISE, sampling_times(7), method))
    jax.effects_barrier()
    assert len(seen) == evaluations
    assert seen[0].shape == (4,) and min(t.min() for t in seen) > 0
    np.testing.assert_allclose(sorted({float(t[0]) for t in seen}, reverse=True), sampling_times(7)[:-1])


@pytest.mark.parametrize("method", STEPPERS)
def test_the_result_is_differentiable(method):
    times = sampling_times(24)
    gradient = jax.grad(lambda m: sample(lambda x, t: gaussian_velocity(x, t, m), NOISE, times, method).mean())(MEAN)
    # exact() moves with the mean one to one.
    np.testing.assert_allclose(gradient, 1.0, atol=0.05)
    through_noise = jax.grad(lambda noise: sample(gaussian_velocity, noise, times, method).sum())(NOISE)
    np.testing.assert_allclose(through_noise, np.full(NOISE.shape, SPREAD), atol=0.05)


@pytest.mark.parametrize("method", STEPPERS)
def test_state_is_float32_for_a_bfloat16_network(method):
    result = sample(lambda x, t: x.astype(jnp.bfloat16), NOISE.astype(jnp.bfloat16), sampling_times(3), method)
    assert result.dtype == jnp.float32 and bool(jnp.isfinite(result).all())


def test_unknown_method_lists_the_known_ones():
    with pytest.raises(ValueError, match="'ddim'.*dpmpp_2m.*euler.*heun"):
        sample(gaussian_velocity, NOISE, sampling_times(2), "ddim")

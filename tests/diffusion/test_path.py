import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fooddit.diffusion import path

X0, NOISE = jax.random.normal(jax.random.key(0), (2, 4, 3, 5))
T = jnp.array([0.0, 0.25, 0.5, 1.0])


def test_interpolate_is_the_straight_line():
    x0, noise = jnp.array([[2.0], [2.0], [2.0]]), jnp.array([[-4.0], [-4.0], [-4.0]])
    x_t = path.interpolate(x0, noise, jnp.array([0.0, 0.25, 1.0]))
    np.testing.assert_allclose(x_t[:, 0], [2.0, 0.5, -4.0], rtol=1e-6)


def test_velocity_is_the_time_derivative_of_the_path():
    _, derivative = jax.jvp(lambda t: path.interpolate(X0, NOISE, t), (T,), (jnp.ones_like(T),))
    np.testing.assert_allclose(derivative, path.velocity_target(X0, NOISE), atol=1e-6)


def test_conversions_recover_data_noise_and_velocity():
    x_t, velocity = path.interpolate(X0, NOISE, T), path.velocity_target(X0, NOISE)
    np.testing.assert_allclose(path.x0_from_velocity(velocity, x_t, T), X0, atol=1e-6)
    np.testing.assert_allclose(path.noise_from_velocity(velocity, x_t, T), NOISE, atol=1e-6)
    np.testing.assert_allclose(path.velocity_from_x0(X0, x_t, T, 0.05)[1:], velocity[1:], atol=1e-5)
    np.testing.assert_allclose(path.velocity_from_noise(NOISE, x_t, T, 0.05)[:-1], velocity[:-1], atol=1e-5)


@pytest.mark.parametrize("convert", [path.velocity_from_x0, path.velocity_from_noise])
def test_floor_bounds_the_divisor(convert):
    t = jnp.array([0.0, 0.01, 0.99, 1.0])
    ratio = jnp.abs(convert(jnp.zeros((4, 1)), jnp.ones((4, 1)), t, 0.05))[:, 0]
    floored = ratio[:2] if convert is path.velocity_from_x0 else ratio[2:]
    np.testing.assert_allclose(floored, [20.0, 20.0], rtol=1e-5)

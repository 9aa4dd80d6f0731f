"""Rectified flow: the straight path from data to noise, x_t = (1 - t) x0 + t noise, and its algebra.

t = 0 is data and t = 1 is noise; the velocity is dx_t/dt = noise - x0. Every `t` is (batch,) and acts on all trailing
dimensions of its example. A conversion that divides by t (or 1 - t) takes a `floor` for the divisor.
Liu et al. 2022, arXiv:2209.03003; Lipman et al. 2022, arXiv:2210.02747.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float


def interpolate(
    x0: Float[Array, "batch *rest"], noise: Float[Array, "batch *rest"], t: Float[Array, "batch"]
) -> Float[Array, "batch *rest"]:
    """x_t, the point at time t on the straight line between an example and its noise."""
    t = expand_time(t, x0)
    return (1 - t) * x0 + t * noise


def velocity_target(x0: Float[Array, "batch *rest"], noise: Float[Array, "batch *rest"]) -> Float[Array, "batch *rest"]:
    """The velocity of the straight line, noise - x0: the same at every t."""
    return noise - x0


def x0_from_velocity(
    velocity: Float[Array, "batch *rest"], x_t: Float[Array, "batch *rest"], t: Float[Array, "batch"]
) -> Float[Array, "batch *rest"]:
    """The clean example that a velocity at x_t points to."""
    return x_t - expand_time(t, x_t) * velocity


def noise_from_velocity(
    velocity: Float[Array, "batch *rest"], x_t: Float[Array, "batch *rest"], t: Float[Array, "batch"]
) -> Float[Array, "batch *rest"]:
    """The noise that a velocity at x_t comes from."""
    return x_t + (1 - expand_time(t, x_t)) * velocity


def velocity_from_x0(
    x0: Float[Array, "batch *rest"], x_t: Float[Array, "batch *rest"], t: Float[Array, "batch"], floor: float
) -> Float[Array, "batch *rest"]:
    """The velocity that leads from x0 to x_t in the time max(t, floor)."""
    return (x_t - x0) / jnp.maximum(expand_time(t, x_t), floor)


def velocity_from_noise(
    noise: Float[Array, "batch *rest"], x_t: Float[Array, "batch *rest"], t: Float[Array, "batch"], floor: float
) -> Float[Array, "batch *rest"]:
    """The velocity that leads from x_t to the noise in the time max(1 - t, floor)."""
    return (noise - x_t) / jnp.maximum(1 - expand_time(t, x_t), floor)


def expand_time(t: Float[Array, "batch"], x: Float[Array, "batch *rest"]) -> Float[Array, "batch *ones"]:
    """t with as many dimensions as x, to be broadcast over all but the first."""
    return t.reshape(t.shape + (1,) * (x.ndim - 1))

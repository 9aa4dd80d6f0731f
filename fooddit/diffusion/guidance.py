"""Classifier-free guidance as a wrapper around velocity functions."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fooddit.diffusion.path import expand_time

Denoise = Callable[[Array, Array], Array]


def guide(
    conditional: Denoise,
    unconditional: Denoise,
    guidance_scale: float | Float[Array, ""] | Float[Array, "batch"],
    interval: tuple[float, float] = (0.0, 1.0),
) -> Denoise:
    """A velocity function that pushes `conditional` away from `unconditional` by guidance_scale, for t in [lo, hi].

    Both take (x, t (batch,)) and return a velocity; so does the result. A scale of 1, and any time outside of the
    interval, gives the conditional velocity bit for bit. guidance_scale is a scalar or one number per example. The
    unconditional network does not run at a time at which no example of the batch is guided.
    Ho and Salimans 2022, arXiv:2207.12598; the interval: Kynkaanniemi et al. 2024, arXiv:2404.07724.
    """
    low, high = interval
    if not 0 <= low <= high <= 1:
        raise ValueError(f"guidance interval is {interval}, expected two times 0 <= low <= high <= 1")

    def denoise(x: Array, t: Array) -> Array:
        scale = jnp.broadcast_to(jnp.asarray(guidance_scale, jnp.float32), t.shape)
        active = (t >= low) & (t <= high) & (scale != 1)
        velocity = conditional(x, t)
        # A real branch, and not a select, as long as nobody vmaps over it: the skipped network costs nothing.
        base = jax.lax.cond(jnp.any(active), lambda: unconditional(x, t).astype(velocity.dtype), lambda: velocity)
        extra = expand_time(jnp.where(active, scale - 1, 0.0), x)
        # Around the conditional velocity, so that an extra of 0 is exact; where, because 0 * inf is not 0.
        return jnp.where(extra == 0, velocity, velocity + extra.astype(velocity.dtype) * (velocity - base))

    return denoise

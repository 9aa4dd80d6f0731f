"""Classifier-free guidance as a wrapper around velocity functions."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fooddit.diffusion.path import expand_time

Denoise = Callable[[Array, Array], Array]
Scale = float | Float[Array, ""] | Float[Array, "batch"]


def guide(
    conditional: Denoise, unconditional: Denoise, guidance_scale: Scale, interval: tuple[float, float] = (0.0, 1.0)
) -> Denoise:
    """A velocity function that pushes `conditional` away from `unconditional` by guidance_scale, for t in [lo, hi].

    Both take (x, t (batch,)) and return a velocity; so does the result. A scale of 1, and any time outside of the
    interval, gives the conditional velocity bit for bit. guidance_scale is a scalar or one number per example. The
    unconditional network does not run at a time at which no example of the batch is guided.
    Ho and Salimans 2022, arXiv:2207.12598; the interval: Kynkaanniemi et al. 2024, arXiv:2404.07724.
    """
    return _ladder(conditional, [(unconditional, guidance_scale)], interval)


def guide_twice(
    conditional: Denoise,
    image_only: Denoise,
    unconditional: Denoise,
    guidance_scale: Scale,
    image_guidance_scale: Scale,
    interval: tuple[float, float] = (0.0, 1.0),
) -> Denoise:
    """Guidance by an image prompt and by text, each with a scale of its own, for t in [lo, hi].

    With v(text, image): v(0, 0) + image_guidance_scale (v(0, i) - v(0, 0)) + guidance_scale (v(t, i) - v(0, i)), which
    is InstructPix2Pix's (Brooks et al. 2022, arXiv:2211.09800, equation 3). A scale of 1 takes its difference out bit
    for bit, and the network that only it needs does not run. Where the image says nothing (image_only equals
    unconditional), it is `guide`.
    """
    return _ladder(conditional, [(image_only, guidance_scale), (unconditional, image_guidance_scale)], interval)


def _ladder(conditional: Denoise, weaker: list[tuple[Denoise, Scale]], interval: tuple[float, float]) -> Denoise:
    """conditional + sum of (scale - 1) times the difference between each rung and the one above it."""
    low, high = interval
    if not 0 <= low <= high <= 1:
        raise ValueError(f"guidance interval is {interval}, expected two times 0 <= low <= high <= 1")

    def denoise(x: Array, t: Array) -> Array:
        inside = (t >= low) & (t <= high)
        scales = [jnp.broadcast_to(jnp.asarray(scale, jnp.float32), t.shape) for _, scale in weaker]
        # Around the conditional velocity, so that an extra of 0 is exact; where, because 0 * inf is not 0.
        extras = [jnp.where(inside, scale - 1, 0.0) for scale in scales]
        guided = above = conditional(x, t)
        dtype = guided.dtype
        for number, (network, _) in enumerate(weaker):
            needed = jnp.stack([jnp.any(extra != 0) for extra in extras[number : number + 2]]).any()
            # A real branch, and not a select, as long as nobody vmaps over it: the skipped network costs nothing.
            base = jax.lax.cond(needed, lambda f=network: f(x, t).astype(dtype), lambda v=above: v)
            extra = expand_time(extras[number], x)
            guided = jnp.where(extra == 0, guided, guided + extra.astype(dtype) * (above - base))
            above = base
        return guided

    return denoise

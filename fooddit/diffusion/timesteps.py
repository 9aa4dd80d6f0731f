"""When: training times, sampling schedules, and random numbers that belong to an example and not to its place.

Everything random here is keyed by example. The noise of example i is the same whatever its position, the batch size and
the number of devices (threefry keys are partitionable in JAX).
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

# One stream of an example's key per use: with the same bits, t would be a function of the noise's first value.
_NOISE_STREAM = 0x6E6F6973
_TIME_STREAM = 0x74696D65


@dataclass(frozen=True)
class TimestepConfig:
    """Distribution of training times: t = sigmoid(mean + scale * normal), then moved towards noise by `shift`.

    Logit-normal times and shift: Esser et al. 2024, arXiv:2403.03206. shift 1 changes nothing; see `resolution_shift`.
    """

    mean: float = 0.0
    scale: float = 1.0
    shift: float = 1.0

    def __post_init__(self):
        for name in ("scale", "shift"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"TimestepConfig.{name} is {value}, expected a finite number above 0")


def example_keys(key: Key[Array, ""], index: Int[Array, "batch"]) -> Key[Array, "batch"]:
    """One key per example from its global number: fold_in(key, index[i])."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, index)


def example_noise(keys: Key[Array, "batch"], shape: tuple[int, ...]) -> Float[Array, "batch ..."]:
    """Standard normal noise of `shape` for each example's key, float32."""
    return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, _NOISE_STREAM), shape))(keys)


def sample_times(keys: Key[Array, "batch"], config: TimestepConfig) -> Float[Array, "batch"]:
    """A training time in [0, 1] for each example's key, float32, independent of its noise."""
    normal = jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, _TIME_STREAM)))(keys)
    return shift_times(jax.nn.sigmoid(config.mean + config.scale * normal), config.shift)


def sampling_times(num_steps: int, shift: float = 1.0) -> Float[Array, "times"]:
    """The schedule of a sampler: num_steps + 1 times from 1 down to 0, even before the shift.

    Raises ValueError if num_steps is below 1.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps is {num_steps}, expected at least 1")
    return jnp.asarray(shift_times(np.linspace(1.0, 0.0, num_steps + 1), shift), jnp.float32)


def shift_times(t, shift: float):
    """Move times towards noise: shift * t / (1 + (shift - 1) * t); 0 and 1 stay where they are.

    Esser et al. 2024, arXiv:2403.03206, equation 23. Takes and returns a NumPy or JAX array.
    """
    # Divided through by shift, so that 1 maps to 1 without rounding.
    return t / (t + (1 - t) / shift)


def resolution_shift(tokens: int, base_tokens: int) -> float:
    """The shift that gives `tokens` tokens the uncertainty that `base_tokens` have unshifted: sqrt(tokens / base)."""
    if tokens < 1 or base_tokens < 1:
        raise ValueError(f"resolution_shift needs token counts of at least 1, found {tokens} and {base_tokens}")
    return math.sqrt(tokens / base_tokens)

"""The training loss: mean squared error of the velocity over an example's real tokens."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from fooddit.diffusion.path import interpolate, velocity_from_x0, velocity_target

PREDICTIONS = ("velocity", "x0")


@dataclass(frozen=True)
class ObjectiveConfig:
    """What the network's output means; the loss is on the velocity either way.

    Predict "x0" where a token has about as many values as the network is wide: a narrow one cannot carry the noise to
    its output. `time_floor` bounds the divisor that turns x0 into a velocity ("velocity" does not use it).
    Prediction of x0 with the velocity's loss: Li and He 2025, arXiv:2511.13720.
    """

    prediction: str = "velocity"
    time_floor: float = 0.05

    def __post_init__(self):
        if self.prediction not in PREDICTIONS:
            raise ValueError(f"ObjectiveConfig.prediction is {self.prediction!r}, expected one of {PREDICTIONS}")
        if not 0 < self.time_floor < 1:
            raise ValueError(f"ObjectiveConfig.time_floor is {self.time_floor}, expected a number between 0 and 1")


class FlowLoss(NamedTuple):
    """`loss` is the mean of `per_example`, which stays (batch,) so that it can be shown by time."""

    loss: Float[Array, ""]
    per_example: Float[Array, "batch"]


def flow_loss(
    predict: Callable[[Array, Array], Array],
    x0: Float[Array, "batch *tokens channels"],
    noise: Float[Array, "batch *tokens channels"],
    t: Float[Array, "batch"],
    *,
    config: ObjectiveConfig,
    mask: Bool[Array, "batch *tokens"] | None = None,
) -> FlowLoss:
    """Velocity loss of `predict(x_t, t)` in float32: mean over real tokens and channels, then over the batch.

    mask is True at real tokens; padded ones count neither in the loss nor in its denominator. An example without real
    tokens has loss 0.
    """
    x_t = interpolate(x0, noise, t)
    # For x0 the target has the prediction's floor: below it the two would differ even for a perfect x0.
    target = velocity_target(x0, noise)
    if config.prediction == "x0":
        target = velocity_from_x0(x0, x_t, t, config.time_floor)
    velocity = to_velocity(predict(x_t, t), x_t, t, config)
    error = jnp.mean(jnp.square(velocity.astype(jnp.float32) - target.astype(jnp.float32)), axis=-1)
    per_example = _token_mean(error, mask)
    return FlowLoss(jnp.mean(per_example), per_example)


def to_velocity(
    prediction: Float[Array, "batch *rest"],
    x_t: Float[Array, "batch *rest"],
    t: Float[Array, "batch"],
    config: ObjectiveConfig,
) -> Float[Array, "batch *rest"]:
    """The velocity that a network's output stands for: what samplers integrate."""
    if config.prediction == "velocity":
        return prediction
    return velocity_from_x0(prediction, x_t, t, config.time_floor)


def loss_by_time(
    per_example: Float[Array, "batch"], t: Float[Array, "batch"], num_bins: int
) -> tuple[Float[Array, "bins"], Float[Array, "bins"]]:
    """Sum of losses and number of examples in each of num_bins equal bins of [0, 1]; both add up over batches."""
    bins = jnp.clip((t * num_bins).astype(jnp.int32), 0, num_bins - 1)
    member = (bins[:, None] == jnp.arange(num_bins)).astype(jnp.float32)
    return per_example @ member, member.sum(0)


def _token_mean(error: Array, mask: Array | None) -> Array:
    axes = tuple(range(1, error.ndim))
    if mask is None:
        return jnp.mean(error, axis=axes)
    return jnp.sum(jnp.where(mask, error, 0.0), axis=axes) / jnp.maximum(jnp.sum(mask, axis=axes), 1)

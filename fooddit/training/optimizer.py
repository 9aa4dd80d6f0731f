"""AdamW with warm-up and cosine, clipping, muP learning rates and the EMA, as one optax chain."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

# Fan-in axes that grow with the model's width: Adam's learning rate falls as one over it (muP).
WIDTH_AXES = ("embed", "mlp", "heads")
# The width at which `learning_rate` is meant: the CPU-size model's (models/dit.py, ti).
BASE_WIDTH = 128


@dataclass(frozen=True)
class OptimizerConfig:
    """Attributes:
    learning_rate: the peak, as at width 128; hidden and output weights of a wider model get it times 128 / width.
    warmup: steps of linear warm-up, then a cosine down to `final` times the peak.
    clip: global gradient norm.
    ema: decay of the averaged weights; starts lower: min(ema, (1 + step) / (10 + step)).
    """

    learning_rate: float = 1e-3
    warmup: int = 100
    final: float = 0.01
    b1: float = 0.9
    b2: float = 0.99
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.999

    def __post_init__(self):
        for name in ("learning_rate", "clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"optimizer.{name} must be above 0, found {getattr(self, name)}")
        for name in ("ema", "b1", "b2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"optimizer.{name} must be at least 0 and below 1, found {getattr(self, name)}")
        if self.warmup < 0 or self.weight_decay < 0 or not 0 <= self.final <= 1:
            raise ValueError(
                "optimizer: expected warmup and weight_decay of at least 0 and final from 0 to 1, "
                f"found {self.warmup}, {self.weight_decay} and {self.final}"
            )


class EmaState(NamedTuple):
    """The averaged parameters and how many updates they hold."""

    params: Any
    count: jax.Array


def schedule(config: OptimizerConfig, steps: int) -> Callable[[jax.Array], jax.Array]:
    """step -> learning rate, in [final * peak, peak]."""
    warmup = min(config.warmup, max(steps - 1, 1))
    return optax.warmup_cosine_decay_schedule(
        config.learning_rate / max(warmup, 1),
        config.learning_rate,
        warmup,
        max(steps, warmup + 1),
        end_value=config.learning_rate * config.final,
    )


def make_optimizer(config: OptimizerConfig, steps: int, axes) -> optax.GradientTransformationExtraArgs:
    """The whole update as a named chain: its state is a dict with the entries clip, adam, decay, width, rate and ema.

    Args:
      steps: length of the run, for the cosine.
      axes: tree of logical axis names, as the parameters (`models.module.define`).
    """
    return optax.named_chain(
        ("clip", optax.clip_by_global_norm(config.clip)),
        ("adam", optax.scale_by_adam(b1=config.b1, b2=config.b2)),
        ("decay", optax.add_decayed_weights(config.weight_decay, mask=_is_matrix)),
        ("width", scale_by_width(axes)),
        ("rate", optax.scale_by_learning_rate(schedule(config, steps))),
        ("ema", exponential_moving_average(config.ema)),
    )


def scale_by_width(axes) -> optax.GradientTransformation:
    """Adam's muP rule: an update is scaled by base / fan-in where the fan-in grows with width (Yang et al. 2021,
    arXiv 2203.03466, table 8; for DiT: Zheng et al. 2025, arXiv 2505.15270)."""

    def update(updates, state, params):
        flat, treedef = jax.tree.flatten(updates)
        names = treedef.flatten_up_to(axes)
        return treedef.unflatten(u * width_multiplier(u.shape, n) for u, n in zip(flat, names)), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def width_multiplier(shape: tuple[int, ...], axes: tuple[str, ...] | None) -> float:
    """Learning-rate multiplier of one parameter: BASE_WIDTH / width for matrices whose fan-in is a width, else 1.

    An "mlp" fan-in is 8/3 of the width; the rule divides by the width, so that the base model's rates are all 1.
    """
    if axes is None or len(axes) != 2 or axes[0] not in WIDTH_AXES:
        return 1.0
    fan_in = shape[-2]
    return BASE_WIDTH / (fan_in * 3 / 8 if axes[0] == "mlp" else fan_in)


def exponential_moving_average(decay: float) -> optax.GradientTransformation:
    """Averages the parameters after the update; being optimizer state, it is sharded and saved like the rest."""

    def update(updates, state, params):
        count = state.count + 1
        rate = jnp.minimum(decay, (1 + count) / (10 + count))
        averaged = jax.tree.map(lambda e, p, u: rate * e + (1 - rate) * (p + u), state.params, params, updates)
        return updates, EmaState(averaged, count)

    def init(params):
        return EmaState(jax.tree.map(jnp.array, params), jnp.zeros((), jnp.int32))

    return optax.GradientTransformation(init, update)


def _is_matrix(params):
    # Gains, biases and modulation tables are not decayed; a stacked block's vector has two dimensions, so go by name.
    return jax.tree.map_with_path(lambda path, _: path[-1].key == "kernel", params)

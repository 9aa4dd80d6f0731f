"""AdamW with warm-up and cosine, clipping, muP learning rates and the EMA, as one optax chain; parameters in groups."""

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, NamedTuple, get_type_hints

import jax
import jax.numpy as jnp
import optax

from fooddit.config import ConfigError

# Fan-in axes that grow with the model's width: Adam's learning rate falls as one over it (muP).
WIDTH_AXES = ("embed", "mlp", "heads", "context")
# The width at which `learning_rate` is meant: the CPU-size model's (models/dit.py, ti).
BASE_WIDTH = 128
# Labels of parameters that are in no named group, and of those that stay as they are.
_REST, _FIXED = "rest", "fixed"


@dataclass(frozen=True)
class OptimizerConfig:
    """How parameters are updated. A subclass may add fields that are OptimizerConfigs: each is for the group of
    parameters whose paths begin with the field's name, and the rest of the class is for all others.

    Attributes:
      learning_rate: the peak, as at width 128; hidden and output weights of a wider model get it times 128 / width.
      warmup: steps of linear warm-up, then a cosine down to `final` times the peak.
      clip: global gradient norm, of the group's gradients.
      ema: decay of the averaged weights; starts lower: min(ema, (1 + step) / (10 + step)). 0: no average, the weights
        themselves.
      trainable: paths such as "control", or patterns such as "*/lora_*", of what is trained; other parameters stay as
        they are and cost no optimizer state but the place of their average.
    """

    learning_rate: float = 1e-3
    warmup: int = 100
    final: float = 0.01
    b1: float = 0.9
    b2: float = 0.99
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.999
    trainable: tuple[str, ...] = ("*",)

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
        if not self.trainable:
            raise ValueError('optimizer.trainable is empty: nothing would be trained; expected paths, or "*" for all')

    @property
    def groups(self) -> dict[str, "OptimizerConfig"]:
        """The config of each group by the name that its parameters' paths begin with; of all others under "rest"."""
        kinds = get_type_hints(type(self))
        names = [name for name, kind in kinds.items() if isinstance(kind, type) and issubclass(kind, OptimizerConfig)]
        return {_REST: self} | {name: getattr(self, name) for name in names}


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
    """The whole update as a named chain.

    Its state is a dict with the entries clip, adam, decay, width, rate and ema. With several groups, or parameters that
    are not trained, it has the entries groups and ema; ema is always of all parameters.

    Args:
      steps: length of the run, for the cosine.
      axes: tree of logical axis names, as the parameters (`models.module.define`).

    Raises:
      ConfigError: when it is initialised, for a path in `trainable` that no parameter has.
    """
    groups = config.groups
    updates = {name: _update(group, steps, axes) for name, group in groups.items()}
    if list(groups) == [_REST] and config.trainable == ("*",):
        parts = updates[_REST]
    else:
        chains = {name: optax.named_chain(*parts) for name, parts in updates.items()}
        labels = lambda params: _labels(groups, params)  # noqa: E731
        parts = (("groups", optax.partition({**chains, _FIXED: optax.set_to_zero()}, labels)),)
    return optax.named_chain(*parts, ("ema", exponential_moving_average(lambda path: _decay(groups, path))))


def _update(config: OptimizerConfig, steps: int, axes) -> tuple[tuple[str, optax.GradientTransformation], ...]:
    return (
        ("clip", optax.clip_by_global_norm(config.clip)),
        ("adam", optax.scale_by_adam(b1=config.b1, b2=config.b2)),
        ("decay", optax.add_decayed_weights(config.weight_decay, mask=_is_matrix)),
        ("width", scale_by_width(axes)),
        ("rate", optax.scale_by_learning_rate(schedule(config, steps))),
    )


def scale_by_width(axes) -> optax.GradientTransformation:
    """Adam's muP rule: an update is scaled by base / fan-in where the fan-in grows with width (Yang et al. 2021,
    arXiv 2203.03466, table 8; for DiT: Zheng et al. 2025, arXiv 2505.15270). Updates may lack parameters of `axes`."""
    named = dict(jax.tree.leaves_with_path(axes, is_leaf=lambda x: x is None or isinstance(x, tuple)))

    def update(updates, state, params):
        scale = lambda path, u: u * width_multiplier(u.shape, named[path])  # noqa: E731
        return jax.tree.map_with_path(scale, updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def width_multiplier(shape: tuple[int, ...], axes: tuple[str, ...] | None) -> float:
    """Learning-rate multiplier of one parameter: BASE_WIDTH / width for matrices whose fan-in is a width, else 1.

    An "mlp" fan-in is 8/3 of the width; the rule divides by the width, so that the base model's rates are all 1.
    """
    if axes is None or len(axes) != 2 or axes[0] not in WIDTH_AXES:
        return 1.0
    fan_in = shape[-2]
    return BASE_WIDTH / (fan_in * 3 / 8 if axes[0] == "mlp" else fan_in)


def exponential_moving_average(decay: Callable[[str], float]) -> optax.GradientTransformation:
    """Averages the parameters after the update; being optimizer state, it is sharded and saved like the rest.

    `decay`: of the parameter at a path.
    """

    def update(updates, state, params):
        count = state.count + 1

        def average(path, e, p, u):
            rate = jnp.minimum(decay(_name(path)), (1 + count) / (10 + count))
            return rate * e + (1 - rate) * (p + u)

        return updates, EmaState(jax.tree.map_with_path(average, state.params, params, updates), count)

    def init(params):
        return EmaState(jax.tree.map(jnp.array, params), jnp.zeros((), jnp.int32))

    return optax.GradientTransformation(init, update)


def _labels(groups: dict[str, OptimizerConfig], params):
    """Each parameter's group, or _FIXED."""
    names = [_name(path) for path, _ in jax.tree.leaves_with_path(params)]
    for group, config in groups.items():
        key = "config.optimizer" if group == _REST else f"config.optimizer.{group}"
        members = [name for name in names if _group(groups, name) == group]
        for pattern in config.trainable:
            if members and not any(_matches(name, pattern) for name in members):
                raise ConfigError(
                    f"{key}.trainable: no parameter is at {pattern!r}; there are {len(members)}, such as "
                    f"{', '.join(members[:5])}"
                )
    return jax.tree.map_with_path(lambda path, _: _label(groups, _name(path)), params)


def _label(groups: dict[str, OptimizerConfig], name: str) -> str:
    group = _group(groups, name)
    return group if any(_matches(name, pattern) for pattern in groups[group].trainable) else _FIXED


def _decay(groups: dict[str, OptimizerConfig], name: str) -> float:
    label = _label(groups, name)
    # What does not change is its own average, to the bit.
    return 0.0 if label == _FIXED else groups[label].ema


def _group(groups: dict[str, OptimizerConfig], name: str) -> str:
    first = name.partition("/")[0]
    return first if first in groups else _REST


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}/*")


def _name(path) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _is_matrix(params):
    # Gains, biases and modulation tables are not decayed; a stacked block's vector has two dimensions, so go by name.
    return jax.tree.map_with_path(lambda path, _: path[-1].key == "kernel", params)

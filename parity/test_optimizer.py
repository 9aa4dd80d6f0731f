"""Our update equals torch 2.13.0's: clip_grad_norm_, AdamW, LinearLR then CosineAnnealingLR, and AveragedModel.

Two groups in one update equal two torch optimizers, each with its own clipping and schedule.
"""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from torch.optim import lr_scheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from fooddit.training.optimizer import OptimizerConfig, make_optimizer, schedule

STEPS = 10
# The decay of the average is reached at once, so that it is constant, as torch's is.
CONFIG = OptimizerConfig(learning_rate=0.05, warmup=3, final=0.1, weight_decay=0.3, clip=1.0, ema=0.15)
CRITIC = OptimizerConfig(learning_rate=0.02, warmup=1, final=0.5, b1=0.5, b2=0.9, weight_decay=0.0, clip=0.5, ema=0.15)


@dataclass(frozen=True)
class PairConfig(OptimizerConfig):
    """A layer and its critic."""

    critic: OptimizerConfig = field(default_factory=lambda: CRITIC)


def start() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {"kernel": rng.normal(size=(6, 4)).astype(np.float32), "bias": rng.normal(size=4).astype(np.float32)}


def gradients() -> list[dict[str, np.ndarray]]:
    """Norms from 0.05 to 8: some steps are clipped and some are not."""
    rng = np.random.default_rng(1)
    sizes = np.geomspace(0.01, 1.6, STEPS)[rng.permutation(STEPS)]
    return [
        {name: (size * rng.normal(size=x.shape)).astype(np.float32) for name, x in start().items()} for size in sizes
    ]


def ours(config=CONFIG, names=("layer",)) -> tuple[list[dict], dict]:
    """Parameters after each step, and the average after the last; under each name the same start and gradients."""
    params = {name: {key: jnp.asarray(value) for key, value in start().items()} for name in names}
    optimizer = make_optimizer(config, STEPS, {name: {"kernel": None, "bias": None} for name in names})
    state, seen = optimizer.init(params), []
    for gradient in gradients():
        updates, state = optimizer.update(dict.fromkeys(names, gradient), state, params)
        params = optax.apply_updates(params, updates)
        seen.append(params)
    return seen, state["ema"].params


def theirs(config=CONFIG) -> tuple[list[dict], dict, list[float], list[float]]:
    """The same of one layer, and each step's learning rate and gradient norm."""
    model = torch.nn.ParameterDict({name: torch.nn.Parameter(torch.from_numpy(x)) for name, x in start().items()})
    groups = [{"params": [model["kernel"]]}, {"params": [model["bias"]], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(
        groups, config.learning_rate, betas=(config.b1, config.b2), eps=1e-8, weight_decay=config.weight_decay
    )
    warmup = lr_scheduler.LinearLR(optimizer, start_factor=1 / config.warmup, total_iters=config.warmup)
    cosine = lr_scheduler.CosineAnnealingLR(
        optimizer, STEPS - config.warmup, eta_min=config.final * config.learning_rate
    )
    rates = lr_scheduler.SequentialLR(optimizer, [warmup, cosine], milestones=[config.warmup])
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(config.ema))
    average.update_parameters(model)
    seen, used, norms = [], [], []
    for gradient in gradients():
        for name, parameter in model.items():
            parameter.grad = torch.from_numpy(gradient[name])
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)))
        used.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        rates.step()
        average.update_parameters(model)
        seen.append({name: x.detach().numpy().copy() for name, x in model.items()})
    return seen, {name: x.detach().numpy() for name, x in average.module.items()}, used, norms


def close(found: dict, expected: dict):
    # torch divides by norm + 1e-6 where optax divides by the norm.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), dict(found), expected)


def test_clipping_adamw_schedule_and_average_equal_torch_over_ten_steps():
    seen, average = ours()
    expected, expected_average, rates, norms = theirs()
    assert min(norms) < CONFIG.clip < max(norms)
    np.testing.assert_allclose([float(schedule(CONFIG, STEPS)(i)) for i in range(STEPS)], rates, rtol=1e-5)
    for found, wanted in zip(seen, expected, strict=True):
        close(found["layer"], wanted)
    close(average["layer"], expected_average)


def test_two_groups_equal_two_torch_optimizers():
    config = PairConfig(**{key: getattr(CONFIG, key) for key in CONFIG.__dataclass_fields__})
    seen, average = ours(config, ("layer", "critic"))
    for name, alone in (("layer", CONFIG), ("critic", CRITIC)):
        expected, expected_average, _, norms = theirs(alone)
        assert min(norms) < alone.clip < max(norms)
        for found, wanted in zip(seen, expected, strict=True):
            close(found[name], wanted)
        close(average[name], expected_average)

"""Our update equals torch 2.13.0's: clip_grad_norm_, AdamW, LinearLR then CosineAnnealingLR, and AveragedModel."""

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


def ours() -> tuple[list[dict], dict]:
    """Parameters after each step, and the average after the last."""
    params = {"layer": {name: jnp.asarray(value) for name, value in start().items()}}
    optimizer = make_optimizer(CONFIG, STEPS, {"layer": {"kernel": None, "bias": None}})
    state, seen = optimizer.init(params), []
    for gradient in gradients():
        updates, state = optimizer.update({"layer": gradient}, state, params)
        params = optax.apply_updates(params, updates)
        seen.append(params["layer"])
    return seen, state["ema"].params["layer"]


def theirs() -> tuple[list[dict], dict, list[float], list[float]]:
    """The same, and each step's learning rate and gradient norm."""
    model = torch.nn.ParameterDict({name: torch.nn.Parameter(torch.from_numpy(x)) for name, x in start().items()})
    groups = [{"params": [model["kernel"]]}, {"params": [model["bias"]], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(
        groups, CONFIG.learning_rate, betas=(CONFIG.b1, CONFIG.b2), eps=1e-8, weight_decay=CONFIG.weight_decay
    )
    warmup = lr_scheduler.LinearLR(optimizer, start_factor=1 / CONFIG.warmup, total_iters=CONFIG.warmup)
    cosine = lr_scheduler.CosineAnnealingLR(
        optimizer, STEPS - CONFIG.warmup, eta_min=CONFIG.final * CONFIG.learning_rate
    )
    rates = lr_scheduler.SequentialLR(optimizer, [warmup, cosine], milestones=[CONFIG.warmup])
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(CONFIG.ema))
    average.update_parameters(model)
    seen, used, norms = [], [], []
    for gradient in gradients():
        for name, parameter in model.items():
            parameter.grad = torch.from_numpy(gradient[name])
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), CONFIG.clip)))
        used.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        rates.step()
        average.update_parameters(model)
        seen.append({name: x.detach().numpy().copy() for name, x in model.items()})
    return seen, {name: x.detach().numpy() for name, x in average.module.items()}, used, norms


def test_clipping_adamw_schedule_and_average_equal_torch_over_ten_steps():
    seen, average = ours()
    expected, expected_average, rates, norms = theirs()
    assert min(norms) < CONFIG.clip < max(norms)
    np.testing.assert_allclose([float(schedule(CONFIG, STEPS)(i)) for i in range(STEPS)], rates, rtol=1e-5)
    # torch divides by norm + 1e-6 where optax divides by the norm.
    for found, wanted in zip(seen, expected, strict=True):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), dict(found), wanted)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), dict(average), expected_average)

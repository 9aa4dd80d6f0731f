"""Our samplers equal diffusers 0.42.1's flow schedulers on the same velocity network of random weights."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler, FlowMatchHeunDiscreteScheduler

from fooddit.diffusion import sample, sampling_times

BATCH, WIDTH, HIDDEN = 4, 12, 32
RNG = np.random.default_rng(0)
ENTER = (RNG.normal(size=(WIDTH + 1, HIDDEN)) / np.sqrt(WIDTH)).astype(np.float32)
LEAVE = (RNG.normal(size=(HIDDEN, WIDTH)) / np.sqrt(HIDDEN)).astype(np.float32)
NOISE = RNG.normal(size=(BATCH, WIDTH)).astype(np.float32)


def our_network(x, t):
    return jnp.tanh(jnp.concatenate([x, t[:, None]], axis=-1) @ ENTER) @ LEAVE


def torch_network(x, t):
    time = torch.full((BATCH, 1), float(t), dtype=x.dtype)
    return (
        torch.tanh(torch.cat([x, time], dim=-1) @ torch.from_numpy(ENTER).double()) @ torch.from_numpy(LEAVE).double()
    )


def reference(scheduler):
    """The scheduler's own loop; the network is asked at its sigmas (its timesteps may be rounded to integers).

    In float64: the Heun scheduler divides a difference by sigma, down to 0.001, which in float32 is 3e-5 off by itself.
    """
    x = torch.from_numpy(NOISE).double()
    for i, timestep in enumerate(scheduler.timesteps):
        x = scheduler.step(torch_network(x, scheduler.sigmas[i]), timestep, x).prev_sample
    return x.numpy()


def distance(scheduler, times, method):
    expected = reference(scheduler)
    assert np.abs(expected - NOISE).max() > 0.1
    return np.abs(sample(our_network, jnp.asarray(NOISE), jnp.asarray(times), method) - expected).max()


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("num_steps", [1, 7, 30])
def test_euler(num_steps, shift):
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(sigmas=np.linspace(1, 0, num_steps + 1)[:-1])
    np.testing.assert_allclose(sampling_times(num_steps, shift), scheduler.sigmas, atol=1e-6)
    assert distance(scheduler, sampling_times(num_steps, shift), "euler") <= 1e-5


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("num_steps", [2, 7, 30])
def test_heun(num_steps, shift):
    scheduler = FlowMatchHeunDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(num_steps)
    # It lists the sigma of each evaluation: all but the first and the last twice.
    times = np.concatenate([scheduler.sigmas[:1], scheduler.sigmas[1:-1:2], scheduler.sigmas[-1:]])
    assert len(times) == num_steps + 1 and times[-1] == 0
    assert distance(scheduler, times, "heun") <= 1e-5


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("num_steps", [1, 2, 3, 10, 30])
def test_dpmpp_2m(num_steps, shift):
    scheduler = DPMSolverMultistepScheduler(
        algorithm_type="dpmsolver++",
        solver_order=2,
        solver_type="midpoint",
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        flow_shift=shift,
        final_sigmas_type="zero",
    )
    scheduler.set_timesteps(num_steps)
    assert distance(scheduler, scheduler.sigmas.numpy(), "dpmpp_2m") <= 1e-5

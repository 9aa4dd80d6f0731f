"""From noise to data: ODE solvers of the flow dx/dt = velocity(x, t), t from 1 to 0, as one `lax.scan`.

A solver is a table with one row for each network evaluation and an update that reads a row: the scan calls the network
in exactly one place, so that a program holds it once whatever the method. A stochastic step fits the same form: its
keys and noise levels are columns of the rows, its log-probability a part of the memory.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Rows = dict[str, Array]


@dataclass(frozen=True)
class Stepper:
    """An ODE solver for `sample`.

    rows(times) is the table: a dict of (evaluations,) arrays, of which "t" is where the network is evaluated.
    start(x) is the memory before the first row. update(x, velocity, memory, row) -> (x, memory) applies one row.
    ends(num_steps) numbers the rows after which x is at the schedule's next time: num_steps integers.
    """

    rows: Callable[[Array], Rows]
    start: Callable[[Array], Any]
    update: Callable[[Array, Array, Any, Rows], tuple[Array, Any]]
    ends: Callable[[int], np.ndarray]


def sample(
    denoise: Callable[[Array, Array], Array],
    noise: Float[Array, "batch *rest"],
    times: Float[Array, "times"],
    method: str = "euler",
    return_trajectory: bool = False,
) -> Float[Array, "batch *rest"] | tuple[Float[Array, "batch *rest"], Float[Array, "times batch *rest"]]:
    """Integrate the velocity `denoise(x, t (batch,))` from noise at times[0] to times[-1]; differentiable.

    times descend, usually from 1 to 0 (`sampling_times`). method is "euler" (order 1), "heun" (order 2, two evaluations
    a step but for the last) or "dpmpp_2m" (order 2, one evaluation a step). The state is float32. With
    return_trajectory the states at all times come too, the noise first. Raises ValueError for another method.
    """
    if method not in STEPPERS:
        raise ValueError(f"unknown sampler {method!r}, expected one of {sorted(STEPPERS)}")
    stepper = STEPPERS[method]
    noise = noise.astype(jnp.float32)
    rows = stepper.rows(times.astype(jnp.float32))

    def step(carry: tuple[Array, Any], row: Rows):
        x, memory = carry
        velocity = denoise(x, jnp.broadcast_to(row["t"], x.shape[:1])).astype(jnp.float32)
        x, memory = stepper.update(x, velocity, memory, row)
        return (x, memory), x if return_trajectory else None

    (x, _), states = jax.lax.scan(step, (noise, stepper.start(noise)), rows)
    if not return_trajectory:
        return x
    return x, jnp.concatenate([noise[None], states[stepper.ends(len(times) - 1)]])


def _euler_rows(times: Array) -> Rows:
    return {"t": times[:-1], "dt": jnp.diff(times)}


def _euler_update(x: Array, velocity: Array, memory: None, row: Rows) -> tuple[Array, None]:
    return x + row["dt"] * velocity, memory


def _heun_rows(times: Array) -> Rows:
    # Each step is a predictor row at its start and a corrector row at its end. The last has no corrector: it would ask
    # the network for the velocity at t = 0, where an x0 prediction has none, and one Euler step keeps the order at 2.
    dt = jnp.diff(times)
    corrects = jnp.tile(jnp.array([False, True]), len(times) - 1)
    t = jnp.stack([times[:-1], times[1:]], axis=1).reshape(-1)
    return {"t": t[:-1], "dt": jnp.repeat(dt, 2)[:-1], "corrects": corrects[:-1]}


def _heun_start(x: Array) -> tuple[Array, Array]:
    return x, jnp.zeros_like(x)


def _heun_update(x: Array, velocity: Array, memory: tuple[Array, Array], row: Rows):
    origin, first = memory
    predicted = x + row["dt"] * velocity
    corrected = origin + row["dt"] * 0.5 * (first + velocity)
    return jnp.where(row["corrects"], corrected, predicted), (x, velocity)


def _dpmpp_rows(times: Array) -> Rows:
    # lambda = log((1 - t) / t) is half the log signal-to-noise ratio: -inf at 1 and inf at 0. The first two steps from
    # t = 1 (no history; infinitely long history) and a last step to 0 are of order 1, the limits of the formula there.
    t, end = times[:-1], times[1:]
    inside = (times > 0) & (times < 1)
    safe = jnp.where(inside, times, 0.5)
    log_snr = jnp.log1p(-safe) - jnp.log(safe)
    length = jnp.diff(log_snr)
    second_order = inside[:-2] & inside[1:-1] & inside[2:]
    extrapolation = jnp.where(second_order, 0.5 * length[1:] / jnp.where(second_order, length[:-1], 1.0), 0.0)
    return {"t": t, "keep": end / t, "extrapolation": jnp.pad(extrapolation, (1, 0))}


def _dpmpp_update(x: Array, velocity: Array, memory: Array, row: Rows) -> tuple[Array, Array]:
    # DPM-Solver++(2M), Lu et al. 2022, arXiv:2211.01095, with alpha = 1 - t and sigma = t: the exponential of the step
    # in lambda collapses to end / t.
    x0 = x - row["t"] * velocity
    direction = x0 + row["extrapolation"] * (x0 - memory)
    return row["keep"] * x + (1 - row["keep"]) * direction, x0


def _every_row(num_steps: int) -> np.ndarray:
    return np.arange(num_steps)


def _corrector_rows(num_steps: int) -> np.ndarray:
    return np.minimum(2 * np.arange(num_steps) + 1, 2 * num_steps - 2)


STEPPERS = {
    "euler": Stepper(_euler_rows, lambda x: None, _euler_update, _every_row),
    "heun": Stepper(_heun_rows, _heun_start, _heun_update, _corrector_rows),
    "dpmpp_2m": Stepper(_dpmpp_rows, jnp.zeros_like, _dpmpp_update, _every_row),
}

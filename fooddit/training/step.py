"""The one jitted step: loss, gradients (accumulated), update; a non-finite step changes nothing and is counted."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from fooddit.training.state import State

LossFunction = Callable[[Any, Any, dict, jax.Array], tuple[jax.Array, dict]]


def make_step(loss: LossFunction, optimizer: optax.GradientTransformation, *, seed: int, accumulate: int = 1):
    """step(state, frozen, batch) -> (state, metrics).

    `loss(params, frozen, batch, key) -> (mean over the batch, metrics)`; the key is fold_in(seed, step), the same on
    any number of devices and after any resume. `accumulate` splits the batch along its first axis; since a loss keys
    its noise by example, the sum of the parts equals the whole.
    """

    def step(state: State, frozen, batch: dict) -> tuple[State, dict]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        gradients, metrics = _gradients(loss, state.params, frozen, batch, key, accumulate)
        norm = optax.global_norm(gradients)
        finite = jnp.isfinite(norm) & jnp.isfinite(metrics["loss"])
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        keep = lambda new, old: jnp.where(finite, new, old)  # noqa: E731
        state = State(
            step=state.step + 1,
            params=jax.tree.map(keep, params, state.params),
            opt_state=jax.tree.map(keep, opt_state, state.opt_state),
        )
        return state, {**metrics, "grad_norm": norm, "skipped": 1.0 - finite.astype(jnp.float32)}

    return step


def _gradients(loss: LossFunction, params, frozen, batch, key, accumulate: int):
    grad = jax.value_and_grad(loss, has_aux=True)

    def part(piece):
        (value, metrics), gradients = grad(params, frozen, piece, key)
        return gradients, {"loss": value, **metrics}

    if accumulate == 1:
        return part(batch)
    # Interleaved, so that each part is spread over all devices as the whole batch is.
    pieces = jax.tree.map(lambda x: jnp.swapaxes(x.reshape(-1, accumulate, *x.shape[1:]), 0, 1), batch)

    def add(total, piece):
        return jax.tree.map(jnp.add, total, part(piece)), None

    zero = jax.tree.map(
        lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(part, jax.tree.map(lambda x: x[0], pieces))
    )
    total, _ = jax.lax.scan(add, zero, pieces)
    return jax.tree.map(lambda x: x / accumulate, total)

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fooddit.diffusion import example_keys, example_noise
from fooddit.training.optimizer import OptimizerConfig, make_optimizer, schedule
from fooddit.training.state import State
from fooddit.training.step import make_step

AXES = {"layer": {"kernel": ("features", "features"), "bias": None}}


def loss(params, frozen, batch, key):
    """A regression whose noise is keyed by example, as every task's is."""
    noise = example_noise(example_keys(key, batch["index"]), (3,))
    predicted = (batch["x"] + 0.1 * noise) @ params["layer"]["kernel"] + params["layer"]["bias"]
    error = jnp.mean((predicted - batch["y"] * frozen["scale"]) ** 2)
    return error, {"mean": predicted.mean()}


CONFIG = OptimizerConfig(warmup=1, learning_rate=0.01)


def setup(config=CONFIG, steps=50, **options):
    optimizer = make_optimizer(config, steps, AXES)
    params = {"layer": {"kernel": jnp.ones((3, 3)) * 0.1, "bias": jnp.zeros((3,))}}
    state = State(jnp.zeros((), jnp.int32), params, optimizer.init(params))
    return state, jax.jit(make_step(loss, optimizer, seed=0, **options))


def batch(step=0, size=16):
    x = jax.random.normal(jax.random.key(step), (size, 3))
    return {"x": x, "y": x[:, ::-1], "index": jnp.arange(size) + step * size}


FROZEN = {"scale": jnp.array(2.0)}


@pytest.mark.parametrize("parts", [2, 4, 16])
def test_accumulated_gradients_equal_the_big_batch(parts):
    state, whole = setup()
    _, accumulated = setup(accumulate=parts)
    expected, metrics = whole(state, FROZEN, batch())
    found, other = accumulated(state, FROZEN, batch())
    np.testing.assert_allclose(other["loss"], metrics["loss"], rtol=1e-5)
    np.testing.assert_allclose(other["grad_norm"], metrics["grad_norm"], rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), found, expected)


def test_a_non_finite_step_changes_nothing_but_the_step_and_is_counted():
    state, step = setup()
    state, _ = step(state, FROZEN, batch())
    poisoned = {**batch(1), "x": batch(1)["x"].at[3, 1].set(jnp.nan)}
    after, metrics = step(state, FROZEN, poisoned)
    assert float(metrics["skipped"]) == 1 and int(after.step) == 2
    jax.tree.map(np.testing.assert_array_equal, (after.params, after.opt_state), (state.params, state.opt_state))
    healthy, metrics = step(after, FROZEN, batch(2))
    assert float(metrics["skipped"]) == 0
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(healthy))


def test_noise_depends_on_the_step_and_the_example_only():
    state, step = setup()
    _, first = step(state, FROZEN, batch())
    order = np.random.default_rng(0).permutation(16)
    _, shuffled = step(state, FROZEN, {name: value[order] for name, value in batch().items()})
    np.testing.assert_allclose(first["loss"], shuffled["loss"], rtol=1e-6)
    later = State(state.step + 1, state.params, state.opt_state)
    _, other = step(later, FROZEN, batch())
    assert float(other["loss"]) != float(first["loss"])


def test_the_average_follows_the_parameters_with_a_rising_decay():
    state, step = setup(OptimizerConfig(warmup=1, learning_rate=0.01, ema=0.9))
    expected = state.params["layer"]["kernel"]
    for i in range(1, 6):
        state, _ = step(state, FROZEN, batch(i))
        rate = min(0.9, (1 + i) / (10 + i))
        expected = rate * expected + (1 - rate) * state.params["layer"]["kernel"]
    np.testing.assert_allclose(state.opt_state["ema"].params["layer"]["kernel"], expected, rtol=1e-5)


def test_the_learning_rate_rises_then_falls_to_its_final_share():
    rate = schedule(OptimizerConfig(learning_rate=1.0, warmup=10, final=0.1), steps=100)
    assert float(rate(0)) == pytest.approx(0.1) and float(rate(10)) == pytest.approx(1.0)
    assert float(rate(55)) == pytest.approx(0.55, abs=0.01) and float(rate(100)) == pytest.approx(0.1)


def test_vectors_are_not_decayed():
    params = {"layer": {"kernel": jnp.ones((3, 3)), "bias": jnp.ones((3,))}}
    gradients = jax.tree.map(jnp.zeros_like, params)
    decaying = make_optimizer(OptimizerConfig(warmup=1, learning_rate=0.1, weight_decay=1.0), 10, AXES)
    updates, _ = decaying.update(gradients, decaying.init(params), params)
    assert jnp.all(updates["layer"]["kernel"] < 0) and jnp.all(updates["layer"]["bias"] == 0)

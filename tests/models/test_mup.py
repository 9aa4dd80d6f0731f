"""The coordinate check of muP (Yang et al. 2021, appendix D.1): activations do not grow with width in training."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fooddit.models.dit import DiTConfig
from fooddit.models.text import TextConfig
from fooddit.models.text_to_image import define_model
from fooddit.models.towers import TowerWidths
from fooddit.training.optimizer import scale_by_width, width_multiplier

WIDTHS = (64, 128, 256)


def outputs_after_training(width: int, scaled: bool, steps: int = 6, learning_rate: float = 1e-3) -> list[float]:
    """Root mean square of the model's output after each Adam step on one batch."""
    network = SimpleNamespace(
        model=DiTConfig(width=width, depth=2, head_dim=32),
        text=TextConfig(width=32, depth=1, vocabulary=64, length=8),
    )
    definition = define_model(network, None, 8)
    a, b, c = jax.random.split(jax.random.key(0), 3)
    x, target = jax.random.normal(a, (16, 16, 8)), jax.random.normal(b, (16, 16, 8))
    ids, t = jax.random.randint(c, (16, 8), 1, 64), jnp.linspace(0.1, 1, 16)
    positions = jnp.stack([jnp.arange(16.0) // 4, jnp.arange(16.0) % 4], -1)

    def predict(params):
        model = definition.bind(params)
        conditions = model.conditions({"text": ids, "text_mask": jnp.ones((16, 8), bool)})
        return model(x, t, conditions, positions=positions)

    rule = scale_by_width(definition.axes) if scaled else optax.identity()
    optimizer = optax.chain(optax.scale_by_adam(), rule, optax.scale(-learning_rate))

    @jax.jit
    def step(params, state):
        gradients = jax.grad(lambda p: jnp.mean((predict(p) - target) ** 2))(params)
        updates, state = optimizer.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        return params, state, jnp.sqrt(jnp.mean(predict(params) ** 2))

    params = definition.init(jax.random.key(1))
    state, sizes = optimizer.init(params), []
    for _ in range(steps):
        params, state, size = step(params, state)
        sizes.append(float(size))
    return sizes


def slope(scaled: bool) -> float:
    """Exponent of the output's growth with width after some steps, at a rate too low for the target to be reached."""
    sizes = [np.mean(outputs_after_training(width, scaled)[4:]) for width in WIDTHS]
    return float(np.polyfit(np.log(WIDTHS), np.log(sizes), 1)[0])


def test_activations_do_not_grow_with_width_and_without_the_rule_they_do():
    with_rule, without = slope(scaled=True), slope(scaled=False)
    assert abs(with_rule) < 0.15, with_rule
    assert without > 0.6, without


def changes_after_training(tower: int, context: int, scaled: bool) -> np.ndarray:
    """Relative changes of what the projections give of T5's tokens and E-CLIP's vector, and of what the model makes of
    that vector, after six Adam steps."""
    network = SimpleNamespace(model=DiTConfig(width=64, depth=1, head_dim=32), text=TextConfig(width=context))
    definition = define_model(network, TowerWidths({"t5": 8}, {"t5": tower}, pooled=tower), 8)
    a, b, c, d = jax.random.split(jax.random.key(0), 4)
    x, target = jax.random.normal(a, (16, 16, 8)), jax.random.normal(b, (16, 16, 8))
    vectors = jax.random.normal(d, (16, tower))
    features = {
        "t5": jax.random.normal(c, (16, 8, tower)),
        "t5_mask": jnp.ones((16, 8), bool),
        "pooled": vectors / jnp.linalg.norm(vectors, axis=1, keepdims=True),
    }
    positions = jnp.stack([jnp.arange(16.0) // 4, jnp.arange(16.0) % 4], -1)

    def loss(params):
        model = definition.bind(params)
        predicted = model(x, jnp.linspace(0.1, 1, 16), model.conditions(features), positions=positions)
        return jnp.mean((predicted - target) ** 2)

    def seen(params):
        model = definition.bind(params)
        conditions = model.conditions(features)
        return conditions.context[0].tokens, conditions.pooled, model.dit.pooled(conditions.pooled)

    rule = scale_by_width(definition.axes) if scaled else optax.identity()
    optimizer = optax.chain(optax.scale_by_adam(), rule, optax.scale(-1e-3))
    params = definition.init(jax.random.key(1))
    state, before = optimizer.init(params), jax.jit(seen)(params)
    step = jax.jit(lambda p, s: optimizer.update(jax.grad(loss)(p), s, p))
    for _ in range(6):
        updates, state = step(params, state)
        params = optax.apply_updates(params, updates)
    return np.array([float(jnp.std(y - x) / jnp.std(x)) for x, y in zip(before, jax.jit(seen)(params))])


def test_a_wider_tower_does_not_change_faster_what_reads_it():
    def growth(scaled):
        small, wide, broad = (changes_after_training(*widths, scaled) for widths in ((64, 32), (1024, 32), (64, 512)))
        return np.append(wide[:2] / small[:2], broad[2] / small[2])

    with_rule, without = growth(scaled=True), growth(scaled=False)
    assert max(with_rule) < 2, with_rule
    assert min(without) > 5, without


@pytest.mark.parametrize(
    "shape, axes, expected",
    [
        ((256, 256), ("embed", "heads"), 0.5),
        ((4, 256, 1024), ("embed", "mlp"), 0.5),
        ((688, 256), ("mlp", "embed"), 128 / (688 * 3 / 8)),
        ((48, 256), ("features", "embed"), 1.0),
        ((4096, 1024), ("context", "embed"), 1 / 32),
        ((256,), ("embed",), 1.0),
        ((256, 256), None, 1.0),
    ],
)
def test_only_matrices_whose_fan_in_is_a_width_are_slowed(shape, axes, expected):
    assert width_multiplier(shape, axes) == pytest.approx(expected)

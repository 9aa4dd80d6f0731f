from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fooddit.config import ConfigError, build
from fooddit.parallel import MeshConfig, make_mesh, parameter_shardings, state_shardings
from fooddit.training.checkpoint import CheckpointConfig, Checkpointer
from fooddit.training.optimizer import OptimizerConfig, make_optimizer
from fooddit.training.state import State

CRITIC = OptimizerConfig(learning_rate=0.03, warmup=1, b1=0.0, clip=0.5, weight_decay=0.2, ema=0.0)


@dataclass(frozen=True)
class PairConfig(OptimizerConfig):
    """A model and its critic, which learns by itself."""

    critic: OptimizerConfig = field(default_factory=lambda: CRITIC)


def tree(seed: int) -> dict:
    rng = np.random.default_rng(seed)
    layer = lambda: {"kernel": rng.normal(size=(256, 4)).astype(np.float32), "bias": rng.normal(size=4)}
    return jax.tree.map(
        lambda x: jnp.asarray(x, jnp.float32), {"model": {"first": layer(), "last": layer()}, "critic": layer()}
    )


def axes() -> dict:
    layer = {"kernel": ("embed", "features"), "bias": None}
    return {"model": {"first": layer, "last": layer}, "critic": layer}


def train(config: OptimizerConfig, axes, pick=lambda tree: tree, steps: int = 5):
    """Parameters and state after some steps with given gradients."""
    params, optimizer = pick(tree(0)), make_optimizer(config, 10, axes)
    state = optimizer.init(params)
    step = jax.jit(optimizer.update)
    for i in range(steps):
        updates, state = step(pick(tree(i + 1)), state, params)
        params = optax.apply_updates(params, updates)
    return params, state


def assert_equal(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_each_group_is_updated_as_if_it_were_alone():
    params, state = train(PairConfig(learning_rate=0.01, warmup=2, ema=0.5), axes())
    alone = {
        "model": train(OptimizerConfig(learning_rate=0.01, warmup=2, ema=0.5), axes()["model"], lambda t: t["model"]),
        "critic": train(CRITIC, axes()["critic"], lambda t: t["critic"]),
    }
    for name, (expected, expected_state) in alone.items():
        assert_equal(params[name], expected)
        assert_equal(state["ema"].params[name], expected_state["ema"].params)
    # A critic is not averaged: its place in the tree holds its weights.
    assert_equal(state["ema"].params["critic"], params["critic"])


def test_what_is_not_trainable_stays_and_has_no_moments():
    config = OptimizerConfig(learning_rate=0.01, warmup=1, trainable=("critic", "*/last/kernel"))
    params, state = train(config, axes())
    before = tree(0)
    for kept in (params, state["ema"].params):
        assert_equal(kept["model"]["first"], before["model"]["first"])
        assert_equal(kept["model"]["last"]["bias"], before["model"]["last"]["bias"])
    for path in (("critic", "kernel"), ("critic", "bias"), ("model", "last", "kernel")):
        new, old = params, before
        for key in path:
            new, old = new[key], old[key]
        assert np.all(new != old), path
    moments = [leaf for leaf in jax.tree.leaves(state["groups"]) if leaf.ndim]
    assert sum(leaf.size for leaf in moments) == 2 * (256 * 4 * 2 + 4)


def test_the_state_of_one_group_is_a_flat_chain_as_it_always_was():
    _, state = train(OptimizerConfig(), axes())
    assert list(state) == ["clip", "adam", "decay", "width", "rate", "ema"]


def test_groups_are_laid_out_as_their_parameters():
    mesh, shapes = make_mesh(MeshConfig(data=1, fsdp=8)), jax.eval_shape(lambda: tree(0))
    placed = parameter_shardings(mesh, shapes, axes())
    state = jax.eval_shape(make_optimizer(PairConfig(), 10, axes()).init, shapes)
    shardings = state_shardings(mesh, state, placed)
    adam = shardings["groups"].inner_states["critic"].inner_state["adam"]
    assert adam.mu["critic"] == placed["critic"] and not placed["critic"]["kernel"].is_fully_replicated
    assert shardings["ema"].params == placed


def test_a_checkpoint_holds_the_groups(tmp_path):
    params, opt_state = train(PairConfig(trainable=("model/last",)), axes())
    state = State(jnp.asarray(5), params, opt_state)
    saver = Checkpointer(tmp_path / "checkpoints", CheckpointConfig())
    saver.save(5, state, {"data": {}})
    saver.wait()
    restored, _ = saver.restore(
        jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
    )
    saver.close()
    assert_equal(restored, state)


def test_paths_that_no_parameter_has_are_refused():
    with pytest.raises(ConfigError, match=r"optimizer.trainable: no parameter is at 'lora_\*'; there are 6, such as "):
        make_optimizer(OptimizerConfig(trainable=("lora_*",)), 10, axes()).init(tree(0))
    critic = OptimizerConfig(trainable=("model",))
    with pytest.raises(ConfigError, match=r"optimizer.critic.trainable: no parameter is at 'model'"):
        make_optimizer(PairConfig(critic=critic), 10, axes()).init(tree(0))
    with pytest.raises(ValueError, match="trainable is empty"):
        OptimizerConfig(trainable=())


def test_a_config_names_the_keys_of_a_group():
    config = build(PairConfig, {"critic": {"learning_rate": 0.5}})
    assert config.groups["critic"].learning_rate == 0.5 and list(config.groups) == ["rest", "critic"]
    with pytest.raises(ConfigError, match=r"config.critic.rate: unknown key"):
        build(PairConfig, {"critic": {"rate": 0.5}})

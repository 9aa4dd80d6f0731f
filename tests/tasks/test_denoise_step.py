"""The step of text to picture with frozen towers: what is dropped, and which latent is seen, is drawn by example."""

import dataclasses
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fooddit.config import ConfigError, build
from fooddit.models.prompts import Prompt, encode_prompts
from fooddit.tasks.denoise_step import DenoiseExperiment, DenoiseStep, DroppingConfig
from tests.models.tower_parts import SIZE, patch_towers

COUNT = 4096


@pytest.fixture(autouse=True)
def towers(monkeypatch):
    patch_towers(monkeypatch)


def experiment(**changes):
    config = importlib.import_module("configs.stage2").get_config("tiny")
    config.data.reference_size = SIZE
    config.update_from_flattened_dict(changes)
    return build(DenoiseExperiment, config.to_dict())


def heard(step, index, asked):
    """Which parts are heard of each example."""
    features = {
        **{name: jnp.ones((len(index), 3, 4)) for name in ("t5", "eclip")},
        **{f"{name}_mask": jnp.broadcast_to(asked[:, None], (len(index), 3)) for name in ("t5", "eclip")},
        "pooled": jnp.ones((len(index), 4)) * asked[:, None],
        "patches": jnp.ones((len(index), 5, 4)),
        "patches_mask": jnp.ones((len(index), 5), bool),
    }
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(3), i))(index)
    kept = step._heard(features, keys)
    assert jnp.array_equal(kept["pooled"].any(axis=1), kept["eclip_mask"].any(axis=1))
    return {name: np.asarray(kept[f"{name}_mask"].any(axis=1)) for name in ("t5", "eclip", "patches")}


def test_each_part_is_dropped_at_its_odds_and_independently():
    step = DenoiseStep(experiment())
    step.experiment = dataclasses.replace(step.experiment, dropping=DroppingConfig(0.2, 0.4, 0.3, 0.6))
    index, asked = jnp.arange(COUNT), jnp.arange(COUNT) % 2 == 0
    found = heard(step, index, asked)
    text, none = np.asarray(asked), ~np.asarray(asked)
    # A caption that neither tower hears is none.
    with_text = 0.7 * (1 - 0.2 * 0.4) + 0.4 * 0.2 * 0.4
    for name, rows, odds in (
        ("t5", text, 0.8),
        ("eclip", text, 0.6),
        ("patches", text, with_text),
        ("patches", none, 0.4),
    ):
        assert found[name][rows].mean() == pytest.approx(odds, abs=0.04)
    unheard = text & ~found["t5"] & ~found["eclip"]
    assert found["patches"][unheard].mean() == pytest.approx(0.4, abs=0.1)
    assert not found["t5"][none].any() and not found["eclip"][none].any()
    both = (found["t5"] & found["eclip"])[text].mean()
    assert both == pytest.approx(0.8 * 0.6, abs=0.04)
    part = heard(step, index[100:200], asked[100:200])
    assert all(np.array_equal(part[name], found[name][100:200]) for name in part)


def test_the_only_tower_is_not_dropped():
    step = DenoiseStep(experiment(**{"towers.t5": "", "dropping.eclip": 0.5}))
    found = heard(step, jnp.arange(200), jnp.arange(200) < 100)
    assert found["eclip"].tolist() == [True] * 100 + [False] * 100


def test_a_loss_is_that_of_its_examples_whatever_the_batch():
    step = DenoiseStep(experiment())
    params, frozen = step.init(jax.random.key(0)), step.frozen.load()
    rng = np.random.default_rng(0)
    asked = [Prompt(f"dish {i}" if i % 3 else "", rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8)) for i in range(8)]
    batch = encode_prompts(step.reader, asked) | {
        "image": rng.integers(0, 256, (8, 64, 64, 3), np.uint8),
        "index": np.arange(8, dtype=np.int32),
    }
    moved = jax.tree.map(lambda x: x + 0.05 * jnp.asarray(rng.normal(size=x.shape), x.dtype), params)

    def losses(rows):
        made = step.device_batch(frozen, {name: value[rows] for name, value in batch.items()})
        return np.asarray(step.flow(moved, made, jax.random.key(1))[1].per_example)

    whole = losses(slice(0, 8))
    assert len(np.unique(whole)) == 8
    np.testing.assert_allclose(np.concatenate([losses(slice(0, 4)), losses(slice(4, 8))]), whole, rtol=2e-5)


def test_a_latent_is_another_sample_at_every_visit_and_the_same_for_an_example():
    step = DenoiseStep(experiment())
    params, (count, features) = step.init(jax.random.key(0)), (6, step.space.features)
    batch = {
        "index": jnp.arange(count),
        "x0": jnp.zeros((count, step.length, features)),
        "log_variance": jnp.full((count, step.length, features), 2 * np.log(0.5)),
        "features": {name: jnp.zeros((count, 2, width)) for name, width in (("t5", 24), ("eclip", 20), ("patches", 16))}
        | {f"{name}_mask": jnp.zeros((count, 2), bool) for name in ("t5", "eclip", "patches")}
        | {"pooled": jnp.zeros((count, 18))},
    }
    seen = []

    def capture(predict, x0, noise, t, **_):
        seen.append(np.asarray(x0))
        return None

    for key in (1, 1, 2):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("fooddit.tasks.denoise_step.flow_loss", capture)
            step.flow(params, batch, jax.random.key(key))
    np.testing.assert_array_equal(seen[0], seen[1])
    assert not np.allclose(seen[0], seen[2])
    assert seen[0].std() == pytest.approx(0.5, abs=0.03) and len(np.unique(seen[0][:, 0, 0])) == count


def test_reference_size_must_be_the_towers():
    with pytest.raises(ConfigError, match=f"data.reference_size is 64, .* have {SIZE} pixels a side"):
        DenoiseStep(experiment(**{"data.reference_size": 64}))

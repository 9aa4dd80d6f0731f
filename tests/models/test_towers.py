"""Conditions from frozen towers: absent or silent is as if it had never been there; what is dropped, by example."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fooddit.config import ConfigError
from fooddit.models import prompts as prompts_module
from fooddit.models.dit import DiTConfig
from fooddit.models.flops import flops_per_example
from fooddit.models.prompts import Prompt, encode_prompts, input_shapes
from fooddit.models.text import TextConfig
from fooddit.models.text_to_image import define_model
from fooddit.models.towers import Towers, TowersConfig, drop
from tests.models.tower_parts import SIZE, patch_towers

TOKENS, FEATURES = 16, 12
POSITIONS = jnp.stack(jnp.meshgrid(jnp.arange(4.0), jnp.arange(4.0), indexing="ij"), -1).reshape(-1, 2)
ASKED = ["two dumplings on a blue plate", "蓝盘里的饺子", "", "soup"]


@pytest.fixture(autouse=True)
def parts(monkeypatch):
    patch_towers(monkeypatch)


def config(t5="a", eclip="b", image_tokens=6):
    return SimpleNamespace(
        model=DiTConfig(width=32, depth=2, head_dim=8, image_tokens=image_tokens, image_width=16),
        text=TextConfig(width=32),
        towers=TowersConfig(t5=t5, eclip=eclip),
    )


def trained(definition, seed=0):
    """Random values everywhere, where a fresh model has zeros."""
    leaves, tree = jax.tree.flatten(definition.init(jax.random.key(seed)))
    keys = jax.random.split(jax.random.key(seed + 1), len(leaves))
    return tree.unflatten(leaf + 0.1 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys))


def picture(seed):
    return np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), np.uint8)


def features_of(reader, asked):
    params = {name: part.load() for name, part in reader.parts.items()}
    return reader.features(params, encode_prompts(reader, asked))


def predict(definition, params, features, **changes):
    model = definition.bind(params)
    x = jax.random.normal(jax.random.key(5), (len(ASKED), TOKENS, FEATURES))
    t = jnp.linspace(0.2, 0.9, len(ASKED))
    conditions = None if features is None else model.conditions(features)
    return np.asarray(model(x, t, conditions, positions=POSITIONS, **changes))


ALL = [Prompt(text, picture(i)) for i, text in enumerate(ASKED)]
TEXT = [Prompt(text) for text in ASKED]


def test_an_absent_t5_is_bit_for_bit_no_t5():
    both, alone = config(), config(t5="")
    reader = prompts_module.open_reader(both)
    definition = define_model(both, reader.widths, FEATURES)
    params = trained(definition)
    lone_reader = prompts_module.open_reader(alone)
    lone = define_model(alone, lone_reader.widths, FEATURES)
    less = params | {"towers": {name: params["towers"][name] for name in ("eclip", "pooled")}}
    assert jax.tree.structure(less) == jax.tree.structure(lone.shapes)
    absent = predict(definition, params, features_of(lone_reader, ALL))
    np.testing.assert_array_equal(absent, predict(lone, less, features_of(lone_reader, ALL)))
    assert list(lone_reader.parts) == ["eclip"]
    assert not np.allclose(absent, predict(definition, params, features_of(reader, ALL)))


def test_image_scale_0_is_bit_for_bit_no_image_prompt_and_no_model_with_one():
    reader, blind = prompts_module.open_reader(config()), prompts_module.open_reader(config(image_tokens=0))
    definition = define_model(config(), reader.widths, FEATURES)
    params = trained(definition)
    silent = predict(definition, params, features_of(reader, ALL), image_scale=0.0)
    np.testing.assert_array_equal(silent, predict(definition, params, features_of(reader, TEXT)))
    never = define_model(config(image_tokens=0), blind.widths, FEATURES)
    cross = {k: v for k, v in params["dit"]["blocks"]["cross"].items() if not k.startswith("image")}
    dit = {k: v for k, v in params["dit"].items() if k != "image_norm"}
    dit = dit | {"blocks": dit["blocks"] | {"cross": cross}}
    less = {"towers": params["towers"], "dit": dit}
    assert jax.tree.structure(less) == jax.tree.structure(never.shapes)
    np.testing.assert_array_equal(silent, predict(never, less, features_of(blind, TEXT)))
    assert not np.allclose(silent, predict(definition, params, features_of(reader, ALL)))


def test_no_caption_is_no_condition_and_no_reference_is_no_image():
    reader = prompts_module.open_reader(config())
    definition = define_model(config(), reader.widths, FEATURES)
    params = trained(definition)
    nothing = predict(definition, params, features_of(reader, [Prompt("")] * 4))
    np.testing.assert_allclose(nothing, predict(definition, params, None), atol=1e-5)
    mixed = [Prompt(text, picture(1) if i == 0 else None) for i, text in enumerate(ASKED)]
    found = predict(definition, params, features_of(reader, mixed))
    text_alone = predict(definition, params, features_of(reader, TEXT))
    np.testing.assert_allclose(found[1:], text_alone[1:], atol=1e-5)
    assert not np.allclose(found[0], text_alone[0])


def test_without_text_hears_the_image_alone():
    reader = prompts_module.open_reader(config())
    definition = define_model(config(), reader.widths, FEATURES)
    params = trained(definition)
    model = definition.bind(params)
    x = jax.random.normal(jax.random.key(5), (4, TOKENS, FEATURES))
    run = lambda conditions: np.asarray(model(x, jnp.full(4, 0.5), conditions, positions=POSITIONS))
    silenced = run(model.conditions(features_of(reader, ALL)).without_text())
    images = [Prompt("", prompt.image) for prompt in ALL]
    np.testing.assert_allclose(silenced, run(model.conditions(features_of(reader, images))), atol=1e-5)


def test_a_dropped_tower_is_one_that_is_absent():
    reader = prompts_module.open_reader(config())
    definition = define_model(config(), reader.widths, FEATURES)
    params = trained(definition)
    gone = jnp.array([True, False, True, False])
    features = features_of(reader, ALL)
    whole = predict(definition, params, features)
    for name in ("t5", "eclip", "patches"):
        found = predict(definition, params, drop(features, {name: gone}))
        np.testing.assert_array_equal(found[1::2], whole[1::2])
        assert not np.allclose(found[0], whole[0])
        if name == "t5":
            absent = predict(definition, params, features_of(prompts_module.open_reader(config(t5="")), ALL))
            np.testing.assert_allclose(found[::2], absent[::2], atol=1e-5)
    silent = drop(features, dict.fromkeys(("t5", "eclip", "patches"), jnp.ones(4, bool)))
    np.testing.assert_allclose(predict(definition, params, silent), predict(definition, params, None), atol=1e-5)


def test_every_parameter_learns_from_pictures_and_text():
    reader = prompts_module.open_reader(config())
    definition = define_model(config(), reader.widths, FEATURES)
    features = features_of(reader, ALL)

    def loss(params):
        model = definition.bind(params)
        x = jax.random.normal(jax.random.key(5), (4, TOKENS, FEATURES))
        return (model(x, jnp.full(4, 0.5), model.conditions(features), positions=POSITIONS) ** 2).sum()

    gradients = jax.grad(loss)(trained(definition))
    still = [jax.tree_util.keystr(path) for path, g in jax.tree.leaves_with_path(gradients) if not jnp.any(g)]
    assert still == []


def test_features_of_a_cache_are_taken_as_they_are():
    reader = prompts_module.open_reader(config())
    computed = features_of(reader, ALL)
    stored = {f"{name}_features": computed[name] for name in ("t5", "eclip")}
    stored |= {f"{name}_mask": computed[f"{name}_mask"] for name in ("t5", "eclip")}
    stored |= {"eclip_pooled": computed["pooled"], "patches": computed["patches"], "has_reference": np.ones(4, bool)}
    found = reader.features({}, stored)
    assert found.keys() == computed.keys()
    for name, value in computed.items():
        np.testing.assert_array_equal(found[name], value)


def test_shapes_are_those_of_what_is_encoded():
    reader = prompts_module.open_reader(config())
    inputs, shapes = encode_prompts(reader, ALL), input_shapes(reader, 4)
    assert {k: (v.shape, np.dtype(v.dtype)) for k, v in inputs.items()} == {
        k: (s.shape, np.dtype(s.dtype)) for k, s in shapes.items()
    }


def test_flops_are_those_of_the_program():
    settings = SimpleNamespace(
        model=DiTConfig(width=128, depth=3, head_dim=32, image_tokens=16, image_width=64, scan_unroll=3),
        text=TextConfig(width=64),
        towers=TowersConfig(t5="a", eclip="b"),
    )
    reader = prompts_module.open_reader(settings)
    definition = define_model(settings, reader.widths, 48)
    features = jax.eval_shape(lambda: features_of(reader, ALL))

    def forward(params, x, t, features):
        model = definition.bind(params)
        return model(x, t, model.conditions(features), positions=jnp.zeros((64, 2)))

    shapes = jax.ShapeDtypeStruct((4, 64, 48), jnp.float32), jax.ShapeDtypeStruct((4,), jnp.float32)
    counted = jax.jit(forward).lower(definition.shapes, *shapes, features).compile().cost_analysis()["flops"] / 4
    analytic = flops_per_example(settings.model, settings.text, 64, definition.shapes, reader.widths) / 3
    assert analytic < counted < 1.15 * analytic


def test_an_image_prompt_without_a_tower_that_sees_is_refused():
    with pytest.raises(ConfigError, match="set config.towers.eclip to its folder"):
        Towers(TowersConfig(t5="a"), image_prompts=True)

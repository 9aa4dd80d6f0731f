import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fooddit.models.dit import SIZES, Context, DiT, DiTConfig, ExtraTokens, place_sinusoids
from fooddit.models.layers import swiglu_width
from fooddit.models.module import count, define

TOKENS, FEATURES, CONTEXT = 9, 12, 16
POSITIONS = jnp.stack(jnp.meshgrid(jnp.arange(3.0), jnp.arange(3.0), indexing="ij"), -1).reshape(-1, 2)


def build(**changes):
    config = DiTConfig(**{"width": 32, "depth": 3, "head_dim": 8, **changes})
    return define(lambda rngs: DiT(config, token_features=FEATURES, context_width=CONTEXT, rngs=rngs))


def trained(definition, seed=0):
    """Random values everywhere, where a fresh model has zeros."""
    leaves, tree = jax.tree.flatten(definition.init(jax.random.key(seed)))
    keys = jax.random.split(jax.random.key(seed + 1), len(leaves))
    return tree.unflatten(leaf + 0.1 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys))


def inputs(batch=2, seed=3):
    a, b, c = jax.random.split(jax.random.key(seed), 3)
    x = jax.random.normal(a, (batch, TOKENS, FEATURES))
    tokens = jax.random.normal(b, (batch, 5, CONTEXT))
    mask = jnp.arange(5) < jnp.array([5, 3])[:batch, None]
    pooled = jax.random.normal(c, (batch, CONTEXT))
    return x, jnp.linspace(0.2, 0.9, batch), Context(tokens, mask), pooled


def run(definition, params, **changes):
    x, t, context, pooled = inputs()
    arguments = {"positions": POSITIONS, "context": [context], "pooled": pooled, **changes}
    return definition.bind(params)(x, t, **arguments)


def test_a_fresh_model_predicts_zero_and_every_parameter_learns():
    definition = build()
    params = definition.init(jax.random.key(0))
    assert jnp.all(run(definition, params) == 0)
    gradients = jax.grad(lambda p: jnp.sum(run(definition, p) ** 2))(trained(definition))
    still = [jax.tree_util.keystr(path) for path, g in jax.tree.leaves_with_path(gradients) if not jnp.any(g)]
    assert still == []


@pytest.mark.parametrize("changes", [{"scan_unroll": 3}, {"remat": "full"}, {"remat": "dots"}])
def test_unrolling_and_rematerialisation_change_no_gradient(changes):
    plain, other = build(), build(**changes)
    params = trained(plain)
    expected = jax.grad(lambda p: jnp.sum(run(plain, p) ** 2))(params)
    found = jax.grad(lambda p: jnp.sum(run(other, p) ** 2))(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4), expected, found)


def test_padding_tokens_and_padding_context_change_nothing():
    definition = build()
    params = trained(definition)
    x, t, context, pooled = inputs()
    expected = definition.bind(params)(x, t, positions=POSITIONS, context=[context], pooled=pooled)
    padded = definition.bind(params)(
        jnp.pad(x, ((0, 0), (0, 4), (0, 0)), constant_values=7.0),
        t,
        positions=jnp.pad(POSITIONS, ((0, 4), (0, 0)), constant_values=3.0),
        mask=jnp.broadcast_to(jnp.arange(TOKENS + 4) < TOKENS, (2, TOKENS + 4)),
        context=[
            Context(
                jnp.pad(context.tokens, ((0, 0), (0, 2), (0, 0)), constant_values=5.0),
                jnp.pad(context.mask, ((0, 0), (0, 2))),
            )
        ],
        pooled=pooled,
    )
    np.testing.assert_allclose(padded[:, :TOKENS], expected, atol=1e-5)


def test_an_empty_context_equals_no_context():
    definition = build()
    params = trained(definition)
    x, t, context, _ = inputs()
    model = definition.bind(params)
    none = model(x, t, positions=POSITIONS)
    empty = model(
        x,
        t,
        positions=POSITIONS,
        context=[Context(context.tokens, jnp.zeros_like(context.mask))],
        pooled=jnp.zeros((2, CONTEXT)),
    )
    np.testing.assert_array_equal(none, empty)


def test_context_groups_are_one_sequence():
    definition = build()
    params = trained(definition)
    context = inputs()[2]
    halves = [Context(context.tokens[:, :2], context.mask[:, :2]), Context(context.tokens[:, 2:], context.mask[:, 2:])]
    np.testing.assert_allclose(run(definition, params), run(definition, params, context=halves), atol=1e-6)


def test_extra_tokens_are_attended_to_unless_masked():
    definition = build()
    params = trained(definition)
    tokens = jax.random.normal(jax.random.key(9), (2, 4, 32))
    positions = jnp.broadcast_to(jnp.arange(4.0)[:, None] - 6.0, (2, 4, 2))
    seen = ExtraTokens(tokens, positions, jnp.ones((2, 4), bool))
    hidden = ExtraTokens(tokens, positions, jnp.zeros((2, 4), bool))
    plain = run(definition, params)
    assert run(definition, params, extra_tokens=[seen]).shape == plain.shape
    assert jnp.max(jnp.abs(run(definition, params, extra_tokens=[seen]) - plain)) > 1e-3
    np.testing.assert_allclose(run(definition, params, extra_tokens=[hidden]), plain, atol=1e-5)


def test_block_residuals_of_zero_are_none_and_others_are_added():
    definition = build()
    params = trained(definition)
    zeros = jnp.zeros((3, 2, TOKENS, 32))
    # Two programs: XLA may fuse them in two ways, so not bit for bit.
    np.testing.assert_allclose(run(definition, params, block_residuals=zeros), run(definition, params), atol=2e-6)
    assert jnp.any(run(definition, params, block_residuals=zeros.at[1].set(1.0)) != run(definition, params))


def test_a_token_of_noise_knows_where_it_stands():
    definition = build()
    params = trained(definition)
    alike = jnp.ones((1, TOKENS, FEATURES))
    at = lambda positions: definition.bind(params)(alike, jnp.ones(1), positions=positions)[0]
    found = at(POSITIONS)
    assert all(jnp.max(jnp.abs(found[i] - found[j])) > 1e-2 for i in range(TOKENS) for j in range(i))
    # By its position alone: not by its place in the sequence.
    np.testing.assert_allclose(at(POSITIONS[::-1]), found[::-1], atol=1e-5)
    assert jnp.max(jnp.abs(at(2 * POSITIONS) - found)) > 1e-3


def test_sinusoids_of_places_have_variance_one():
    waves = np.asarray(place_sinusoids(jnp.array([[0.0, 2.0], [3.0, 0.5]]), 16), np.float64)
    assert waves.shape == (2, 16)
    np.testing.assert_allclose((waves**2).mean(axis=-1), 1.0, rtol=1e-6)
    rates = 100.0 ** -(np.arange(4) / 4)
    expected = [*np.sin(3 * rates), *np.cos(3 * rates), *np.sin(0.5 * rates), *np.cos(0.5 * rates)]
    np.testing.assert_allclose(waves[1], np.sqrt(2) * np.array(expected), rtol=1e-5)


def test_sizes_fit_tpu_lanes_and_xl_has_a_billion_parameters():
    for name, (width, _, head_dim) in SIZES.items():
        assert width % head_dim == 0
        assert name == "ti" or (head_dim == 128 and swiglu_width(width) % 128 == 0)
    xl = define(lambda r: DiT(DiTConfig("xl"), token_features=768, context_width=1024, rngs=r))
    assert 1.0e9 < count(xl.shapes) < 1.4e9


@pytest.mark.parametrize(
    "changes, message", [({"size": "huge"}, "huge"), ({"width": 100}, "divides the width"), ({"remat": "all"}, "remat")]
)
def test_bad_shapes_are_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        DiTConfig(**{"width": 32, "head_dim": 8, **changes})

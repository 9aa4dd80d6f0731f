"""The encoder gives the features that transformers gave for the same weights; padding changes nothing."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fooddit.models.module import define
from fooddit.models.t5 import T5Config, T5EncoderStack, relative_buckets, scan_blocks
from fooddit.models.t5_decoder import T5
from fooddit.parallel import MeshConfig, make_mesh, parameter_shardings
from parity import t5_made

GOLDEN = np.load(Path(__file__).parent / "golden/t5.npz")
UMT5 = t5_made.KINDS["umt5"][1]


def encoder(config: T5Config, dtype: str = "float32", **options):
    """(params, jitted (params, ids, mask) -> features) with random weights."""
    config = T5Config(**{**vars(config), "dtype": dtype})
    definition = define(lambda rngs: T5EncoderStack(config, rngs=rngs))
    params = jax.tree.map(jnp.asarray, t5_made.weights(config, **options)["encoder"])
    return params, jax.jit(lambda params, ids, mask: definition.bind(params)(ids, mask))


@pytest.fixture(scope="module")
def encode():
    params, call = encoder(UMT5)
    return lambda ids, mask: np.asarray(call(params, ids, mask))


@pytest.mark.parametrize("kind", t5_made.KINDS)
def test_features_are_those_of_transformers(kind):
    ids, mask = t5_made.inputs()
    params, call = encoder(t5_made.KINDS[kind][1])
    np.testing.assert_allclose(call(params, ids, mask) * mask[..., None], GOLDEN[kind], atol=1e-5)


def test_what_is_at_padding_changes_no_feature(encode):
    ids, mask = t5_made.inputs()
    found, other = encode(ids, mask), encode(np.where(mask, ids, 33), mask)
    np.testing.assert_array_equal(found[mask], other[mask])
    assert np.isfinite(other).all()


def test_padding_itself_changes_no_feature(encode):
    ids, mask = t5_made.inputs()
    short = t5_made.LENGTHS[1]
    cut = encode(ids[1:2, :short], mask[1:2, :short])
    np.testing.assert_allclose(encode(ids, mask)[1, :short], cut[0], atol=2e-6)


def test_a_caption_without_tokens_is_finite_and_changes_no_other(encode):
    ids, mask = t5_made.inputs()
    found = encode(ids, mask & (np.arange(3) > 0)[:, None])
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found[1:][mask[1:]], encode(ids, mask)[1:][mask[1:]])


def test_the_order_of_tokens_counts_near_and_far(encode):
    ids, mask = np.full((1, 20), 9, np.int32), np.ones((1, 20), bool)
    ids[0, 3] = 7
    near, far = ids.copy(), ids.copy()
    near[0, [3, 4]], far[0, [3, 9]] = ids[0, [4, 3]], ids[0, [9, 3]]
    first = [encode(x, mask)[0, 0] for x in (ids, near, far)]
    assert np.abs(first[0] - first[1]).max() > 1e-3 and np.abs(first[0] - first[2]).max() > 1e-3


@pytest.mark.parametrize("kind", ["t5-v1_1", "umt5"])
def test_bfloat16_is_near_float32_where_float16_would_overflow(kind):
    """Weights for which transformers' float16 is NaN (parity/test_t5.py)."""
    config, (ids, mask) = t5_made.KINDS[kind][1], t5_made.inputs()
    params, call = encoder(config, feed_forward_gain=300.0)
    expected = np.asarray(call(params, ids, mask))[mask]
    assert np.abs(residual(config, params, ids, mask)).max() > 10 * 65504
    _, low = encoder(config, "bfloat16")
    found = np.asarray(low(params, ids, mask)[mask], np.float32)
    # 0.022 with a bfloat16 residual stream, as transformers has.
    assert np.linalg.norm(found - expected) < 0.02 * np.linalg.norm(expected)


def residual(config: T5Config, params, ids, mask) -> jax.Array:
    """The residual stream before the last norm."""
    model = define(lambda rngs: T5EncoderStack(config, rngs=rngs)).bind(params)
    buckets = relative_buckets(ids.shape[1], config, bidirectional=True)
    bias = None if model.position_bias is None else jnp.moveaxis(model.position_bias[...][buckets], -1, 0)[None]
    call = lambda block, x: block(x, buckets=buckets, bias=bias, mask=mask[:, None, None, :])  # noqa: E731
    return scan_blocks(model.blocks, call, model.embedding[...][ids], 1)


def test_a_mesh_gives_the_features_of_one_device():
    ids, mask = (np.tile(x, (2, 1))[:4] for x in t5_made.inputs())
    params, call = encoder(UMT5)
    expected = call(params, ids, mask)
    devices = make_mesh(MeshConfig(data=1, fsdp=2, tensor=2, sequence=2))
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)
    placed = parameter_shardings(devices, shapes, define(lambda rngs: T5EncoderStack(UMT5, rngs=rngs)).axes)
    params = jax.device_put(params, placed)
    for name in ("query", "out"):
        assert not params["blocks"]["attention"][name]["kernel"].sharding.is_fully_replicated
    with jax.set_mesh(devices):
        np.testing.assert_allclose(encoder(UMT5)[1](params, ids, mask), expected, atol=1e-5)


def test_a_target_token_sees_those_before_it_alone():
    definition = define(lambda rngs: T5(UMT5, rngs=rngs))
    params = jax.tree.map(jnp.asarray, t5_made.weights(UMT5))
    call = jax.jit(lambda target: definition.bind(params)(*t5_made.inputs(), target))
    target = np.tile(np.arange(3, 12, dtype=np.int32), (3, 1))
    changed = np.where(np.arange(9) == 4, 40, target).astype(np.int32)
    before, after = np.asarray(call(target)), np.asarray(call(changed))
    np.testing.assert_array_equal(before[:, :5], after[:, :5])
    assert (np.abs(before[:, 5:] - after[:, 5:]).max(axis=-1) > 1e-4).all()


def test_every_parameter_learns():
    definition = define(lambda rngs: T5(UMT5, rngs=rngs))
    params = jax.tree.map(jnp.asarray, t5_made.weights(UMT5))
    target = np.tile(np.arange(3, 12, dtype=np.int32), (3, 1))

    def loss(params):
        logits = definition.bind(params)(*t5_made.inputs(), target)
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), target[..., None], axis=-1).mean()

    still = [jax.tree_util.keystr(path) for path, g in jax.tree.leaves_with_path(jax.grad(loss)(params)) if not g.any()]
    assert still == []


@pytest.mark.parametrize(
    "change, says",
    [
        ({"dtype": "float16"}, "float16"),
        ({"depth": 0}, "depth must be at least 1"),
        ({"max_distance": 8}, "above half"),
    ],
)
def test_a_shape_that_cannot_be_is_refused(change, says):
    with pytest.raises(ValueError, match=says):
        T5Config(**change)

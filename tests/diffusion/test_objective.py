import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fooddit.diffusion import ObjectiveConfig, flow_loss, loss_by_time, to_velocity

X0, NOISE = jax.random.normal(jax.random.key(0), (2, 3, 4, 2))
T = jnp.array([0.02, 0.5, 0.9])
VELOCITY, CLEAN = ObjectiveConfig(), ObjectiveConfig(prediction="x0", time_floor=0.05)


def test_velocity_loss_by_hand():
    # The velocity is noise - x0 = (3, 1), (2, 2); the network says 1: squares (4, 0), (1, 1).
    x0, noise = jnp.array([[[1.0, 1.0], [0.0, 0.0]]]), jnp.array([[[4.0, 2.0], [2.0, 2.0]]])
    result = flow_loss(lambda x, t: jnp.ones_like(x), x0, noise, jnp.array([0.3]), config=VELOCITY)
    np.testing.assert_allclose(result.loss, 1.5)
    masked = flow_loss(
        lambda x, t: jnp.ones_like(x), x0, noise, jnp.array([0.3]), config=VELOCITY, mask=jnp.array([[True, False]])
    )
    np.testing.assert_allclose(masked.loss, 2.0)


def test_network_sees_the_interpolated_example():
    seen = []
    flow_loss(lambda x, t: seen.append((x, t)) or x, X0, NOISE, T, config=VELOCITY)
    np.testing.assert_allclose(seen[0][0], (1 - T[:, None, None]) * X0 + T[:, None, None] * NOISE, rtol=1e-6)
    np.testing.assert_array_equal(seen[0][1], T)


def test_x0_loss_is_the_velocity_loss_with_a_floor():
    wrong = X0 + 0.1
    result = flow_loss(lambda x, t: wrong, X0, NOISE, T, config=CLEAN)
    np.testing.assert_allclose(result.per_example, (0.1 / np.maximum(T, 0.05)) ** 2, rtol=1e-3)
    np.testing.assert_allclose(result.loss, result.per_example.mean(), rtol=1e-6)


def test_a_perfect_prediction_has_no_loss():
    assert flow_loss(lambda x, t: NOISE - X0, X0, NOISE, T, config=VELOCITY).loss == 0
    assert flow_loss(lambda x, t: X0, X0, NOISE, T, config=CLEAN).loss == 0


def test_padded_tokens_do_not_matter_and_images_need_no_mask():
    mask = jnp.array([[True, True, False, False], [True] * 4, [False] * 4])
    garbage = jnp.where(mask[..., None], 0.0, 1e6)
    result = flow_loss(lambda x, t: x, X0 + garbage, NOISE, T, config=VELOCITY, mask=mask)
    clean = flow_loss(lambda x, t: x, X0, NOISE, T, config=VELOCITY, mask=mask)
    np.testing.assert_array_equal(result.per_example, clean.per_example)
    assert result.per_example[2] == 0 and jnp.all(result.per_example[:2] > 0)
    pictures = flow_loss(
        lambda x, t: x, X0.reshape(3, 2, 2, 2), NOISE.reshape(3, 2, 2, 2), T, config=VELOCITY
    ).per_example
    tokens = flow_loss(lambda x, t: x, X0, NOISE, T, config=VELOCITY).per_example
    np.testing.assert_allclose(pictures, tokens, rtol=1e-6)


def test_bfloat16_predictions_are_compared_in_float32():
    result = flow_loss(lambda x, t: x.astype(jnp.bfloat16), X0, NOISE, T, config=VELOCITY)
    assert result.loss.dtype == jnp.float32


def test_to_velocity_of_x0():
    velocity = to_velocity(X0, X0 + 1.0, T, CLEAN)
    np.testing.assert_allclose(velocity[:, 0, 0], 1 / np.maximum(T, 0.05), rtol=1e-5)
    assert to_velocity(X0, NOISE, T, VELOCITY) is X0


def test_loss_by_time_sums_and_counts():
    t = jnp.array([0.0, 0.1, 0.3, 0.99, 1.0])
    sums, counts = loss_by_time(jnp.array([1.0, 2.0, 4.0, 8.0, 16.0]), t, 4)
    np.testing.assert_array_equal(sums, [3.0, 4.0, 0.0, 24.0])
    np.testing.assert_array_equal(counts, [2.0, 1.0, 0.0, 2.0])


@pytest.mark.parametrize("bad", [{"prediction": "noise"}, {"time_floor": 0.0}])
def test_bad_config_is_named(bad):
    with pytest.raises(ValueError, match=f"ObjectiveConfig.{next(iter(bad))}"):
        ObjectiveConfig(**bad)

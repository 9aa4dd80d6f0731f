import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fooddit.diffusion import (
    TimestepConfig,
    example_keys,
    example_noise,
    resolution_shift,
    sample_times,
    sampling_times,
    shift_times,
)

KEY = jax.random.key(7)


def test_shift_has_the_published_values():
    # Esser et al. 2024: shift 3 at 1024 x 1024.
    t = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
    np.testing.assert_allclose(shift_times(t, 3.0), [0.0, 0.5, 0.75, 0.9, 1.0], rtol=1e-12)
    assert resolution_shift(4096, 1024) == 2.0
    assert resolution_shift(64, 64) == 1.0


@pytest.mark.parametrize("shift", [0.3, 1.0, 1.7, 3.0, 7.123])
def test_schedule_descends_from_exactly_one_to_exactly_zero(shift):
    times = sampling_times(13, shift)
    assert times.shape == (14,) and times.dtype == jnp.float32
    assert times[0] == 1 and times[-1] == 0
    assert jnp.all(jnp.diff(times) < 0)


def test_training_times_are_logit_normal():
    keys = example_keys(KEY, jnp.arange(20_000))
    t = np.asarray(sample_times(keys, TimestepConfig(mean=-0.5, scale=0.8)))
    logit = np.log(t / (1 - t))
    assert abs(logit.mean() + 0.5) < 0.02 and abs(logit.std() - 0.8) < 0.02
    assert t.min() >= 0 and t.max() <= 1
    shifted = sample_times(keys, TimestepConfig(mean=-0.5, scale=0.8, shift=2.0))
    np.testing.assert_allclose(shifted, 2 * t / (1 + t), rtol=1e-5)


def test_noise_and_time_belong_to_the_example_not_to_its_place():
    index = jnp.arange(16)
    noise = example_noise(example_keys(KEY, index), (3, 5))
    times = sample_times(example_keys(KEY, index), TimestepConfig())
    order = np.array([11, 2, 7])
    keys = example_keys(KEY, index[order])
    np.testing.assert_array_equal(example_noise(keys, (3, 5)), noise[order])
    np.testing.assert_array_equal(sample_times(keys, TimestepConfig()), times[order])
    assert len(np.unique(noise)) == noise.size


@pytest.mark.parametrize("devices", [2, 4, 8])
def test_noise_does_not_depend_on_the_device_count(devices):
    def draw(index):
        keys = example_keys(KEY, index)
        return example_noise(keys, (3, 5)), sample_times(keys, TimestepConfig())

    index = np.arange(16)
    one = jax.jit(draw)(index)
    mesh = jax.make_mesh((devices,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.NamedSharding(mesh, jax.P("data"))
    many = jax.jit(draw, out_shardings=sharding)(jax.device_put(index, sharding))
    assert len(many[0].sharding.device_set) == devices
    for a, b in zip(one, many, strict=True):
        np.testing.assert_array_equal(a, b)


def test_time_is_not_a_function_of_the_noise():
    keys = example_keys(KEY, jnp.arange(4000))
    t = sample_times(keys, TimestepConfig())
    first = example_noise(keys, (4,))
    correlation = np.corrcoef(np.log(t / (1 - t)), np.asarray(first).T)[0, 1:]
    assert np.abs(correlation).max() < 0.06


@pytest.mark.parametrize("field", ["scale", "shift"])
def test_bad_config_is_named(field):
    with pytest.raises(ValueError, match=f"TimestepConfig.{field} is 0"):
        TimestepConfig(**{field: 0.0})

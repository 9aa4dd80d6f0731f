"""Rows of a batch on the devices, and arrays back on the host."""

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from fooddit.config import ConfigError
from fooddit.parallel import MeshConfig, batch_sharding, make_mesh
from fooddit.parallel.placement import local_rows, place_rows, replicate, whole


@pytest.mark.parametrize(
    "config", [MeshConfig(), MeshConfig(slice=2, data=2, fsdp=2), MeshConfig(data=2, tensor=2, sequence=2)]
)
def test_a_batch_lies_as_its_sharding_says(config):
    mesh, numbers = make_mesh(config), np.arange(16)
    rows = local_rows(mesh, 16)
    np.testing.assert_array_equal(rows, numbers)
    batch = {"image": np.random.default_rng(0).random((16, 4, 3), np.float32), "index": numbers}
    placed = place_rows(mesh, 16, rows, batch)
    for name, array in batch.items():
        assert placed[name].sharding.is_equivalent_to(batch_sharding(mesh), array.ndim)
        np.testing.assert_array_equal(placed[name], array)
        np.testing.assert_array_equal(whole(placed)[name], array)


def test_without_a_mesh_a_batch_stays_as_it_is():
    batch = {"index": np.arange(3)}
    assert place_rows(None, 3, local_rows(None, 3), batch) is batch


def test_a_batch_that_cannot_be_shared_evenly_is_refused():
    with pytest.raises(ConfigError, match="12 examples cannot be shared evenly by 8 devices"):
        local_rows(make_mesh(), 12)


def test_what_is_replicated_is_whole_on_every_device():
    mesh = make_mesh()
    x = jax.device_put(np.arange(8.0), NamedSharding(mesh, PartitionSpec("data")))
    with jax.set_mesh(mesh):
        assert jax.jit(lambda x: replicate(x * 2))(x).is_fully_replicated
    assert jax.jit(replicate)(np.ones(3)).shape == (3,)

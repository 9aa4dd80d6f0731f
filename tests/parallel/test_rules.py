import jax
import jax.numpy as jnp
import optax
import pytest
from jax.sharding import AxisType, PartitionSpec

from fooddit.parallel import MeshConfig, batch_sharding, make_mesh, parameter_shardings, state_shardings
from fooddit.parallel.rules import FSDP_MINIMUM, parameter_sharding


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))


@pytest.mark.parametrize(
    "shape, axes, expected",
    [
        ((8, 16), ("embed", "mlp"), ("fsdp", "tensor")),
        ((16, 8), ("mlp", "embed"), ("tensor", "fsdp")),
        ((8,), ("embed",), ("fsdp",)),
        ((100, 8), ("vocab", "embed"), ("tensor", "fsdp")),
        ((6, 8), ("features", "embed"), (None, "fsdp")),
        # The stack of scanned blocks leads and stays whole.
        ((4, 8, 16), ("embed", "heads"), (None, "fsdp", "tensor")),
        ((4, 8), ("head_dim",), (None, None)),
        # What its axis does not divide stays whole.
        ((7, 16), ("embed", "mlp"), (None, "tensor")),
        ((8, 9), ("embed", "mlp"), ("fsdp", None)),
        # A mesh axis shards one dimension only: the first that asks.
        ((8, 8), ("embed", "embed"), ("fsdp", None)),
    ],
)
def test_axes_of_a_parameter_follow_the_table(mesh, shape, axes, expected):
    assert parameter_sharding(mesh, shape, axes).spec == PartitionSpec(*expected)


def test_the_batch_goes_over_both_data_parallel_axes(mesh):
    assert batch_sharding(mesh).spec == PartitionSpec(("data", "fsdp"))
    placed = jax.device_put(jnp.arange(8), batch_sharding(mesh))
    assert {shard.data.shape for shard in placed.addressable_shards} == {(2,)}


def test_an_axis_of_one_device_is_left_out():
    flat = make_mesh(MeshConfig(data=8))
    assert parameter_sharding(flat, (8, 16), ("embed", "mlp")).spec == PartitionSpec(None, None)
    assert parameter_sharding(flat, (FSDP_MINIMUM,), None).spec == PartitionSpec()


def test_without_names_the_largest_divisible_dimension_goes_over_fsdp(mesh):
    assert parameter_sharding(mesh, (512, 1024), None).spec == PartitionSpec(None, "fsdp")
    assert parameter_sharding(mesh, (512, 1023), None).spec == PartitionSpec("fsdp", None)
    assert parameter_sharding(mesh, (513, 1023), None).spec == PartitionSpec()
    assert parameter_sharding(mesh, (8, 8), None).spec == PartitionSpec()


def test_an_axis_that_is_not_in_the_table_is_named(mesh):
    with pytest.raises(ValueError, match=r"\['width'\] are not in the table; known: \['batch'"):
        parameter_sharding(mesh, (8, 8), ("width", "mlp"))


def test_a_tree_of_parameters_and_its_optimizer_state(mesh):
    shapes = {"up": {"kernel": jax.ShapeDtypeStruct((8, 16), jnp.float32)}, "kernel": jax.ShapeDtypeStruct((4,), "f4")}
    shardings = parameter_shardings(mesh, shapes, {"up": {"kernel": ("embed", "mlp")}, "kernel": ("features",)})
    assert shardings["up"]["kernel"].spec == PartitionSpec("fsdp", "tensor")
    state = jax.eval_shape(optax.adam(0.1).init, shapes)
    adam = state_shardings(mesh, state, shardings)[0]
    assert adam.mu == adam.nu == shardings
    assert adam.count.spec == PartitionSpec()


def test_all_axes_are_auto_and_one_may_take_what_is_left():
    mesh = make_mesh(MeshConfig(data=2, fsdp=-1, tensor=2))
    assert dict(mesh.shape) == {"data": 2, "fsdp": 2, "tensor": 2}
    assert set(mesh.axis_types) == {AxisType.Auto}
    assert dict(make_mesh(devices=jax.devices()[:3]).shape) == {"data": 3, "fsdp": 1, "tensor": 1}


@pytest.mark.parametrize(
    "config, message",
    [
        (MeshConfig(data=-1, fsdp=-1), "at most one -1"),
        (MeshConfig(data=0), "expected positive sizes"),
        (MeshConfig(data=-2), "expected positive sizes"),
        (MeshConfig(data=-1, fsdp=3), "does not fit; found 8"),
        (MeshConfig(data=16), "does not fit; found 8"),
        (MeshConfig(data=-1, fsdp=16), "found 8"),
    ],
)
def test_a_mesh_that_cannot_be_is_refused(config, message):
    with pytest.raises(ValueError, match=message):
        make_mesh(config)

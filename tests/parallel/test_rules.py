from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax
import pytest
from jax.sharding import AxisType, PartitionSpec

from fooddit.config import ConfigError
from fooddit.parallel import (
    MeshConfig,
    batch_sharding,
    batch_shares,
    make_mesh,
    parameter_shardings,
    state_shardings,
)
from fooddit.parallel.rules import (
    FSDP_MINIMUM,
    cross_attention_partition,
    parameter_sharding,
    self_attention_partition,
)


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


def test_the_batch_goes_over_all_data_parallel_axes(mesh):
    assert batch_sharding(mesh).spec == PartitionSpec(("slice", "data", "fsdp"))
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
    assert tuple(mesh.shape.items()) == (("slice", 1), ("data", 2), ("fsdp", 2), ("tensor", 2), ("sequence", 1))
    assert set(mesh.axis_types) == {AxisType.Auto}
    assert make_mesh(devices=jax.devices()[:3]).shape["data"] == 3


def test_parameters_are_cut_over_the_sequence_axis_too():
    mesh = make_mesh(MeshConfig(data=1, fsdp=2, sequence=4))
    assert parameter_sharding(mesh, (16, 6), ("embed", "mlp")).spec == PartitionSpec(("fsdp", "sequence"), None)
    # By as many axes as divide it.
    assert parameter_sharding(mesh, (6, 6), ("embed", "mlp")).spec == PartitionSpec("fsdp", None)


def test_slices_are_runs_of_the_devices_and_the_outermost_axis():
    devices = jax.devices()
    mesh = make_mesh(MeshConfig(slice=2, fsdp=2), devices)
    assert [{d.id for d in part.flat} for part in mesh.devices] == [{0, 1, 2, 3}, {4, 5, 6, 7}]
    assert batch_shares(mesh) == 8


@dataclass(frozen=True)
class TPU:
    """What a mesh asks of a device of a slice."""

    id: int
    slice_index: int
    platform: str = "tpu"
    device_kind: str = "none"
    process_index: int = 0
    core_on_chip: int = 0

    @property
    def coords(self):
        return self.id // 2, 0, 0


def test_slices_of_the_hardware_are_found_and_kept_together():
    devices = [TPU(i, i % 2) for i in range(8)]
    mesh = make_mesh(MeshConfig(fsdp=2), devices)
    assert mesh.shape["slice"] == 2 and mesh.shape["data"] == 2
    assert [{d.slice_index for d in part.flat} for part in mesh.devices] == [{0}, {1}]
    with pytest.raises(ValueError, match="found 4, the devices are of 2 slices; expected 0"):
        make_mesh(MeshConfig(slice=4), devices)


def test_self_attention_exchanges_tokens_for_heads():
    with jax.set_mesh(make_mesh(MeshConfig(data=2, tensor=2, sequence=2))):
        assert cross_attention_partition(4, 64, 8) == PartitionSpec("data", "sequence", "tensor")
        assert self_attention_partition(4, 8) == PartitionSpec("data", None, ("tensor", "sequence"))
        with pytest.raises(ConfigError, match="found 2 .times tensor 2., expected a divisor of the 6 heads"):
            self_attention_partition(4, 6)
    assert self_attention_partition(4, 6) is None


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

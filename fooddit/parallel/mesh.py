"""The device mesh: the one place where axis names, order and types are said."""

from dataclasses import dataclass
from math import prod

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

AXES = ("slice", "data", "fsdp", "tensor", "sequence")


@dataclass(frozen=True)
class MeshConfig:
    """Devices along each axis; -1 (allowed once) takes all that the others leave.

    Attributes:
      slice: of the hardware, TPU slices or nodes of GPUs, joined by the slow network; each slice holds all parameters.
        0: as many as there are. Fewer, for GPUs: fsdp and the others then cross the network.
      data, fsdp: examples are spread over both; parameters are cut over fsdp, and gathered where they are used.
      tensor: heads and the MLP's channels are cut.
      sequence: tokens are cut; for self-attention heads are instead, so that it divides their number.
    """

    slice: int = 0
    data: int = -1
    fsdp: int = 1
    tensor: int = 1
    sequence: int = 1


def make_mesh(config: MeshConfig = MeshConfig(), devices=None) -> Mesh:
    """A mesh with the axes `AXES` over `devices` (default: all of them), all of them Auto.

    Devices of a slice stay together, so that only the slice axis crosses the slow network. Where the hardware knows no
    slices (`slice_index`), config.mesh.slice cuts the devices into equal runs, as nodes of GPUs are.

    Raises:
      ValueError: the axis sizes do not multiply to the number of devices, or slices that the hardware does not have.
    """
    devices = jax.devices() if devices is None else list(devices)
    slices, *sizes = axis_sizes(config, len(devices), _count_slices(config, devices))
    devices.sort(key=_slice_index)
    grids = [_grid(sizes, list(part)) for part in np.split(np.array(devices), slices)]
    return Mesh(np.stack(grids), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def axis_sizes(config: MeshConfig, devices: int, slices: int = 1) -> list[int]:
    """Devices along each of `AXES`, of so many in so many slices. ValueError as `make_mesh` raises it."""
    sizes = [getattr(config, axis) for axis in AXES[1:]]
    asked = {"slice": slices} | dict(zip(AXES[1:], sizes))
    known = slices * prod(size for size in sizes if size != -1)
    if sizes.count(-1) > 1 or any(size < 1 and size != -1 for size in sizes):
        raise ValueError(f"config.mesh: expected positive sizes and at most one -1, found {asked}")
    sizes = [devices // known if size == -1 else size for size in sizes]
    if slices * prod(sizes) != devices:
        raise ValueError(
            f"config.mesh: {asked} does not fit; found {devices} devices: the sizes must multiply "
            "to that number, where one of them may be -1: what the others leave"
        )
    return [slices, *sizes]


def _count_slices(config: MeshConfig, devices) -> int:
    there = len({_slice_index(device) for device in devices})
    tpus = devices[0].platform == "tpu"
    if config.slice < 0 or (tpus and there > 1 and config.slice not in (0, there)):
        raise ValueError(f"config.mesh.slice: found {config.slice}, the devices are of {there} slices; expected 0")
    return config.slice or there


def _slice_index(device) -> int:
    """0 for hardware without slices. A node of GPUs is one; of CPUs there are none, whatever JAX says."""
    return 0 if device.platform == "cpu" else getattr(device, "slice_index", 0)


def _grid(sizes: list[int], devices) -> np.ndarray:
    # An axis of 8 on a 16 x 16 torus takes half of a ring; jax.make_mesh refuses that, and defaults to Explicit axes.
    return mesh_utils.create_device_mesh(tuple(sizes), devices, allow_split_physical_axes=True)

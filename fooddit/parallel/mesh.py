"""The device mesh: the one place where axis names, order and types are said."""

from dataclasses import dataclass

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

AXES = ("data", "fsdp", "tensor")


@dataclass(frozen=True)
class MeshConfig:
    """Devices along each axis; -1 (allowed once) takes all that the others leave."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1


def make_mesh(config: MeshConfig = MeshConfig(), devices=None, slices: int = 1) -> Mesh:
    """A (data, fsdp, tensor) mesh over `devices` (default: all of them), all axes Auto.

    Several slices (each an equal run of `devices`) are data-parallel: only the data axis crosses the slow network.

    Raises:
      ValueError: the axis sizes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = [config.data, config.fsdp, config.tensor]
    asked = dict(zip(AXES, sizes))
    known = int(np.prod([size for size in sizes if size != -1]))
    if sizes.count(-1) > 1 or known < 1 or any(size < 1 and size != -1 for size in sizes):
        raise ValueError(f"config.mesh: expected positive sizes and at most one -1, found {asked}")
    sizes = [len(devices) // known if size == -1 else size for size in sizes]
    if int(np.prod(sizes)) != len(devices):
        raise ValueError(
            f"config.mesh: {asked} does not fit; found {len(devices)} devices: the sizes must multiply "
            "to that number, where one of them may be -1: what the others leave"
        )
    share, rest = divmod(sizes[0], slices)
    if rest:
        raise ValueError(f"config.mesh: data is {sizes[0]}, expected a multiple of the {slices} slices")
    parts = np.split(np.array(devices), slices)
    grids = [_grid((share, *sizes[1:]), list(part)) for part in parts]
    return Mesh(np.concatenate(grids), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def _grid(sizes: tuple[int, ...], devices) -> np.ndarray:
    # An axis of 8 on a 16 x 16 torus takes half of a ring; jax.make_mesh refuses that, and defaults to Explicit axes.
    return mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)

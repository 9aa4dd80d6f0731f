"""Hardware that is not there, as its compiler knows it: "v6e:16x16" of libtpu, "h100:8" of XLA's GPU compiler."""

import importlib.util
import os
import re
from dataclasses import dataclass

import jax
from jax.experimental import topologies

from fooddit.aot.gpu_target import h100_target
from fooddit.aot.schedule import compiler_environment
from fooddit.parallel.hardware import Accelerator, accelerator

_FORM = re.compile(r"(v5e|v5p|v6e|tpu7x):([1-9]\d*(?:x[1-9]\d*){0,2})|(h100):([1-9]\d*)")
# Of a slice: chips along each side where it is flat; GPUs of a node.
_MOST_CHIPS, _MOST_GPUS = 16, 8
_CORES_A_CHIP = {"tpu7x": 2}
EXAMPLES = "v5e:16x16, v5p:8x8x8, v6e:16x16, tpu7x:4x4x4, h100:8"


class TopologyError(ValueError):
    """A topology that cannot be compiled for; says what was found, and what to do."""


@dataclass(frozen=True)
class Topology:
    """devices: all jax devices, slice after slice. chips: TPU7x has two devices a chip, all others one."""

    name: str
    slices: int
    devices: tuple
    accelerator: Accelerator

    @property
    def chips(self) -> int:
        return len(self.devices) // _CORES_A_CHIP.get(self.accelerator.name, 1)

    @property
    def is_tpu(self) -> bool:
        return self.devices[0].platform == "tpu"

    def __str__(self) -> str:
        return self.name if self.slices == 1 else f"{self.slices} slices of {self.name}"


def absent(name: str, slices: int = 1) -> Topology:
    """The devices of a topology for ahead-of-time compilation; no accelerator is needed.

    Raises:
      TopologyError: a name of another form, a shape that does not exist, or a compiler that is not installed.
    """
    match = _FORM.fullmatch(name)
    if match is None:
        raise TopologyError(f"topology {name!r}: expected something like {EXAMPLES}")
    if slices < 1:
        raise TopologyError(f"slices must be at least 1, found {slices}")
    # Read when a compiler is loaded, which is now.
    for variable, value in compiler_environment().items():
        os.environ.setdefault(variable, value)
    jax.config.update("jax_platforms", "cpu")
    if match[3]:
        devices = _gpus(int(match[4]), slices)
    else:
        devices = _tpus(name, slices)
    return Topology(name, slices, tuple(devices), accelerator(devices[0].device_kind))


def _tpus(name: str, slices: int):
    dimensions = name.partition(":")[2].split("x")
    flat = name.startswith(("v5e", "v6e"))
    if len(dimensions) != (2 if flat else 3):
        raise TopologyError(f"topology {name!r}: expected {'2' if flat else '3'} sizes, as in {EXAMPLES}")
    if flat and max(map(int, dimensions)) > _MOST_CHIPS:
        raise TopologyError(
            f"topology {name}: a slice has at most {_MOST_CHIPS}x{_MOST_CHIPS} chips; for more, --slices"
        )
    if importlib.util.find_spec("libtpu") is None:
        raise TopologyError(f"{name}: the TPU compiler is not installed; pip install 'fooddit[aot]' (it needs no TPU)")
    many = {"num_slices": slices} if slices > 1 else {}
    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=name, **many).devices
    except jax.errors.JaxRuntimeError as error:
        raise TopologyError(f"topology {name!r}: the compiler refuses it: {str(error).splitlines()[0]}") from error


def _gpus(count: int, nodes: int):
    if count > _MOST_GPUS:
        raise TopologyError(f"topology h100:{count}: a node has at most {_MOST_GPUS} GPUs; for more, --slices")
    if importlib.util.find_spec("jax_cuda13_plugin") is None:
        raise TopologyError(
            f"h100:{count}: the GPU compiler is not installed; pip install --no-deps jax-cuda13-plugin jax-cuda13-pjrt "
            f"of the version of jax ({jax.__version__}) in an environment of its own (it needs no GPU)"
        )
    shape = f"{nodes}x1x{count}" if nodes > 1 else f"1x1x{count}"
    try:
        return topologies.get_topology_desc(platform="cuda", target_config=h100_target(), topology=shape).devices
    except jax.errors.JaxRuntimeError as error:
        raise TopologyError(f"h100:{count}: the compiler refuses it: {str(error).splitlines()[0]}") from error

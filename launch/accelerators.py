"""What can be launched on: accelerators by the names of this project ("v6e", "h100"), with those of Google Cloud.

Sources: Google Cloud's pages "Plan TPUs in GKE", "TPU software versions" and those of each TPU version; "GPU machine
types" for the H100.
"""

import math
import re
from dataclasses import dataclass

_FORM = re.compile(r"([a-z][a-z0-9]*):([1-9]\d*(?:x[1-9]\d*)*)")
EXAMPLES = "v5e:16x16, v5p:8x8x8, v6e:16x16, tpu7x:4x4x4, h100:8, cpu:2"
_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
# An accelerator type of v5p names a number of TensorCores: only the usual shape of each can be asked for by it.
_V5P = ("2x2x1", "2x2x2", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16", "8x16x16", "16x16x16", "16x16x24")


@dataclass(frozen=True)
class Tpu:
    """gke_label: cloud.google.com/gke-tpu-accelerator. machine: of a host, followed by its chips: ct6e-standard-4t.
    shapes: all that there are; none: any of three sizes that `_solid` takes. accelerator_type: of the Cloud TPU API,
    followed by chips times cores. runtime: its software version; "": that API does not have this TPU.
    """

    gke_label: str
    machine: str
    shapes: tuple[str, ...] = ()
    accelerator_type: str = ""
    cores: int = 1
    runtime: str = ""
    vm_shapes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Gpu:
    """gke_label: cloud.google.com/gke-accelerator. machine: followed by its GPUs: a3-highgpu-8g."""

    gke_label: str
    machine: str
    counts: tuple[int, ...]


TPUS = {
    "v5e": Tpu("tpu-v5-lite-podslice", "ct5lp-hightpu", _FLAT, "v5litepod", 1, "v2-alpha-tpuv5-lite", _FLAT),
    "v5p": Tpu("tpu-v5p-slice", "ct5p-hightpu", (), "v5p", 2, "v2-alpha-tpuv5", _V5P),
    "v6e": Tpu("tpu-v6e-slice", "ct6e-standard", _FLAT, "v6e", 1, "v2-alpha-tpuv6e", _FLAT),
    "tpu7x": Tpu("tpu7x", "tpu7x-standard"),
}
GPUS = {"h100": Gpu("nvidia-h100-80gb", "a3-highgpu", (1, 2, 4, 8))}
# A slice of one chip has a host of its own size. (v5e and v6e have hosts of eight chips besides: a slice of 2x4 can be
# one of them, which Multislice does not take.)
_CHIPS_A_HOST = 4


@dataclass(frozen=True)
class Hardware:
    """A topology taken apart. kind: a key of TPUS or GPUS, or "cpu". shape: "16x16", "8". hosts: of one slice, each
    with `devices` chips or GPUs; a host is one process."""

    kind: str
    shape: str
    hosts: int
    devices: int

    @property
    def is_tpu(self) -> bool:
        return self.kind in TPUS

    @property
    def machine(self) -> str:
        """The machine type of a host on Google Cloud: ct6e-standard-4t, a3-highgpu-8g."""
        if self.is_tpu:
            return f"{TPUS[self.kind].machine}-{self.devices}t"
        return f"{GPUS[self.kind].machine}-{self.devices}g"


def hardware(topology: str) -> Hardware:
    """Takes "v6e:16x16" (chips of a slice), "h100:8" (GPUs of a node) or "cpu:2" (processes on this machine) apart.

    Raises:
      ValueError: another form, or a size that does not exist.
    """
    match = _FORM.fullmatch(topology)
    if match is None or match[1] not in {*TPUS, *GPUS, "cpu"}:
        raise ValueError(f"topology: found {topology!r}, expected something like {EXAMPLES}")
    kind, shape = match.groups()
    sizes = [int(size) for size in shape.split("x")]
    if kind in TPUS:
        _check_shape(topology, TPUS[kind], sizes)
        chips = math.prod(sizes)
        return Hardware(kind, shape, max(1, chips // _CHIPS_A_HOST), min(chips, _CHIPS_A_HOST))
    if len(sizes) > 1:
        raise ValueError(f"topology: found {topology!r}, expected one number, as in {kind}:2")
    if kind == "cpu":
        return Hardware(kind, shape, sizes[0], 1)
    if sizes[0] not in GPUS[kind].counts:
        raise ValueError(
            f"topology: found {topology!r}, expected the GPUs of one node: one of {GPUS[kind].counts}; for more, slices"
        )
    return Hardware(kind, shape, 1, sizes[0])


def _check_shape(topology: str, tpu: Tpu, sizes: list[int]) -> None:
    shape = "x".join(map(str, sizes))
    if tpu.shapes and shape not in tpu.shapes:
        raise ValueError(
            f"topology: found {topology!r}, expected a slice of one of {', '.join(tpu.shapes)}; for more chips, slices"
        )
    if not tpu.shapes and not _solid(sizes):
        raise ValueError(
            f"topology: found {topology!r}, expected 2x2x1, 2x2x2, 2x2x4, 2x4x4 or three multiples of 4 in "
            "ascending order, as in 8x8x16"
        )


def _solid(sizes: list[int]) -> bool:
    """Whether a slice of v5p or TPU7x can have it: part of a cube of 4x4x4 chips, or whole cubes."""
    if len(sizes) != 3:
        return False
    parts = [[2, 2, 1], [2, 2, 2], [2, 2, 4], [2, 4, 4]]
    return sizes in parts or (sizes == sorted(sizes) and all(size % 4 == 0 for size in sizes))

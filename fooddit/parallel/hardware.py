"""What accelerators can do: one table of makers' figures, by the names that JAX gives its devices."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Accelerator:
    """One jax device: a chip, or half of one where a chip is two devices (TPU v3, 7x).

    Attributes:
      kinds: starts of jax's device_kind.
      flops: dense bfloat16 FLOP/s.
      hbm_bytes, hbm_bandwidth: memory, and bytes/s to and from it.
      link_bandwidth: bytes/s out of the device over the fast interconnect (ICI, NVLink), all links, one way.
      network_bandwidth: bytes/s out of the device to other slices or nodes.
      clock: of the vector unit in Hz, where static cycles are turned into time; 0 where none are.
    """

    name: str
    kinds: tuple[str, ...]
    flops: float
    hbm_bytes: float = 0.0
    hbm_bandwidth: float = 0.0
    link_bandwidth: float = 0.0
    network_bandwidth: float = 0.0
    clock: float = 0.0


GIB = float(1 << 30)
# Cloud TPU documentation (system architecture of each version) and NVIDIA's data sheets. Clocks are not published for
# all: v6e's and 7x's follow from the peak and the matrix units (two slots of 8 x 128 x 128 a cycle, measured in the
# compiler's schedules). The first that fits is taken.
ACCELERATORS = (
    Accelerator("v3", ("TPU v3",), 61.5e12),
    Accelerator("v4", ("TPU v4",), 275e12, 32 * GIB, 1.228e12, 300e9, 6.25e9, 1.05e9),
    Accelerator("v5e", ("TPU v5 lite", "TPU v5e"), 197e12, 16 * GIB, 0.82e12, 200e9, 3.125e9, 1.5e9),
    Accelerator("v5p", ("TPU v5",), 459e12, 95 * GIB, 2.765e12, 600e9, 6.25e9, 1.75e9),
    Accelerator("v6e", ("TPU v6 lite", "TPU v6e"), 918e12, 32 * GIB, 1.64e12, 400e9, 12.5e9, 1.75e9),
    Accelerator("tpu7x", ("TPU7x", "TPU v7x"), 1153.5e12, 96 * GIB, 3.69e12, 300e9, 6.25e9, 2.2e9),
    Accelerator("h100-pcie", ("NVIDIA H100 PCIe",), 756e12, 80e9, 2.0e12, 64e9, 25e9),
    Accelerator("h100-nvl", ("NVIDIA H100 NVL",), 835e12, 94e9, 3.9e12, 300e9, 50e9),
    Accelerator("h100", ("NVIDIA H100",), 989e12, 80e9, 3.35e12, 450e9, 50e9),
    Accelerator("h200", ("NVIDIA H200",), 989e12, 141e9, 4.8e12, 450e9, 50e9),
    Accelerator("a100", ("NVIDIA A100",), 312e12, 80e9, 2.0e12, 300e9, 25e9),
)


def accelerator(device_kind: str) -> Accelerator | None:
    """The entry of jax's `device_kind`; None where the table has none."""
    fits = (entry for entry in ACCELERATORS if device_kind.startswith(entry.kinds))
    return next(fits, None)

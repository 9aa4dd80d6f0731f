"""How fast the devices could go: peak FLOP/s from the makers' table, or measured where it has no entry."""

import time
from dataclasses import dataclass
from functools import cache

import jax
import jax.numpy as jnp
from jax.sharding import AxisType

from fooddit.parallel.hardware import accelerator


@dataclass(frozen=True)
class Peak:
    """flops: FLOP/s of all devices together; label: what a share of it is called."""

    flops: float
    label: str


def peak_flops(devices: list[jax.Device] | None = None) -> Peak:
    """Peak of `devices` (default: all of the run).

    Accelerators from a table (bfloat16, dense); the CPU, and accelerators that the table lacks, by a matmul that takes
    under half a second once a process. Several CPU devices of one process share its cores and count once.
    """
    devices = jax.devices() if devices is None else devices
    kind, platform = devices[0].device_kind, devices[0].platform
    if known := accelerator(kind):
        return Peak(known.flops * len(devices), "MFU")
    if platform == "cpu":
        processes = len({device.process_index for device in devices})
        return Peak(_measured(jax.local_devices(backend="cpu")[0], "float32") * processes, "% of CPU peak")
    return Peak(_measured(jax.local_devices()[0], "bfloat16") * len(devices), f"% of measured {kind} peak")


def utilization(flops_per_step: float, seconds: float, peak: Peak) -> float:
    """Share of the peak used by a step of `flops_per_step`: of all devices, analytic, without rematerialisation."""
    return flops_per_step / (seconds * peak.flops)


@cache
def _measured(device: jax.Device, dtype: str, size: int = 1024) -> float:
    """FLOP/s of the fastest of some square matmuls."""
    # On this device alone, whatever mesh the run is on.
    with jax.set_mesh(jax.make_mesh((1,), ("device",), axis_types=(AxisType.Auto,), devices=[device])):
        matrix = jax.device_put(jnp.ones((size, size), dtype), device)
        multiply = jax.jit(jnp.matmul)
        multiply(matrix, matrix).block_until_ready()
        fastest, start = float("inf"), time.perf_counter()
        while time.perf_counter() - start < 0.25:
            begin = time.perf_counter()
            multiply(matrix, matrix).block_until_ready()
            fastest = min(fastest, time.perf_counter() - begin)
    return 2 * size**3 / fastest

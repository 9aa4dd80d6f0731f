"""Is a kernel for the gated residual and the modulated RMSNorm worth it? python benchmarks/tpu_norm.py [--json]

Between two projections of xl's block: y = x + (1 + gate) * (a @ W), then (rms(y) * (1 + scale) + shift) @ V, forward,
as the TPU compiler fuses it, and with a Pallas kernel for what is between the products. Prints for each the static
cycles of the whole schedule and the bytes to and from HBM. Nothing is run; libtpu compiles for a v6e that is not there.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from fooddit.aot.hlo import read_dump
from fooddit.aot.schedule import compiler_environment, read_schedules

TOPOLOGY = "v6e:2x2"
# Pictures a device, tokens, channels in and out, as in stage 1 and in stage 2 on 256 chips.
SHAPES = ((8, 256, 1536, 4096), (2, 1024, 1536, 4096))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        compile_here(**arguments.worker)
        return
    results = []
    for shape in SHAPES:
        for kernel in (False, True):
            results.append({"shape": shape, "kernel": kernel} | compile_apart(shape, kernel))
            if not arguments.json:
                found = results[-1]
                name = "a kernel between them" if kernel else "the compiler's fusions"
                print(f"{shape}: {name}: {found['cycles']:,} cycles, {found['bytes'] / 2**20:.1f} MiB of HBM")
                print(f"    {found['parts']}", flush=True)
    if arguments.json:
        print(json.dumps(results))


def compile_apart(shape: tuple[int, ...], kernel: bool) -> dict:
    """Cycles of all schedules of a program, and its bytes; compiled in a process of its own, whose compiler dumps."""
    with tempfile.TemporaryDirectory() as schedules, tempfile.TemporaryDirectory() as hlo:
        environment = os.environ | compiler_environment(Path(schedules))
        root = str(Path(__file__).resolve().parent.parent)
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (root, environment.get("PYTHONPATH"))))
        job = json.dumps({"shape": shape, "kernel": kernel, "dump": hlo})
        done = subprocess.run(
            [sys.executable, __file__, "--worker", job], env=environment, capture_output=True, text=True
        )
        if done.returncode:
            sys.exit(done.stderr)
        parts = {name: schedule.cycles for name, schedule in read_schedules(Path(schedules)).items()}
        return {"cycles": sum(parts.values()), "bytes": read_dump(Path(hlo)).hbm_bytes(), "parts": parts}


def compile_here(shape: list[int], kernel: bool, dump: str) -> None:
    import jax
    import jax.numpy as jnp
    from jax.experimental import topologies

    from fooddit.models.dit import modulate
    from fooddit.models.layers import rms_normalise

    def fused(x, branch, gate, shift, scale):
        y = x + (1 + gate) * branch
        return y, modulate(rms_normalise(y), shift, scale)

    def block(x, a, w, v, gate, shift, scale):
        y, h = (gated_norm if kernel else fused)(x, a @ w, gate, shift, scale)
        return y, h @ v

    batch, tokens, width, out = shape
    sizes = (batch, tokens, width), (batch, tokens, width), (width, width), (width, out), *[(batch, 1, width)] * 3
    device = topologies.get_topology_desc(platform="tpu", topology_name=TOPOLOGY).devices[0]
    sharding = jax.sharding.SingleDeviceSharding(device)
    arrays = [jax.ShapeDtypeStruct(size, jnp.bfloat16, sharding=sharding) for size in sizes]
    jax.jit(block).lower(*arrays).compile({"xla_dump_to": dump, "xla_dump_hlo_as_text": True})


def gated_norm(x, branch, gate, shift, scale, rows: int = 256, epsilon: float = 1e-6):
    """The residual and its modulated norm, a Pallas kernel that reads x and branch once."""
    import jax
    import jax.numpy as jnp
    from jax.experimental import pallas as pl

    def body(x, branch, gate, shift, scale, y, h):
        wide = lambda ref: ref[0].astype(jnp.float32)
        total = wide(x) + (1 + wide(gate)) * wide(branch)
        y[0] = total.astype(y.dtype)
        unit = total * jax.lax.rsqrt(jnp.mean(total * total, axis=1, keepdims=True) + epsilon)
        h[0] = (unit * (1 + wide(scale)) + wide(shift)).astype(h.dtype)

    batch, tokens, width = x.shape
    block = pl.BlockSpec((1, rows, width), lambda b, i: (b, i, 0))
    row = pl.BlockSpec((1, 1, width), lambda b, i: (b, 0, 0))
    return pl.pallas_call(
        body,
        grid=(batch, tokens // rows),
        in_specs=[block, block, row, row, row],
        out_specs=[block, block],
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype)] * 2,
        cost_estimate=pl.CostEstimate(flops=8 * x.size, transcendentals=x.size // width, bytes_accessed=8 * x.size),
        name="gated_norm",
    )(x, branch, gate, shift, scale)


if __name__ == "__main__":
    main()

"""From a request to its figures: the program is compiled, its kernels measured meanwhile."""

import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from fooddit.aot.request import program

if TYPE_CHECKING:
    from fooddit.aot.figures import Figures


def compile_request(request: dict, *, measure_kernels: bool = True, out: Path | None = None) -> "Figures":
    """The figures of a request: {topology, slices, generate, cached, attention, config_flags}."""
    from fooddit.aot.kernel_cycles import KernelCycles
    from fooddit.aot.operations import kernels

    made, topology = program(request)
    cycles = None
    if measure_kernels and topology.is_tpu and kernels(made.traced.jaxpr.jaxpr):
        cycles = KernelCycles(request | {"topology": topology.name})
    try:
        found = _figures(made, topology, cycles, config=" ".join(request["config_flags"]))
    finally:
        if cycles is not None:
            cycles.stop()
    if out is not None and found.fits:
        _write(made.compile(), topology, out)
    return found


def _figures(made, topology, cycles, **known) -> "Figures":
    """Compiles the program; `cycles` are its kernels', measured meanwhile."""
    from jax.errors import JaxRuntimeError

    from fooddit.aot.figures import does_not_fit, figures
    from fooddit.aot.hlo import read_dump

    with tempfile.TemporaryDirectory(prefix="fooddit-hlo-") as folder:
        dump = Path(folder) if topology.is_tpu else None
        began = time.perf_counter()
        try:
            compiled = made.compile(dump)
        except JaxRuntimeError as error:
            found = does_not_fit(made, str(error), topology, **known)
            if found is None:
                raise
            return found
        known["compile_seconds"] = round(time.perf_counter() - began, 1)
        hlo = None if dump is None else read_dump(dump)
    return figures(made, compiled, topology, hlo, None if cycles is None else cycles.result(), **known)


def _write(compiled, topology, out: Path) -> None:
    """The executable, with a fingerprint of what made it: it loads only where these are the same."""
    from fooddit.aot.executable import save_executable

    save_executable(compiled, str(topology), out)
    print(f"executable: {out}", file=sys.stderr)

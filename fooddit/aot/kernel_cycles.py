"""Static cycles of a program's Pallas kernels: each is compiled alone, by a process whose compiler writes schedules."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from fooddit.aot.schedule import ScheduleError, compiler_environment, read_schedules

_FOLDER = "FOODDIT_SCHEDULES"


class KernelCycles:
    """Cycles of a program's kernels, measured beside its compilation.

    `request` is what `fooddit.aot.request.program` takes, as JSON. The compiler's dump of schedules is chosen
    when it is loaded, and of a whole program it would take minutes: hence another process, and kernels alone.
    """

    def __init__(self, request: dict):
        self._folder = tempfile.mkdtemp(prefix="fooddit-schedules-")
        environment = os.environ | compiler_environment(Path(self._folder)) | {_FOLDER: self._folder}
        command = [sys.executable, "-m", "fooddit.aot.kernel_cycles", json.dumps(request)]
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True
        )

    def result(self) -> dict[str, dict[str, int]]:
        """{kernel: {"calls": a run, "cycles": a call, "cycles_upper"}}. ScheduleError with the process's last line."""
        output, errors = self._process.communicate()
        shutil.rmtree(self._folder, ignore_errors=True)
        if self._process.returncode:
            raise ScheduleError(f"the kernels' schedules: {(errors.strip().splitlines() or ['no message'])[-1]}")
        return json.loads(output.splitlines()[-1])

    def stop(self) -> None:
        """Ends the process if it still runs; nothing is left behind."""
        if self._process.returncode is None:
            self._process.kill()
            self._process.communicate()
        shutil.rmtree(self._folder, ignore_errors=True)


def main() -> None:
    """The process: traces the program again, compiles its kernels one by one, prints their cycles."""
    import jax
    from jax.sharding import SingleDeviceSharding

    from fooddit.aot.operations import kernels
    from fooddit.aot.request import program

    folder = Path(os.environ[_FOLDER])
    made, topology = program(json.loads(sys.argv[1]))
    device, found = SingleDeviceSharding(topology.devices[0]), {}
    for kernel in kernels(made.traced.jaxpr.jaxpr):
        equation = kernel.equation
        shapes = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype, sharding=device) for v in equation.invars]

        def run(*arrays, equation=equation):
            return equation.primitive.bind(*arrays, **equation.params)

        # The schedule is named after the function that holds nothing but the kernel.
        run.__name__ = kernel.name
        jax.jit(run).lower(*shapes).compile()
        schedules = list(read_schedules(folder, kernel.name).values())
        if len(schedules) != 1:
            raise ScheduleError(f"kernel {kernel.name}: expected one schedule, found {[s.name for s in schedules]}")
        # Forward it gives the result, backward the queries' gradient first: (batch, tokens, width).
        name = f"{kernel.name} {'x'.join(map(str, equation.outvars[0].aval.shape))}"
        found[name] = {
            "calls": kernel.times,
            "cycles": schedules[0].cycles,
            "cycles_upper": schedules[0].cycles_upper,
        }
        for path in folder.iterdir():
            path.unlink()
    print(json.dumps(found))


if __name__ == "__main__":
    main()

"""fooddit compile: a config's program for hardware that is not there, with what it needs and how fast it could run."""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from fooddit.config import ConfigError

if TYPE_CHECKING:
    from fooddit.aot.figures import Figures


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "Flags of the config as with main.py: --config=FILE[:variant] --config.KEY=VALUE"
    parser.set_defaults(takes_config=True)
    parser.add_argument("--topology", help="v6e:16x16, v5p:8x8x8, h100:8 ...; default: what the config names")
    parser.add_argument("--slices", type=int, default=1, help="TPU slices (GPU nodes), data-parallel over the network")
    parser.add_argument("--generate", type=int, metavar="BATCH", help="the sampler of so many pictures, not the step")
    parser.add_argument("--cached", action="store_true", help="latents and captions' features come from a cache")
    parser.add_argument("--attention", choices=("auto", "pallas_tpu", "cudnn", "xla"), help="default: the config's")
    parser.add_argument("--no-kernels", action="store_true", help="leave the kernels' static cycles out (quicker)")
    parser.add_argument("--json", action="store_true", help="figures as one line of JSON")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the serialized executable (compiles twice)")
    parser.add_argument(
        "--sweep", action="store_true", help="try batch sizes, remat policies and meshes; print the best"
    )


def run(args: argparse.Namespace) -> int:
    """Exit code 1 if the program does not fit the devices' memory."""
    from fooddit.aot.report import report
    from fooddit.aot.sweep import sweep

    _check(args)
    request = {
        name: getattr(args, name) for name in ("topology", "slices", "generate", "cached", "attention", "config_flags")
    }
    if args.sweep:
        return sweep(request, as_json=args.json)
    found = compile_request(request, measure_kernels=not args.no_kernels, out=args.out)
    print(json.dumps(found.to_dict()) if args.json else report(found))
    return 0 if found.fits else 1


def _check(args: argparse.Namespace) -> None:
    """ConfigError for options that cannot be, before anything is loaded that takes time."""
    if args.generate is not None and args.generate < 1:
        raise ConfigError(f"--generate must be at least 1, found {args.generate}")
    if args.cached and args.generate:
        raise ConfigError("--cached is of the train step: a prompt is in no cache")
    if args.sweep and (args.generate or args.out):
        raise ConfigError("--sweep is of the train step: without --generate and --out")
    if args.out is not None and args.out.is_dir():
        raise ConfigError(f"--out={args.out} is a folder, expected a file")


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


def program(request: dict):
    """(the traced program, its topology) of a request."""
    from fooddit.config_file import read_experiment

    # Both before JAX makes a backend of its own.
    experiment = read_experiment(request["config_flags"])
    topology = named_topology(request, experiment)

    from fooddit.aot.program import sampler, train_step, with_attention
    from fooddit.kernels.dispatch import Unsupported

    if request["attention"]:
        experiment = with_attention(experiment, request["attention"])
    try:
        if request["generate"]:
            return sampler(experiment, topology, request["generate"]), topology
        return train_step(experiment, topology, cached=request["cached"]), topology
    except Unsupported as reason:
        raise ConfigError(str(reason)) from reason


def named_topology(request: dict, experiment):
    """What the command asks for, else what the config is meant for. ConfigError if neither names one."""
    from fooddit.aot.topology import EXAMPLES, absent

    name = request["topology"] or experiment.topology
    if not name:
        raise ConfigError(f"--topology is missing, and config.topology is empty; give one of {EXAMPLES}")
    return absent(name, request["slices"])


def _write(compiled, topology, out: Path) -> None:
    """The executable, with a fingerprint of what made it: it loads only where these are the same."""
    from fooddit.aot.executable import save_executable

    save_executable(compiled, str(topology), out)
    print(f"executable: {out}", file=sys.stderr)

"""fooddit compile: a config's program for hardware that is not there, with what it needs and how fast it could run."""

import argparse
import json
from pathlib import Path

from fooddit.config import ConfigError


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
    from fooddit.aot.compilation import compile_request
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

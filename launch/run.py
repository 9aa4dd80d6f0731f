"""Launches a run: python launch/run.py TARGET --config=FILE --workdir=gs://BUCKET/RUN [--config.KEY=VALUE ...].

Without --submit it prints what it would hand over and does nothing, so that its output can be looked at, kept or piped.
The config is built first: a flag that main.py would refuse is refused here, before any machine is asked for.
"""

import argparse
import math
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    # Not this folder, where Python would look first: its files are of the package `launch`.
    sys.path[0] = str(ROOT)

# ruff: noqa: E402
from launch.accelerators import EXAMPLES
from launch.spec import USES, LaunchSpec, SpecError, check, command

_HINTS = {
    "kubectl": "see `kubectl config current-context` for the cluster it spoke to; a JobSet needs its controller there",
    "sbatch": "the site may want --partition, --account or --time-limit",
    "gcloud": "see `gcloud config list` for the account and project that it used",
}
# As JAX counts them.
_DEVICES_A_CHIP = {"tpu7x": 2}
_NOT_FOUND = 127  # As a shell has it.


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints or submits; a mistake in the arguments or the config is one line on stderr and exit code 2."""
    try:
        args = parse(arguments)
        spec = spec_of(args)
        text = rendered(args.target, spec)
        return _submit(args, spec, text) if args.submit else _show(args, spec, text)
    except (ValueError, OSError) as error:
        _say(str(error))
        return 2


class _Parser(argparse.ArgumentParser):
    """argparse, whose errors are one line here."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"launch: {message}; see --help\n")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments; `config_flags` holds --config and --config.KEY=VALUE as given. Exits with 2 for an unknown one."""
    parser = _Parser(prog="launch/run.py", description=__doc__.split("\n\n")[0], allow_abbrev=False)
    parser.epilog = "Flags of the config as with main.py: --config=FILE[:variant] --config.KEY=VALUE"
    add = parser.add_argument
    add("target", choices=sorted(USES), metavar="TARGET", help=", ".join(sorted(USES)))
    add("--workdir", required=True, help="folder of checkpoints; gs://BUCKET/FOLDER where machines come and go")
    add("--name", help="of the run, the same each time it is launched; default: of the workdir's last part")
    add("--topology", help=f"{EXAMPLES}; default: what the config names")
    add("--slices", type=int, help="TPU slices, or GPU nodes")
    add("--image", help="container image, built by launch/Dockerfile (gke, tpu-vm)")
    add("--queue", help="Kueue's LocalQueue (gke)")
    add("--namespace", help="of the cluster (gke)")
    add("--service-account", help="of Kubernetes (gke), or an account's address (tpu-vm)")
    add("--host-network", action="store_true", default=None, help="pods in their nodes' network (gke)")
    add("--project", help="of Google Cloud (tpu-vm)")
    add("--zone", help="of Google Cloud (tpu-vm)")
    add("--capacity", help="on-demand, spot or a reservation's name (gke, tpu-vm)")
    add("--priority-class", help="of the pods (gke)")
    add("--partition", help="(slurm)")
    add("--account", help="(slurm)")
    add("--time-limit", help="as sbatch takes it: 1-00:00:00 (slurm)")
    add("--max-restarts", type=int, help="how often a run that asks for it, or dies of a signal, is started again")
    add("--grace-seconds", type=int, help="between SIGTERM and SIGKILL, for the save")
    add("--env", action="append", metavar="NAME=VALUE", help="a variable of every process; may be repeated")
    add("--out", type=Path, metavar="FILE", help="write what is rendered to FILE")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--submit", action="store_true", help="hand it over")
    action.add_argument("--dry-run", action="store_true", help="only print (so does a command without --submit)")
    args, args.config_flags = parser.parse_known_args(arguments)
    for flag in args.config_flags:
        if not re.match(r"--config(=|\.[^=]+=)", flag):
            parser.error(f"found {flag!r}, expected --config=FILE, --config.KEY=VALUE or an option of this command")
    return args


def spec_of(args: argparse.Namespace) -> LaunchSpec:
    """What the arguments say, with the config's own topology where they name none.

    Raises:
      ConfigError, SpecError: a config or an option that cannot be used.
    """
    from fooddit.config_file import read_experiment

    files = [flag.partition("=")[2] for flag in args.config_flags if flag.startswith("--config=")]
    flags = [flag for flag in args.config_flags if not flag.startswith("--config=")]
    if len(files) != 1:
        raise SpecError(f"--config: found it {len(files)} times, expected --config=FILE once")
    config, here = _config_file(files[0])
    experiment = read_experiment([f"--config={here}", *flags])
    local = args.target == "local"
    given = {field: getattr(args, field, None) for field in LaunchSpec.__dataclass_fields__ if field != "config_flags"}
    given |= {
        "config": config,
        "config_flags": tuple(flags),
        "workdir": _workdir(args.workdir, on_disk=args.target in ("local", "slurm")),
        "topology": args.topology or ("cpu:1" if local else experiment.topology),
        "env": tuple(_variable(text) for text in args.env or ()),
    }
    given["name"] = args.name or _name(given["workdir"])
    if not args.name and not re.match("[a-z]", given["name"]):
        raise SpecError(
            f"name: --workdir={args.workdir} ends with nothing that a name could be made of; give --name, a DNS label "
            "as in stage1-lr3"
        )
    if not given["topology"]:
        raise SpecError(f"topology: config.topology is empty; give --topology, one of {EXAMPLES}")
    spec = LaunchSpec(**{field: value for field, value in given.items() if value is not None})
    _check_mesh(experiment, spec)
    return spec


def _check_mesh(experiment, spec: LaunchSpec) -> None:
    """ConfigError for a mesh or a batch that the devices cannot share, before there are any."""
    from fooddit.config import ConfigError
    from fooddit.parallel.mesh import AXES, axis_sizes
    from fooddit.parallel.rules import RULES

    hardware, slices = spec.hardware, 1 if spec.hardware.kind == "cpu" else spec.slices
    count = hardware.hosts * hardware.devices * _DEVICES_A_CHIP.get(hardware.kind, 1) * spec.slices
    try:
        sizes = dict(zip(AXES, axis_sizes(experiment.mesh, count, experiment.mesh.slice or slices)))
    except ValueError as error:
        raise ConfigError(f"{spec.topology}, {spec.slices} of it: {error}") from error
    shares = math.prod(sizes[axis] for axis in RULES["batch"])
    if experiment.data.batch_size % shares:
        raise ConfigError(
            f"config.data.batch_size: {experiment.data.batch_size} examples cannot be shared evenly by {shares} "
            f"devices of {spec.topology}; give a multiple"
        )


def rendered(target: str, spec: LaunchSpec) -> str:
    """What is handed over: YAML, a batch script, or commands. Pure."""
    if target == "gke":
        from launch.gke import render
    elif target == "slurm":
        from launch.slurm import render
    elif target == "tpu-vm":
        from launch.tpu_vm import render
    else:
        from launch.local import Local, commands

        check(spec, "local", kinds=("cpu",))
        local = Local(tuple(command(spec, "")), spec.hardware.hosts)
        variables = {"JAX_PLATFORMS": "cpu", **dict(spec.env)}
        before = " ".join(f"{name}={shlex.quote(value)}" for name, value in variables.items())
        return "".join(f"{before} {shlex.join(line)}\n" for line in commands(local, port=8476))
    return render(spec)


def submission(target: str, spec: LaunchSpec, path: str) -> list[list[str]]:
    """The commands that hand the text in the file `path` over, one after the other."""
    from launch import gke, slurm, tpu_vm

    if target == "gke":
        return gke.apply_commands(spec, path)
    return slurm.submit_commands(spec, path, str(ROOT)) if target == "slurm" else tpu_vm.commands(spec)


def _show(args: argparse.Namespace, spec: LaunchSpec, text: str) -> int:
    if args.out:
        args.out.write_text(text, encoding="utf-8")
    else:
        print(text, end="", flush=True)
    path = str(args.out or f"{spec.name}.{'yaml' if args.target == 'gke' else 'sh'}")
    if args.target == "gke":
        from launch.gke import summary

        _say(f"the cluster has to have {summary(spec)}")
    if args.target in ("gke", "slurm"):
        for step in submission(args.target, spec, path):
            _say(f"--submit would run: {shlex.join(step)}")
    else:
        _say("--submit would run this")
    if args.target != "local":
        _say("to look at it then, and to end it:")
        _print_follow_up(args.target, spec)
    return 0


def _submit(args: argparse.Namespace, spec: LaunchSpec, text: str) -> int:
    if args.out:
        args.out.write_text(text, encoding="utf-8")
    if args.target == "local":
        from launch.local import run

        return run(spec)
    with tempfile.TemporaryDirectory(prefix="fooddit-launch-") as folder:
        path = args.out or Path(folder) / f"{spec.name}.{'yaml' if args.target == 'gke' else 'sh'}"
        path.write_text(text, encoding="utf-8")
        code = _execute(submission(args.target, spec, str(path)))
    if code == 0:
        _say("submitted; to look at it, and to end it:")
        _print_follow_up(args.target, spec)
    return code


def _execute(commands: list[list[str]]) -> int:
    """Runs them to the first that fails; its exit code. What they write is passed on as it comes."""
    # sbatch gives the job the PATH that it finds: `python` is then the one of this environment.
    env = {**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])}
    for step in commands:
        _say(f"$ {shlex.join(step)}")
        try:
            code = subprocess.run(step, env=env).returncode
        except FileNotFoundError:
            _say(f"{step[0]} is not installed, or not on PATH; install it, or launch where it is")
            return _NOT_FOUND
        if code:
            code = code if code > 0 else 128 - code
            tool = "gcloud" if step[0] == "bash" else step[0]
            _say(f"{tool} failed with exit code {code}, its own words are above; {_HINTS[tool]}")
            return code
    return 0


def _print_follow_up(target: str, spec: LaunchSpec) -> None:
    from launch import gke, slurm, tpu_vm

    module = {"gke": gke, "slurm": slurm, "tpu-vm": tpu_vm}[target]
    for step in module.follow_up(spec):
        print(f"  {shlex.join(step)}", file=sys.stderr)


def _config_file(given: str) -> tuple[str, str]:
    """(as launched processes name it, as it is found from here): from the root of the checkout or of the image."""
    file, colon, variant = given.partition(":")
    found = next((path for path in (Path(file), ROOT / file) if path.is_file()), None)
    if found is None:
        raise SpecError(f"--config: found no file {file!r}, here or in the root of the checkout")
    path = found.resolve()
    if not path.is_relative_to(ROOT):
        raise SpecError(f"--config: {file} is outside of the checkout, where no launched process finds it; copy it in")
    return path.relative_to(ROOT).as_posix() + colon + variant, f"{path}{colon}{variant}"


def _workdir(given: str, on_disk: bool) -> str:
    return given if "://" in given or not on_disk else os.path.abspath(os.path.expanduser(given))


def _name(workdir: str) -> str:
    """A DNS label of the last part of a path: "gs://bucket/Stage1_a" is stage1-a."""
    return re.sub(r"[^a-z0-9]+", "-", workdir.rstrip("/").rpartition("/")[2].lower()).strip("-")[:40].strip("-")


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise SpecError(f"--env: found {text!r}, expected NAME=VALUE")
    return name, value


def _say(text: str) -> None:
    print(f"launch: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    from fooddit.streams import open_streams

    open_streams()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.exit(main())

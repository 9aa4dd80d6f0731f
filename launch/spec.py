"""What is launched, said once: a LaunchSpec, which every target renders in its own way."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields

from launch.accelerators import Hardware, hardware

# Pods get longer names from it, of at most 63 characters: NAME-slice-123-1234-abcde.
_LONGEST_NAME = 40
_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_CONFIG = re.compile(r"[^:\0]+\.py(:[\w.-]+)?")
_SLURM_TIME = re.compile(r"(\d+-)?\d+(:\d\d){0,2}")
_EVERYWHERE = {"name", "config", "config_flags", "workdir", "topology", "env", "max_restarts"}
_CLUSTER = _EVERYWHERE | {"slices", "grace_seconds"}
# What each target makes use of. A field that a target would ignore is an error there, not a surprise later.
USES = {
    "local": _EVERYWHERE,
    "gke": _CLUSTER | {"image", "queue", "namespace", "service_account", "host_network", "capacity", "priority_class"},
    "slurm": _CLUSTER | {"partition", "account", "time_limit"},
    "tpu-vm": _CLUSTER | {"image", "service_account", "project", "zone", "capacity"},
}


class SpecError(ValueError):
    """A launch that cannot be: names the field, what was found, what was expected and what to do."""


@dataclass(frozen=True, kw_only=True)
class LaunchSpec:
    """One run on one target.

    Attributes:
      name: of the run, the same each time it is started again; a DNS label.
      config, config_flags: as main.py takes them: "configs/stage1.py:quick", ("--config.train.steps=3",).
      workdir: of checkpoints and metrics; where machines come and go, at gs://.
      topology: of one slice or node: "v6e:16x16", "h100:8"; "cpu:2" for two processes here.
      slices: TPU slices, or GPU nodes.
      image: of the container, made by launch/Dockerfile.
      queue, namespace, priority_class: Kueue's LocalQueue, and where in the cluster.
      service_account: of Kubernetes (gke), or a Google Cloud account's address (tpu-vm).
      host_network: pods in the network of their nodes: more bandwidth between slices. GKE then gives them the node's
        credentials, whatever service_account says.
      project, zone: of Google Cloud.
      capacity: "on-demand", "spot", or the name of a reservation.
      partition, account, time_limit: of Slurm; a time as sbatch takes it, "1-00:00:00".
      max_restarts: how often a run that asks for it, or dies of a signal, is started again.
      grace_seconds: between SIGTERM and SIGKILL, for the save. Twice what a save takes is a good choice.
      env: variables of every process: (("NAME", "value"), ...).

    Raises:
      SpecError: a value that no target could use.
    """

    name: str
    config: str
    workdir: str
    topology: str
    config_flags: tuple[str, ...] = ()
    slices: int = 1
    image: str = ""
    queue: str = ""
    namespace: str = "default"
    service_account: str = ""
    host_network: bool = False
    project: str = ""
    zone: str = ""
    capacity: str = "on-demand"
    priority_class: str = ""
    partition: str = ""
    account: str = ""
    time_limit: str = ""
    max_restarts: int = 100
    grace_seconds: int = 120
    env: tuple[tuple[str, str], ...] = ()

    def __post_init__(self):
        self._check_types()
        _expect(_LABEL.fullmatch(self.name) and len(self.name) <= _LONGEST_NAME, "name", self.name, _label_form())
        _expect(_LABEL.fullmatch(self.namespace), "namespace", self.namespace, "a DNS label, as in team-vision")
        _expect(_CONFIG.fullmatch(self.config), "config", self.config, "FILE.py or FILE.py:variant")
        _expect(self.workdir.strip(), "workdir", self.workdir, "a folder, or an address such as gs://bucket/run")
        _expect(_LABEL.fullmatch(self.capacity), "capacity", self.capacity, "on-demand, spot or a reservation's name")
        _expect(
            not self.time_limit or _SLURM_TIME.fullmatch(self.time_limit), "time_limit", self.time_limit, "1-00:00:00"
        )
        _expect(self.slices >= 1, "slices", self.slices, "1 or more")
        _expect(self.max_restarts >= 0, "max_restarts", self.max_restarts, "0 or more")
        _expect(1 <= self.grace_seconds <= 3600, "grace_seconds", self.grace_seconds, "1 to 3600")
        for flag in self.config_flags:
            _expect(flag.startswith("--config.") and "=" in flag, "config_flags", flag, "--config.KEY=VALUE")
        for pair in self.env:
            good = isinstance(pair, tuple) and len(pair) == 2 and all(isinstance(part, str) for part in pair)
            _expect(good and _VARIABLE.fullmatch(pair[0]), "env", pair, '("NAME", "value")')
        try:
            hardware(self.topology)
        except ValueError as error:
            raise SpecError(str(error)) from None

    def _check_types(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            kind = tuple if field.name in ("config_flags", "env") else field.type
            good = isinstance(value, kind) and isinstance(value, bool) == (kind is bool)
            _expect(good, field.name, value, f"a {kind.__name__}")
            if isinstance(value, str) and field.name not in ("config", "workdir"):
                _expect(not re.search(r"\s", value), field.name, value, "no spaces")
            controls = isinstance(value, str) and re.search(r"[\x00-\x1f\x7f]", value)
            _expect(not controls, field.name, value, "one line of text")

    @property
    def hardware(self) -> Hardware:
        return hardware(self.topology)


def command(spec: LaunchSpec, distributed: str = "auto") -> list[str]:
    """What every process runs, in the root of a checkout. distributed: how it finds the others, as main.py takes it;
    "auto": by what its environment says; "": there are no others."""
    return ["python", "main.py", *arguments(spec), *([f"--distributed={distributed}"] if distributed else [])]


def arguments(spec: LaunchSpec) -> list[str]:
    """The flags of main.py that are the same for every target."""
    return [f"--config={spec.config}", *spec.config_flags, f"--workdir={spec.workdir}"]


def environment(spec: LaunchSpec) -> dict[str, str]:
    """Variables of every process. Compiled programs are kept where they outlive the machine: beside the run."""
    kept = {"JAX_COMPILATION_CACHE_DIR": spec.workdir.rstrip("/") + "/compiled"} if at_cloud(spec) else {}
    return kept | dict(spec.env)


def at_cloud(spec: LaunchSpec) -> bool:
    return spec.workdir.startswith("gs://")


def check(spec: LaunchSpec, target: str, needs: Sequence[str] = (), kinds: Sequence[str] = ()) -> None:
    """SpecError where `target` lacks a field of `needs`, would ignore one that is set, or has no such accelerator."""
    for name in needs:
        if not getattr(spec, name):
            raise SpecError(f"{name} is missing, and {target} needs it; give --{name.replace('_', '-')}=...")
    for field in fields(spec):
        value = getattr(spec, field.name)
        if field.name not in USES[target] and value != field.default:
            raise SpecError(
                f"{field.name}: found {value!r}, but {target} makes no use of it; leave it away "
                f"({target} takes {', '.join(sorted(USES[target]))})"
            )
    if spec.hardware.kind not in kinds:
        raise SpecError(
            f"topology: found {spec.topology!r}, but {target} launches on {', '.join(kinds)} only; "
            f"try {', '.join(others) if (others := _targets_of(spec.hardware)) else 'another topology'}"
        )


def check_cloud(spec: LaunchSpec, target: str) -> None:
    """SpecError for a workdir on a disk that goes with its machine."""
    if not at_cloud(spec):
        raise SpecError(
            f"workdir: found {spec.workdir!r}, expected gs://BUCKET/FOLDER: the machines of {target} come and "
            "go with all that is on their disks"
        )


def _targets_of(found: Hardware) -> list[str]:
    if found.kind == "cpu":
        return ["local"]
    return ["gke"] + ([] if found.kind == "tpu7x" else ["tpu-vm"] if found.is_tpu else ["slurm"])


def _label_form() -> str:
    return f"a DNS label of at most {_LONGEST_NAME} characters: a to z, 0 to 9 and hyphens, as in stage1-lr3"


def _expect(good: object, name: str, found: object, expected: str) -> None:
    if not good:
        raise SpecError(f"{name}: found {found!r}, expected {expected}")

"""A run on TPU VMs of the Cloud TPU API: a queued resource, and the image as a container on every worker.

Google calls this API legacy (bug fixes only) and does not support it for TPU7x: for a new project, see launch/gke.py.

Each worker restarts its own container, in a systemd service that outlives the connection: no machine has to stay on for
the run, and `systemctl stop` gives it SIGTERM and the time to save. The processes of a run end together, whatever ends
one of them, and begin together again. A slice that is taken away (spot, maintenance) takes the service with it:
delete the queued resource and launch again, with the same workdir.

Sources: `gcloud compute tpus queued-resources create --help`, Google Cloud's "Manage queued resources", "Consume a
reservation" and "Run TPU workloads in a Docker container".
"""

import math
import re
import shlex

from launch.accelerators import TPUS
from launch.spec import LaunchSpec, SpecError, arguments, check, check_cloud, environment

# Registries that a TPU VM's own service account can read from, by gcloud's credential helper.
_GOOGLE_REGISTRY = re.compile(r"([a-z0-9-]+-docker\.pkg\.dev|([a-z]+\.)?gcr\.io)/")
# Seconds before a worker tries again. After 42 all processes have ended within seconds. After a signal the others learn
# of it by its missing heartbeat (100 s, config.train.heartbeat_seconds), and what comes too early meets the old run.
_PAUSE, _PATIENCE = 10, 150

_WAIT = """\
while true; do
  state=$({describe}) || exit
  case $state in
    ACTIVE) exit 0 ;;
    FAILED | SUSPENDING | SUSPENDED) echo "launch: the queued resource {name} is $state" >&2; exit 1 ;;
  esac
  sleep 30
done"""

_WORKER = """\
stopping=0
trap 'stopping=1' TERM
code=0
for ((restart = 0; restart <= {most} && !stopping; restart++)); do
  docker rm --force {name} > /dev/null 2>&1
  code=0
  {docker} || code=$?
  echo "launch: attempt $restart ended with exit code $code"
  if (( stopping || (code >= 0 && code <= {last}) )); then
    exit "$code"
  fi
  sleep $(( code == {again} ? {pause} : {patience} ))
done
echo "launch: started again $(( restart - 1 )) times, given up"
exit "$code"
"""


def commands(spec: LaunchSpec) -> list[list[str]]:
    """Asks for the slices, waits for them, and starts the run on each. SpecError for what this API cannot run."""
    check(spec, "tpu-vm", needs=("image", "zone"), kinds=[kind for kind, tpu in TPUS.items() if tpu.runtime])
    check_cloud(spec, "tpu-vm")
    _check_shape(spec)
    wait = _WAIT.format(describe=shlex.join(_describe(spec)), name=spec.name)
    return [_create(spec), ["bash", "-c", wait], *(_ssh(spec, node, remote_command(spec)) for node in _nodes(spec))]


def follow_up(spec: LaunchSpec) -> list[list[str]]:
    """How the run is then looked at, and ended: its log on worker 0, its stop on all, and the machines given back."""
    first = _nodes(spec)[0]
    log = ["gcloud", "compute", "tpus", "tpu-vm", "ssh", first, *_where(spec), "--worker=0"]
    return [
        [*log, f"--command=sudo journalctl --unit={spec.name} --follow"],
        *(_ssh(spec, node, f"sudo systemctl stop {spec.name}") for node in _nodes(spec)),
        ["gcloud", "compute", "tpus", "queued-resources", "delete", spec.name, *_where(spec), "--force", "--quiet"],
    ]


def render(spec: LaunchSpec) -> str:
    """The commands as a shell would take them, one after the other."""
    return "".join(shlex.join(command) + "\n" for command in commands(spec))


def worker_script(spec: LaunchSpec) -> str:
    """What a worker runs until the run is done: the container, again after 42 and after a signal, not after 1 to 41."""
    from launch.exit_codes import MENDABLE, RESTART

    return _WORKER.format(
        name=spec.name,
        docker=shlex.join(_docker_run(spec)),
        most=spec.max_restarts,
        last=MENDABLE[-1],
        again=RESTART,
        pause=_PAUSE,
        patience=_PATIENCE,
    )


def remote_command(spec: LaunchSpec) -> str:
    """What is said to a worker's shell: fetches the image, and leaves the script to systemd."""
    # As a file: systemd would take a dollar sign in a command for a variable of its own.
    path = f"/tmp/{spec.name}.sh"
    steps = []
    if match := _GOOGLE_REGISTRY.match(spec.image):
        steps.append(["sudo", "gcloud", "auth", "configure-docker", match[1], "--quiet"])
    steps.append(["sudo", "docker", "pull", spec.image])
    service = ["sudo", "systemd-run", f"--unit={spec.name}", "--collect"]
    # docker has the grace period; systemd kills what is left a little later.
    service += [f"--property=TimeoutStopSec={spec.grace_seconds + _PAUSE}", "bash", path]
    write = f"printf %s {shlex.quote(worker_script(spec))} > {path}"
    return " && ".join([*map(shlex.join, steps), write, shlex.join(service)])


def _check_shape(spec: LaunchSpec) -> None:
    known = TPUS[spec.hardware.kind].vm_shapes
    if spec.hardware.shape not in known:
        raise SpecError(
            f"topology: found {spec.topology!r}, but an accelerator type names only a number of chips, and "
            f"tpu-vm would get another shape; expected one of {', '.join(known)}"
        )


def _where(spec: LaunchSpec) -> list[str]:
    return [f"--zone={spec.zone}", *([f"--project={spec.project}"] if spec.project else [])]


def _nodes(spec: LaunchSpec) -> list[str]:
    """The names of the slices, as --node-prefix numbers them."""
    return [spec.name] if spec.slices == 1 else [f"{spec.name}-{i}" for i in range(spec.slices)]


def _create(spec: LaunchSpec) -> list[str]:
    tpu, chips = TPUS[spec.hardware.kind], math.prod(map(int, spec.hardware.shape.split("x")))
    reserved = spec.capacity not in ("on-demand", "spot")
    # Only gcloud alpha can name a reservation.
    create = ["gcloud", *(["alpha"] if reserved else []), "compute", "tpus", "queued-resources", "create", spec.name]
    create += [*_where(spec), f"--accelerator-type={tpu.accelerator_type}-{chips * tpu.cores}"]
    create += [f"--runtime-version={tpu.runtime}"]
    if spec.slices == 1:
        create.append(f"--node-id={spec.name}")
    else:
        create += [f"--node-count={spec.slices}", f"--node-prefix={spec.name}"]
    if spec.capacity == "spot":
        create.append("--spot")
    elif reserved:
        create.append(f"--reservation={spec.capacity}")
    return create + ([f"--service-account={spec.service_account}"] if spec.service_account else [])


def _describe(spec: LaunchSpec) -> list[str]:
    describe = ["gcloud", "compute", "tpus", "queued-resources", "describe", spec.name, *_where(spec)]
    return [*describe, "--format=value(state.state)"]


def _ssh(spec: LaunchSpec, node: str, remote: str) -> list[str]:
    ssh = ["gcloud", "compute", "tpus", "tpu-vm", "ssh", node, *_where(spec), "--worker=all"]
    return [*ssh, f"--command={remote}"]


def _docker_run(spec: LaunchSpec) -> list[str]:
    # The TPU's device files need root and a privileged container; JAX finds the others on the host's network.
    run = ["docker", "run", "--rm", f"--name={spec.name}", "--privileged", "--net=host", "--user=root"]
    run += [f"--stop-timeout={spec.grace_seconds}"]
    run += [f"--env={name}={value}" for name, value in environment(spec).items()]
    return [*run, spec.image, *arguments(spec), "--distributed=auto"]

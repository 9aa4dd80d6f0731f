"""A run as a batch job of Slurm, on nodes with GPUs: one process a node, in a checkout that all nodes see.

How a run stops early and comes back:

- Ahead of the time limit Slurm sends SIGTERM to every process itself (--signal without "B:"). It must not go through
  srun, which answers a SIGTERM of its own by killing its tasks (srun_job.c, "forcing job termination").
- Processes save and end one after the other, so that srun gives the others time when the first has ended (--wait) and
  does not kill them at once (--kill-on-bad-exit=0).
- The script then puts the job back into the queue, unless the exit code asks for a person. SLURM_RESTART_COUNT counts.
- When the script itself hears SIGTERM, Slurm is ending the job: scancel, or preemption. Whether it comes back is then
  Slurm's to say. srun hears it too, so that this save may be cut off; the periodic one is the guarantee.

Sources: the manual pages of sbatch, srun and scontrol; jax/_src/clusters/slurm_cluster.py for what JAX reads.
"""

import shlex

from launch.accelerators import GPUS
from launch.spec import LaunchSpec, check, command, environment

_AFTER = r"""

ended=0
trap 'ended=1' TERM
code=0
{srun} || code=$?
if (( code == 0 )); then
  exit 0
fi
printf 'launch: the run ended with '
python -c 'import sys; from launch.exit_codes import explain; print(explain(int(sys.argv[1])))' "$code"
restarts=${{SLURM_RESTART_COUNT:-0}}
if (( ended )); then
  echo "launch: Slurm ends this job; it is not put back into the queue from here"
elif (( code >= {first} && code <= {last} )); then
  echo "launch: not started again: mend it, then submit it again"
elif (( restarts >= {most} )); then
  echo "launch: started again $restarts times, given up"
else
  echo "launch: restart $(( restarts + 1 )) of at most {most}"
  exec scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
"""


def render(spec: LaunchSpec) -> str:
    """The batch script. SpecError for what Slurm cannot run."""
    from launch.exit_codes import MENDABLE

    check(spec, "slurm", kinds=tuple(GPUS))
    # JAX would give a Slurm task only the GPU of its number on the node.
    variables = {"JAX_LOCAL_DEVICE_IDS": ",".join(map(str, range(spec.hardware.devices)))} | environment(spec)
    after = _AFTER.format(srun=shlex.join(_srun(spec)), first=MENDABLE[0], last=MENDABLE[-1], most=spec.max_restarts)
    exports = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    options = [f"#SBATCH {option}" for option in _options(spec)]
    return (
        "\n".join(["#!/bin/bash", "# Rendered by launch/slurm.py, which says why it is so.", *options, "", *exports])
        + after
    )


def submit_commands(spec: LaunchSpec, path: str, checkout: str) -> list[list[str]]:
    """The commands that hand the rendered file at `path` over. checkout: the folder of main.py, as the nodes see it."""
    return [["sbatch", f"--chdir={checkout}", path]]


def follow_up(spec: LaunchSpec) -> list[list[str]]:
    """How the run is then looked at, and ended."""
    return [["squeue", f"--name={spec.name}"], ["scancel", f"--name={spec.name}"]]


def _options(spec: LaunchSpec) -> list[str]:
    options = [
        f"--job-name={spec.name}",
        f"--nodes={spec.slices}",
        "--ntasks-per-node=1",
        f"--gpus-per-node={spec.hardware.devices}",
        # Nodes as a whole: all their cores read data for the GPUs.
        "--exclusive",
        "--mem=0",
        "--requeue",
        "--open-mode=append",
        f"--output={spec.name}-%j.log",
        f"--signal=TERM@{spec.grace_seconds}",
    ]
    given = {"partition": spec.partition, "account": spec.account, "time": spec.time_limit}
    return options + [f"--{name}={value}" for name, value in given.items() if value]


def _srun(spec: LaunchSpec) -> list[str]:
    # Unbound: a task of one process would get one core.
    return ["srun", "--kill-on-bad-exit=0", f"--wait={spec.grace_seconds}", "--cpu-bind=none", *command(spec)]

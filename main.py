"""Trains what a config describes: python main.py --config=configs/stage1.py --workdir=runs/stage1."""

import time

_STARTED = time.time()  # Before all that takes time: what a run's ledger of time begins with.

# ruff: noqa: E402
import signal

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Until a run has something to save, Ctrl-C needs no traceback.

import json
import os
import re
import sys
import traceback
from contextlib import contextmanager, redirect_stdout
from functools import partial
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

from fooddit.config_file import experiment_of, explain

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "The experiment; a variant follows a colon: configs/stage1.py:quick, :tiny."
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of checkpoints, metrics and report; run again to resume.")
_PRINT = flags.DEFINE_bool("print_config", False, "Print every key with its type and value, and stop.")
_DISTRIBUTED = flags.DEFINE_string(
    "distributed",
    "",
    "For a run of several processes: auto (Cloud TPU, GKE, Slurm, Open MPI), or HOST:PORT,COUNT,INDEX: where process 0 "
    "is reached, how many there are, which one this is.",
)
_EXPORT = flags.DEFINE_string(
    "export",
    None,
    "At the end, write the averaged weights here: a .safetensors file; of a T5 or an E-CLIP a new folder.",
)


def main(arguments: list[str]) -> None:
    """Builds the experiment and runs it; what a user can mend is one message and exit code 1, not a traceback."""
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
    from fooddit.config import ConfigError, describe
    from fooddit.streams import silence
    from fooddit.tasks import task_class

    if len(arguments) > 1:
        sys.exit(f"main.py: found {arguments[1:]}, expected only flags; see --help")
    try:
        experiment = experiment_of(_CONFIG.value)
    except ConfigError as error:
        sys.exit(f"main.py: {error}")
    except OSError as error:
        # ml_collections keeps it until the config is asked for; the last line names the file.
        sys.exit(f"main.py: --config: {str(error).splitlines()[-1].strip()}")
    if _PRINT.value:
        try:
            print("\n".join(describe(experiment)), flush=True)
        except OSError as error:
            silence(sys.stdout)
            sys.exit(f"main.py: stdout: {error.strerror}")
        return
    if not _WORKDIR.value:
        sys.exit("main.py: --workdir is missing: a folder for checkpoints, metrics and the report")
    if _EXPORT.value and not hasattr(task_class(experiment.task), "export"):
        sys.exit(f"main.py: --export: the task {experiment.task!r} has no weights to export; its checkpoints hold them")
    # No shell expands the ~ of --workdir=~/runs.
    export = Path(_EXPORT.value).expanduser() if _EXPORT.value else None
    run(experiment, os.path.expanduser(_WORKDIR.value), export, _DISTRIBUTED.value)


def parse_flags(arguments: list[str]) -> list[str]:
    """absl's flags, whose errors are one line here and not a traceback; returns what is no flag."""
    given = [argument for argument in arguments if re.match("--?config(=|$)", argument)]
    if len(given) > 1:
        sys.exit(f"main.py: --config is given {len(given)} times: {' '.join(given)}; expected one")
    try:
        return flags.FLAGS(arguments)
    except Exception as error:
        if message := explain(error, given[0].partition("=")[2] if given else ""):
            sys.exit(f"main.py: {message}")
        raise


def run(experiment, workdir: str | os.PathLike, export: Path | None = None, distributed: str = "") -> None:
    """Trains, reports, and writes the averaged weights to `export` if asked to; `distributed` is as the flag.

    Exits as `fooddit.training.supervisor` says: 0 done, 42 restart me, 3 no whole checkpoint, 1 what a person has to
    mend, as one message.
    """
    from fooddit.streams import outlive_readers
    from fooddit.training.goodput import Ledger
    from fooddit.training.supervisor import INTERRUPTED, NOT_WHOLE, RESTART, Stopped, Supervisor

    outlive_readers()
    with Supervisor(Ledger(started=_STARTED), hang_seconds=experiment.train.hang_seconds) as supervisor:
        # What takes seconds to import comes under the supervisor's eyes.
        from jax.errors import JaxRuntimeError

        from fooddit.parallel.processes import Group, NotTogether, join, wait_for_all
        from fooddit.training.checkpoint import NoWholeCheckpoint

        fail = partial(_fail, supervisor)
        try:
            join(distributed, experiment.train.heartbeat_seconds)
            if group := Group.joined():
                supervisor.join(group)
            with _one_voice():
                task, result = _train(experiment, os.fspath(workdir), supervisor)
                if export:
                    _export(task, result.params, export)
                # Who leaves this supervisor does not hear of another one's error.
                wait_for_all("finished")
        except NotTogether as error:
            print(f"main.py: {error}", file=sys.stderr, flush=True)
            os._exit(RESTART)  # What JAX left half open would be waited for.
        except Stopped as stopped:
            print(f"main.py: {stopped}; the same command goes on from there", file=sys.stderr)
            sys.exit(stopped.code)
        except KeyboardInterrupt:
            supervisor.fail(INTERRUPTED, "Ctrl-C twice")
        except NoWholeCheckpoint as error:
            fail(NOT_WHOLE, str(error))
        except _mendable() as error:
            fail(1, str(error))
        except Exception as error:
            if isinstance(error, JaxRuntimeError):
                supervisor.wait_for_blame(experiment.train.heartbeat_seconds + 10)
                if "RESOURCE_EXHAUSTED" in str(error):
                    fail(1, _out_of_memory(error))
            traceback.print_exc()
            supervisor.fail(1, f"{type(error).__name__}: {error}"[:300])


def _fail(supervisor, code: int, message: str):
    """Ends the process, and all others of its run, with a message of a line or a few."""
    print(f"main.py: {message}", file=sys.stderr, flush=True)
    supervisor.fail(code, message)


@contextmanager
def _one_voice():
    """What a run says on stdout is said by process 0; errors of all are heard."""
    import jax

    if jax.process_index() == 0:
        yield
    else:
        with open(os.devnull, "w") as silent, redirect_stdout(silent):
            yield


def _export(task, params, path: Path) -> None:
    import jax

    if jax.process_index() == 0:
        task.export(params, path)
        print(f"weights: {path}")


def _out_of_memory(error: Exception) -> str:
    return (
        f"out of memory: {str(error).splitlines()[0].rstrip('.')}; lower config.data.batch_size or "
        "config.data.image_size, or raise config.train.accumulate"
    )


def _train(experiment, workdir: str, supervisor):
    """(task, result) of a run in `workdir`, a folder or an address such as gs://bucket/run."""
    import jax

    from fooddit.parallel.compilation_cache import keep_compiled_programs
    from fooddit.tasks import make_task
    from fooddit.training.goodput import LEDGER_FILE
    from fooddit.training.loop import device_mesh, train
    from fooddit.training.mirror import local_workdir
    from fooddit.training.resume import check_experiment, only_one, same_for_all
    from fooddit.training.transfer import source_metadata

    keep_compiled_programs()
    with local_workdir(workdir, at_end=supervisor.at_end) as (local, checkpoints), only_one(local):
        same_for_all(experiment, local, checkpoints)
        supervisor.workdir = local
        supervisor.ledger.path = local / LEDGER_FILE if jax.process_index() == 0 else None
        # Before anything is rendered, made or compiled: can this be run at all, and gone on with here?
        device_mesh(experiment)
        saved = check_experiment(checkpoints, experiment)
        if saved is None and experiment.init_from:
            source_metadata(experiment.init_from)
        task = make_task(experiment, local, saved and saved["task"])
        result = train(task, experiment, local, supervisor, checkpoints)
        print_result(result.summary, local)
    return task, result


def _mendable() -> tuple[type[Exception], ...]:
    """Errors whose message says what to do; a traceback would say less."""
    from fooddit.config import ConfigError
    from fooddit.data.records import RecordError
    from fooddit.data.rows import CatalogueError
    from fooddit.models.tensors import TensorError
    from fooddit.models.weights import WeightsError
    from fooddit.training.checkpoint import CheckpointCorrupted, CheckpointMismatch
    from fooddit.training.reporter import TrainingDiverged
    from fooddit.training.resume import RunMismatch

    files = (CatalogueError, OSError, RecordError, TensorError, WeightsError)
    return (ConfigError, TrainingDiverged, *files, CheckpointCorrupted, CheckpointMismatch, RunMismatch)


def print_result(summary: dict, workdir: Path) -> None:
    """The figures of a finished run, where its files are, and what to try next."""
    from fooddit.training.goodput import LEDGER_FILE, read_goodput

    alignment = summary.get("alignment")
    scalars = {k: v for k, v in summary.items() if not isinstance(v, (dict, list)) and not k.startswith("align/")}
    print("\n" + json.dumps(scalars, indent=1, ensure_ascii=False))
    if goodput := read_goodput(workdir / LEDGER_FILE):
        print(goodput)
    if alignment:
        print(_alignment_table(alignment))
    files = [workdir / name for name in ("samples.png", "report.html", "summary.json")]
    print("look at " + ", ".join(str(path) for path in files if path.exists()))
    if alignment:
        python = os.path.relpath(sys.executable) if sys.executable.startswith(os.getcwd()) else sys.executable
        print(
            "try next:\n"
            f"  {python} -m fooddit generate --checkpoint {workdir} --out {workdir / 'pictures'} \\\n"
            '    --prompt "three dumplings on a round blue plate with cilantro, on a wooden table, evening light"\n'
            f"  {python} main.py --config=configs/quickstart.py --workdir={workdir}-longer "
            "--config.train.steps=3000"
        )


def _alignment_table(alignment: dict) -> str:
    """Each attribute's share of right pictures beside wrong prompts and chance."""
    low, high = alignment["interval"]
    rows = [
        f"\nprompt alignment on {alignment['n']} held-out combinations, prompts in Chinese and English",
        f"{'':16} {'right':>8} {'shuffled':>9} {'chance':>8}",
    ]
    for name, share in alignment["per_attribute"].items():
        shuffled, chance = alignment["shuffled_per_attribute"][name], alignment["chance_per_attribute"][name]
        rows.append(f"{name:16} {share:8.3f} {shuffled:9.3f} {chance:8.3f}")
    rows.append(
        f"{'all exact':16} {alignment['all_exact']:8.3f} {alignment['shuffled_all_exact']:9.3f} "
        f"{alignment['chance']:8.5f}   (95 % interval {low:.3f} to {high:.3f}; the reader itself on real renders: "
        f"{alignment['oracle_all_exact']:.4f})\n"
    )
    return "\n".join(rows)


if __name__ == "__main__":
    from fooddit.streams import open_streams
    from fooddit.training.host_memory import keep_freed_memory

    open_streams()
    keep_freed_memory()  # Before a config imports JAX.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    flags.mark_flag_as_required("config")
    app.run(main, flags_parser=parse_flags)

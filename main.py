"""Trains what a config describes: python main.py --config=configs/stage1.py --workdir=runs/stage1."""

import json
import sys
from pathlib import Path

from absl import app, flags
from ml_collections import config_flags

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "The experiment; a variant follows a colon: configs/stage1.py:quick, :tiny."
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of checkpoints, metrics and report; run again to resume.")
_PRINT = flags.DEFINE_bool("print_config", False, "Print every key with its type and value, and stop.")
_EXPORT = flags.DEFINE_string("export", None, "At the end, write the averaged weights to this .safetensors file.")


def main(arguments: list[str]) -> None:
    from fooddit.config import ConfigError, build, describe
    from fooddit.tasks import experiment_class

    if len(arguments) > 1:
        sys.exit(f"main.py: found {arguments[1:]}, expected only flags; see --help")
    try:
        experiment = build(experiment_class(_CONFIG.value.task), _CONFIG.value.to_dict())
    except ConfigError as error:
        sys.exit(f"main.py: {error}")
    if _PRINT.value:
        print("\n".join(describe(experiment)))
        return
    if not _WORKDIR.value:
        sys.exit("main.py: --workdir is missing: a folder for checkpoints, metrics and the report")
    run(experiment, Path(_WORKDIR.value))


def run(experiment, workdir: Path) -> None:
    """Trains, reports, and exports if asked to."""
    from fooddit.tasks import make_task
    from fooddit.training.loop import train

    task = make_task(experiment, workdir)
    result = train(task, experiment, workdir)
    print(json.dumps({"seconds": round(result.seconds, 1), **result.scalars}, indent=1))
    print(f"report: {workdir / 'report.html'}\ncheckpoints: {workdir / 'checkpoints'}")
    if _EXPORT.value:
        task.export(result.params, Path(_EXPORT.value))
        print(f"weights: {_EXPORT.value}")


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main)

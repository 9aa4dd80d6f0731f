"""A config file and the flags that change it, as every command takes them: --config=FILE[:variant] --config.KEY=V."""

import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags

from fooddit.config import ConfigError, build


def read_experiment(arguments: Sequence[str]) -> Any:
    """The experiment that `--config=FILE[:variant]` and `--config.KEY=VALUE` arguments describe.

    Raises:
      ConfigError: a file, key or value that cannot be used, in one line; or an argument that is none of these.
    """
    given = [argument for argument in arguments if argument.startswith(("--config=", "-config="))]
    if len(given) != 1:
        found = f"found it {len(given)} times in: {' '.join(arguments) or 'no flags'}"
        raise ConfigError(f"expected --config=FILE once, with the equals sign, {found}")
    _find_neighbours(given[0].partition("=")[2])
    values = flags.FlagValues()
    command = ["fooddit", *arguments]
    holder = config_flags.DEFINE_config_file("config", None, "", flag_values=values, sys_argv=command)
    try:
        rest = values(command)[1:]
        if rest:
            raise ConfigError(f"found {' '.join(rest)}, expected only --config flags")
        return experiment_of(holder.value)
    except ConfigError:
        raise
    except OSError as error:
        # ml_collections keeps it until the config is asked for; the last line names the file.
        raise ConfigError(f"--config: {str(error).splitlines()[-1].strip()}") from error
    except Exception as error:
        message = explain(error, given[0].partition("=")[2])
        if message is None:
            raise
        raise ConfigError(message) from error


def _find_neighbours(file: str) -> None:
    """Lets a config import those beside it (`from configs.base import base`), wherever the command runs."""
    root = str(Path(file.partition(":")[0]).resolve().parent.parent)
    if root not in sys.path:
        sys.path.insert(0, root)


def experiment_of(config: Any) -> Any:
    """The frozen experiment of what get_config() returned. ConfigError if it is none."""
    from fooddit.tasks import experiment_class

    if not hasattr(config, "to_dict"):
        raise ConfigError(f"--config: get_config() returned a {type(config).__name__}, expected a ConfigDict")
    values = config.to_dict()
    return build(experiment_class(values.get("task")), values)


def explain(error: Exception, file: str) -> str | None:
    """One line for what reading the config `file` and its flags raised; None for what only a traceback explains."""
    if isinstance(error, flags.Error):
        # An error inside of a config file comes with its traceback; the last line says what is wrong.
        return f"{str(error).strip().splitlines()[-1]}; see --help"
    if isinstance(error, SyntaxError):
        place = f"{error.filename}, line {error.lineno}" if error.filename else file
        return f"--config: {place}: no Python: {error.msg}"
    # A config file is a program: whatever it raises is told with its place.
    if place := _place_in_config(error):
        return f"--config: {place}: {type(error).__name__}: {error}"
    if not isinstance(error, (AttributeError, KeyError)):
        return None
    # What ml_collections raises, one in the other, for a key that the config does not have.
    cause = error
    while isinstance(cause, Exception):
        cause = cause.args[0]
    if "get_config" in cause:
        return "--config: the file has no function get_config; see configs/stage1.py for one that does"
    return f"unknown key in a --config flag: {' '.join(cause.split())}; see --print_config"


def _place_in_config(error: Exception) -> str:
    """FILE, line N of the innermost line of the config file that was running, or nothing."""
    lines = [
        f"{frame.f_code.co_filename}, line {line}"
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_globals.get("__name__") == "config_config"  # The name under which ml_collections loads --config.
    ]
    return lines[-1] if lines else ""

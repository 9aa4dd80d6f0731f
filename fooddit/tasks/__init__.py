"""The experiments that the one loop can run, by name. Heavy modules are imported when a task is asked for."""

import importlib
from typing import Any, NamedTuple

from fooddit.config import ConfigError


class Entry(NamedTuple):
    """Where a task lives, by name: its config's dataclass, its class, and the class of what its step computes, which
    is made of an experiment alone."""

    module: str
    experiment: str
    task: str
    step: str


TASKS = {
    "denoise": Entry("fooddit.tasks.denoise", "DenoiseExperiment", "Denoise", "DenoiseStep"),
    "autoencode": Entry("fooddit.tasks.autoencode", "AutoencodeExperiment", "Autoencode", "Autoencode"),
    "autoencode_kl": Entry("fooddit.tasks.autoencode", "AutoencodeKLExperiment", "AutoencodeKL", "AutoencodeKL"),
    "read_scenes": Entry("fooddit.tasks.read_scenes", "ReadScenesExperiment", "ReadScenes", "ReadScenes"),
    "span_corruption": Entry("fooddit.tasks.span_corruption", "SpanExperiment", "SpanCorruption", "SpanStep"),
    "contrastive": Entry("fooddit.tasks.contrastive", "ContrastiveExperiment", "Contrastive", "ContrastiveStep"),
    "read_styles": Entry("fooddit.tasks.read_styles", "ReadScenesExperiment", "ReadStyles", "ReadStyles"),
}


def experiment_class(name: str) -> type:
    """The config dataclass of a task. ConfigError for a name that is not in TASKS."""
    return _load(name, "experiment")


def task_class(name: str) -> type:
    """The class of a task: experiment -> an object that meets `training.task.Task`."""
    return _load(name, "task")


def step_class(name: str) -> type:
    """What a task's step computes: experiment -> an object with the `training.task.StepProgram` half of a task."""
    return _load(name, "step")


def _load(name: str, what: str) -> Any:
    if name not in TASKS:
        raise ConfigError(f"config.task: found {name!r}, expected one of {', '.join(TASKS)}")
    entry = TASKS[name]
    return getattr(importlib.import_module(entry.module), getattr(entry, what))


def make_task(experiment, workdir, saved: dict | None = None) -> Any:
    """The task of an experiment; what it makes of its own goes to `workdir`.

    `saved`: the task's metadata in the checkpoint that the run goes on from; None for a new run.
    """
    return task_class(experiment.task)(experiment, workdir, saved)

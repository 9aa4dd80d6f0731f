"""Invariant 6: every config takes two steps at ':tiny' on a CPU; and no key of any config goes unread."""

import contextlib
import dataclasses
import importlib
import json
import sys
import typing
from pathlib import Path

import jax
import pytest

import main
from fooddit.config import build
from fooddit.parallel import make_mesh
from fooddit.tasks import TASKS, experiment_class
from fooddit.training import loop
from fooddit.training.checkpoint import verify
from fooddit.training.metrics import read_metrics

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted(path.stem for path in (ROOT / "configs").glob("*.py") if path.stem not in ("__init__", "base"))

COPIERS = ("fooddit/config.py", "dataclasses.py", "copy.py")
# Keys that only __post_init__ reads: the one becomes width, depth and head_dim, the other must be what the other odds
# leave (a caption that is neither dropped nor short is dense).
ONLY_AT_START = ["DataConfig.dense", "DiTConfig.size"]


def experiment(name: str, variant: str):
    config = importlib.import_module(f"configs.{name}").get_config(variant)
    return build(experiment_class(config.task), config.to_dict())


@pytest.fixture(scope="module")
def finish(tmp_path_factory):
    """name -> (workdir, keys that were read) of a config's finished run at ':tiny', made once."""
    runs = {}

    def get(name: str):
        if name not in runs:
            tiny, workdir = experiment(name, "tiny"), tmp_path_factory.mktemp(name)
            with recorded(config_classes(type(tiny))) as read, pytest.MonkeyPatch.context() as patch:
                # A user's CPU is one device; the suite's eight would all evaluate the same pictures.
                patch.setattr(loop, "make_mesh", lambda config: make_mesh(config, jax.devices()[:1]))
                main.run(tiny, workdir)
            runs[name] = workdir, read
        return runs[name]

    return get


def config_classes(cls: type) -> set[type]:
    """A config's dataclass and those of its sections."""
    hints = typing.get_type_hints(cls).values()
    return {cls}.union(*(config_classes(hint) for hint in hints if dataclasses.is_dataclass(hint)))


def keys(classes) -> set[str]:
    return {f"{cls.__name__}.{field.name}" for cls in classes for field in dataclasses.fields(cls)}


@contextlib.contextmanager
def recorded(classes):
    """A set that fills with the keys of `classes` that code reads as attributes while the context lasts.

    Checks in __post_init__, the copies that fooddit.config and dataclasses make, and generated methods such as __hash__
    look at every key, so what they read does not count.
    """
    read: set[str] = set()

    def getattribute(self, name):
        code = sys._getframe(1).f_code
        generated = code.co_filename == "<string>" or code.co_name == "__post_init__"
        if not generated and not code.co_filename.endswith(COPIERS):
            read.add(f"{type(self).__name__}.{name}")
        return object.__getattribute__(self, name)

    for cls in classes:
        cls.__getattribute__ = getattribute
    try:
        yield read
    finally:
        for cls in classes:
            if "__getattribute__" in vars(cls):
                del cls.__getattribute__


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_takes_two_steps_at_tiny(name, finish):
    assert experiment(name, "tiny").train.steps == 2
    workdir, _ = finish(name)
    summary = json.loads((workdir / "summary.json").read_text())
    assert summary["steps"] == 2 and summary["parameters"] > 0
    last = [line for line in read_metrics(workdir / "metrics.jsonl") if "train/loss" in line][-1]
    assert last["step"] == 2 and last["train/loss"] > 0 and last["train/skipped"] == 0
    assert verify(workdir) == []
    assert (workdir / "report.html").exists()


@pytest.mark.parametrize("name", CONFIGS)
def test_every_variant_builds_and_another_is_refused(name):
    for variant in ("", "full", "quick", "tiny"):
        assert experiment(name, variant).task in TASKS
    with pytest.raises(ValueError, match="expected one of full, quick, tiny"):
        experiment(name, "huge")


def test_every_task_has_a_config():
    assert {experiment(name, "tiny").task for name in CONFIGS} == set(TASKS)


def test_no_key_of_any_config_goes_unread(finish):
    """Each key is read in the run of a config at ':tiny', from an object of its own dataclass.

    Its limits: what is read need not have an effect, and a key that only another setting makes matter must be read
    anyway. What `fooddit compile` alone reads is left out: tests/aot compiles with it.
    """
    read = set().union(*(finish(name)[1] for name in CONFIGS))
    known = keys(set().union(*(config_classes(experiment_class(name)) for name in TASKS)))
    assert len(known) > 60
    compiled = {f"{experiment_class(name).__name__}.topology" for name in TASKS} | {"DiTConfig.image_width"}
    assert sorted(known - read - compiled) == ONLY_AT_START


def test_a_key_that_nothing_reads_would_be_found():
    @dataclasses.dataclass(frozen=True)
    class Config:
        used: int = 1
        checked: int = 2
        unused: int = 3

        def __post_init__(self):
            assert self.checked

    with recorded({Config}) as read:
        config = build(Config, {})
        assert config.used and hash(config) and dataclasses.asdict(config)
    assert keys({Config}) - read == {"Config.checked", "Config.unused"}

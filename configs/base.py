"""What every config starts from: the defaults of a task's dataclasses, as a ConfigDict that flags can change."""

import dataclasses

from ml_collections import ConfigDict

from fooddit.config import to_dict
from fooddit.tasks import experiment_class

VARIANTS = ("full", "quick", "tiny")


def base(task: str, **sections: dict) -> ConfigDict:
    """The config of `task` with some sections' fields given (for fields without a default).

    Raises:
      ValueError: no such task.
    """
    cls = experiment_class(task)
    values = {"task": task}
    for field in dataclasses.fields(cls):
        if field.name in sections:
            section = field.default_factory()
            values[field.name] = to_dict(dataclasses.replace(section, **sections[field.name]))
        elif field.default_factory is not dataclasses.MISSING:
            values[field.name] = to_dict(field.default_factory())
        elif field.name != "task":
            values[field.name] = field.default
    config = ConfigDict(values, convert_dict=True)
    config.lock()
    return config


def check_variant(variant: str) -> str:
    """`variant` if it is one of VARIANTS ("" is "full"). ValueError otherwise."""
    variant = variant or "full"
    if variant not in VARIANTS:
        raise ValueError(f"config variant {variant!r}: expected one of {', '.join(VARIANTS)}, as in stage1.py:quick")
    return variant

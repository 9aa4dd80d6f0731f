"""What every config starts from: the defaults of a task's dataclasses, as a ConfigDict that flags can change."""

from ml_collections import ConfigDict

from fooddit.config import defaults
from fooddit.tasks import experiment_class

VARIANTS = ("full", "quick", "tiny")


def base(task: str, **required: dict) -> ConfigDict:
    """The defaults of `task`, with the values given for fields that have none (a dict for each section).

    Raises:
      ValueError: no such task.
    """
    values = defaults(experiment_class(task)) | {"task": task}
    for section, given in required.items():
        values[section] |= given
    config = ConfigDict(values, convert_dict=True)
    config.lock()
    return config


def check_variant(variant: str) -> str:
    """`variant` if it is one of VARIANTS ("" is "full"). ValueError otherwise."""
    variant = variant or "full"
    if variant not in VARIANTS:
        raise ValueError(f"config variant {variant!r}: expected one of {', '.join(VARIANTS)}, as in stage1.py:quick")
    return variant

"""From a ConfigDict to frozen dataclasses, naming every unknown, missing or ill-typed key at once."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any


class ConfigError(ValueError):
    """A config that cannot be used; the message lists all that is wrong with it."""


def build(cls: type, values: Mapping[str, Any], path: str = "config") -> Any:
    """An instance of the dataclass `cls`, nested ones included, from a mapping.

    Raises:
      ConfigError: one line for each key that is unknown, missing, of another type, or refused by its dataclass.
    """
    errors: list[str] = []
    instance = _build(cls, values, path, errors)
    if len(errors) == 1:
        raise ConfigError(errors[0])
    if errors:
        raise ConfigError(f"the config has {len(errors)} errors:\n  " + "\n  ".join(errors))
    return instance


def to_dict(instance: Any) -> dict:
    """The nested dict that `build` takes back; tuples stay tuples."""
    return {
        field.name: to_dict(value) if dataclasses.is_dataclass(value := getattr(instance, field.name)) else value
        for field in dataclasses.fields(instance)
    }


def defaults(cls: type) -> dict:
    """The nested dict of a dataclass's defaults as they are written, nothing resolved; required fields are left out."""
    hints = typing.get_type_hints(cls)
    found = {}
    for field in dataclasses.fields(cls):
        if dataclasses.is_dataclass(hints[field.name]):
            found[field.name] = defaults(hints[field.name])
        elif field.default is not dataclasses.MISSING:
            found[field.name] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            found[field.name] = field.default_factory()
    return found


def describe(instance: Any, path: str = "config") -> Iterator[str]:
    """A line for each key: its path, type and value."""
    hints = typing.get_type_hints(type(instance))
    for field in dataclasses.fields(instance):
        value = getattr(instance, field.name)
        name = f"{path}.{field.name}"
        if dataclasses.is_dataclass(value):
            yield from describe(value, name)
        else:
            yield f"{name}: {_type_name(hints[field.name])} = {value!r}"


def _build(cls: type, values: Mapping[str, Any], path: str, errors: list[str]) -> Any:
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    before = len(errors)
    for name in values:
        if name not in fields:
            close = difflib.get_close_matches(name, fields, n=1)
            hint = f"did you mean {path}.{close[0]}?" if close else f"known: {', '.join(fields)}"
            errors.append(f"{path}.{name}: unknown key; {hint}")
    arguments = {}
    for name, field in fields.items():
        if name in values:
            arguments[name] = _convert(hints[name], values[name], f"{path}.{name}", errors)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            errors.append(f"{path}.{name}: missing; expected {_type_name(hints[name])}")
    if len(errors) > before:
        return None
    try:
        return cls(**arguments)
    except ValueError as error:
        errors.append(f"{path}: {error}")
        return None


def _convert(expected: Any, value: Any, path: str, errors: list[str]) -> Any:
    if dataclasses.is_dataclass(expected):
        if isinstance(value, Mapping):
            return _build(expected, value, path, errors)
    elif typing.get_origin(expected) is tuple:
        element = typing.get_args(expected)[0]
        if isinstance(value, (tuple, list)):
            return tuple(_convert(element, item, f"{path}[{i}]", errors) for i, item in enumerate(value))
    elif expected is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    elif isinstance(value, expected) and not (expected is int and isinstance(value, bool)):
        return value
    errors.append(f"{path}: expected {_type_name(expected)}, found {value!r} ({type(value).__name__})")
    return None


def _type_name(expected: Any) -> str:
    generic = isinstance(expected, types.GenericAlias)
    return str(expected) if generic or not isinstance(expected, type) else expected.__name__

"""From a ConfigDict to frozen dataclasses, naming every unknown, missing or ill-typed key at once."""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

# Metadata of fields that do not change what is learned: threads, limits, what is shown. They may differ when a run is
# resumed. A dataclass of the ground floor, which imports nothing from here, says the same by its key.
OPERATIONAL = types.MappingProxyType({"operational": True})


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


def differences(saved: Mapping[str, Any], instance: Any, path: str = "config") -> dict[str, tuple[Any, Any]]:
    """Keys whose value was another one in `saved` (as `to_dict` gave it, perhaps through JSON): key -> (was, is).

    OPERATIONAL fields are left out, whole sections included. A key that `saved` does not know yet counts as having been
    its default.
    """
    found: dict[str, tuple[Any, Any]] = {}
    unset = defaults(type(instance))
    for field in dataclasses.fields(instance):
        if field.metadata.get("operational"):
            continue
        value, name = getattr(instance, field.name), f"{path}.{field.name}"
        before = saved.get(field.name, unset.get(field.name))
        if dataclasses.is_dataclass(value):
            found |= differences(before if isinstance(before, Mapping) else {}, value, name)
        elif _plain(before) != _plain(value):
            found[name] = (before, value)
    return found


def _plain(value: Any) -> Any:
    """A value as JSON would give it back."""
    return [_plain(item) for item in value] if isinstance(value, (tuple, list)) else value


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
        if math.isfinite(value):
            return float(value)
        errors.append(f"{path}: expected a finite number, found {value!r}")
        return None
    elif isinstance(value, expected) and not (expected is int and isinstance(value, bool)):
        return value
    errors.append(f"{path}: expected {_type_name(expected)}, found {value!r} ({type(value).__name__})")
    return None


def _type_name(expected: Any) -> str:
    generic = isinstance(expected, types.GenericAlias)
    return str(expected) if generic or not isinstance(expected, type) else expected.__name__

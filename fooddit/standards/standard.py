"""A written standard: criteria in sub-standards, every level of each described, and anomalies; read from YAML."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

LANGUAGES = ("en", "zh")
_FOLDER = Path(__file__).parent
# By the names that `load_standard` takes in place of a file.
SHIPPED = ("generated", "photos")
_WORD = re.compile(r"[a-z][a-z0-9_]*")
# A text in each of LANGUAGES.
Text = Mapping[str, str]


class StandardError(ValueError):
    """A file that is no standard; the message names the file and the key."""


@dataclass(frozen=True)
class Sub:
    """One question about a picture. `id` is "criterion.sub" and permanent; `levels` says what each level means."""

    id: str
    name: Text
    asks: Text
    levels: Mapping[int, Text]


@dataclass(frozen=True)
class Criterion:
    """Sub-standards that belong together."""

    id: str
    name: Text
    subs: tuple[Sub, ...]


@dataclass(frozen=True)
class Anomaly:
    """Something that is wrong with a picture whatever its levels; marked with a box."""

    id: str
    name: Text
    means: Text


@dataclass(frozen=True)
class Standard:
    """What people rate under, and what models of their ratings are keyed by.

    Attributes:
      id, version: of the whole; what a level means changes only with the version.
      scale: level to its name, lowest first; levels are the whole numbers from 1.
    """

    id: str
    version: int
    name: Text
    scale: Mapping[int, Text]
    criteria: tuple[Criterion, ...]
    anomalies: tuple[Anomaly, ...]

    @cached_property
    def subs(self) -> dict[str, Sub]:
        """All sub-standards by id, in the file's order: the order of a model's heads."""
        return {sub.id: sub for criterion in self.criteria for sub in criterion.subs}

    @property
    def levels(self) -> tuple[int, ...]:
        """From the lowest to the highest."""
        return tuple(self.scale)

    def require(self, sub: str, level: int) -> None:
        """StandardError unless the standard has the sub-standard and the level."""
        if sub not in self.subs:
            raise StandardError(f"standard {self.id!r} has no {sub!r}; expected one of {', '.join(self.subs)}")
        if isinstance(level, bool) or level not in self.scale:
            low, high = self.levels[0], self.levels[-1]
            raise StandardError(f"{sub}: found level {level!r}; expected a whole number from {low} to {high}")


def as_values(standard: Standard) -> dict[str, Any]:
    """The standard as its file has it, of what JSON knows (levels are texts there); `from_values` reads it again."""
    levels = lambda texts: {str(level): dict(text) for level, text in texts.items()}
    sub = lambda s: {"id": s.id, "name": dict(s.name), "asks": dict(s.asks), "levels": levels(s.levels)}
    return {
        "id": standard.id,
        "version": standard.version,
        "name": dict(standard.name),
        "scale": levels(standard.scale),
        "criteria": [{"id": c.id, "name": dict(c.name), "subs": [sub(s) for s in c.subs]} for c in standard.criteria],
        "anomalies": [{"id": a.id, "name": dict(a.name), "means": dict(a.means)} for a in standard.anomalies],
    }


def from_values(values: Any) -> Standard:
    """Of a file's values, or of `as_values`'. StandardError names the key."""
    return _standard(_Keys(values, ""))


def load_standard(source: str | Path) -> Standard:
    """One that ships (SHIPPED), or a file of the same form. StandardError names the file and the key."""
    path = _FOLDER / f"{source}.yaml" if str(source) in SHIPPED else Path(source)
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError as error:
        raise StandardError(
            f"{path}: no such file; expected a standard's YAML file or one of {', '.join(SHIPPED)}"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise StandardError(f"{path}: cannot be read as YAML: {' '.join(str(error).split())}") from error
    try:
        return from_values(values)
    except StandardError as error:
        raise StandardError(f"{path}: {error}") from None


class _Loader(yaml.SafeLoader):
    """Refuses a key that is there twice, of which YAML would take the last."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} is there twice", node.start_mark)
        return super().construct_mapping(node, deep)


class _Keys:
    """A mapping of the file: what is taken is checked, and what is left over is an error."""

    def __init__(self, values: Any, where: str):
        if not isinstance(values, dict):
            raise StandardError(f"{where or 'the whole file'}: expected keys with values, found {values!r:.60}")
        self.values, self.where = dict(values), where

    def take(self, name: str, kind: type = dict) -> Any:
        if name not in self.values:
            raise StandardError(f"{self.at(name)}: missing")
        value = self.values.pop(name)
        if not isinstance(value, kind) or isinstance(value, bool):
            words = {dict: "keys with values", list: "a list", str: "a text", int: "a whole number"}[kind]
            raise StandardError(f"{self.at(name)}: expected {words}, found {value!r:.60}")
        return value

    def each(self, name: str) -> list["_Keys"]:
        """The entries of a list, each called by its id."""
        found = []
        for number, entry in enumerate(self.take(name, list), 1):
            label = entry.get("id", number) if isinstance(entry, dict) else number
            found.append(_Keys(entry, f"{self.at(name)}[{label}]"))
        if not found:
            raise StandardError(f"{self.at(name)}: expected at least one entry")
        return found

    def text(self, name: str) -> Text:
        return self._text(_Keys(self.take(name), self.at(name)))

    def texts(self, name: str) -> dict[int, Text]:
        """Of each level, counted from 1."""
        levels = _Keys(self.take(name), self.at(name))
        # JSON's keys are texts.
        levels.values = {int(k) if isinstance(k, str) and k.isdecimal() else k: v for k, v in levels.values.items()}
        expected = list(range(1, len(levels.values) + 1))
        if list(levels.values) != expected or len(expected) < 2:
            raise StandardError(f"{levels.where}: expected levels 1, 2, ... in order, found {[*levels.values]}")
        return {level: self._text(_Keys(levels.take(level), levels.at(level))) for level in expected}

    def identifier(self, before: str = "") -> str:
        value = self.take("id", str)
        if not (value.startswith(before) and _WORD.fullmatch(value.removeprefix(before))):
            raise StandardError(
                f"{self.at('id')}: found {value!r}; expected {before}WORD, of small letters, digits and underscores"
            )
        return value

    def done(self) -> None:
        if self.values:
            raise StandardError(f"{self.at(next(iter(self.values)))}: unknown key")

    def at(self, name) -> str:
        return f"{self.where}.{name}" if self.where else str(name)

    @staticmethod
    def _text(keys: "_Keys") -> Text:
        found = {language: keys.take(language, str).strip() for language in LANGUAGES}
        if empty := [language for language, text in found.items() if not text]:
            raise StandardError(f"{keys.at(empty[0])}: is empty")
        keys.done()
        return found


def _standard(keys: _Keys) -> Standard:
    whole = keys.identifier(), keys.take("version", int), keys.text("name"), keys.texts("scale")
    criteria = tuple(_criterion(entry, list(whole[3])) for entry in keys.each("criteria"))
    anomalies = tuple(_anomaly(entry) for entry in keys.each("anomalies"))
    keys.done()
    subs = [sub.id for criterion in criteria for sub in criterion.subs]
    for ids in ([criterion.id for criterion in criteria], subs, [anomaly.id for anomaly in anomalies]):
        if twice := [name for name in ids if ids.count(name) > 1]:
            raise StandardError(f"the id {twice[0]!r} is there twice")
    return Standard(*whole, criteria, anomalies)


def _criterion(keys: _Keys, levels: list[int]) -> Criterion:
    name, title = keys.identifier(), keys.text("name")
    subs = tuple(_sub(entry, f"{name}.", levels) for entry in keys.each("subs"))
    keys.done()
    return Criterion(name, title, subs)


def _sub(keys: _Keys, before: str, levels: list[int]) -> Sub:
    where = keys.at("levels")
    sub = Sub(keys.identifier(before), keys.text("name"), keys.text("asks"), keys.texts("levels"))
    keys.done()
    if list(sub.levels) != levels:
        raise StandardError(f"{where}: describes {[*sub.levels]}, expected every level of the scale, {levels}")
    return sub


def _anomaly(keys: _Keys) -> Anomaly:
    anomaly = Anomaly(keys.identifier(), keys.text("name"), keys.text("means"))
    keys.done()
    return anomaly

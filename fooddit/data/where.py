"""Which rows --where keeps."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_SHOWN = 10


class Where:
    """Rows whose columns have given values; remembers what it saw, for the message when there is nothing left.

    Case, spaces and hyphens of a column's name do not matter, nor spaces around a value. Values that are no text are
    written as in JSON: true, 3, ["a"]; a missing one is empty.
    """

    def __init__(self, wanted: Mapping[str, str]):
        self._wanted = {column_key(column): value.strip() for column, value in wanted.items()}
        self._columns: set[str] = set()
        self._values: dict[str, dict[str, None]] = {column: {} for column in self._wanted}
        self._kept = 0

    def keeps(self, columns: Mapping[str, Any]) -> bool:
        if not self._wanted:
            return True
        found = {column_key(name): value for name, value in columns.items()}
        self._columns.update(found)
        texts = {column: _text(found.get(column)) for column in self._wanted}
        for column, text in texts.items():
            if len(self._values[column]) <= _SHOWN:
                self._values[column][text] = None
        kept = texts == self._wanted
        self._kept += kept
        return kept

    def problem(self) -> str:
        """Why it kept nothing, or ""; a column that no row has is a problem in any case."""
        if unknown := sorted(self._wanted.keys() - self._columns):
            return f"no row has the column {', '.join(unknown)}; columns: {', '.join(sorted(self._columns))}"
        if self._kept or not self._wanted:
            return ""
        wanted = " and ".join(f"{column}={value}" for column, value in self._wanted.items())
        found = (f"{column}: {_listed([*values])}" for column, values in self._values.items())
        return f"no row has {wanted}; found in {'; in '.join(found)}"


def column_key(name: str) -> str:
    """A column's name as it is compared: lower case, spaces and hyphens as underscores."""
    return re.sub(r"[\s-]+", "_", str(name).strip().lower())


def _text(value: Any) -> str:
    if value is None or value != value:
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value.strip() if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _listed(values: list[str]) -> str:
    shown = [value[:40] or "(nothing)" for value in values[:_SHOWN]]
    return ", ".join(shown + ["..."] * (len(values) > _SHOWN))

"""Rows: what every source of pictures gives, usable or rejected."""

from __future__ import annotations

import collections
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from fooddit.data.captions import Caption

_EXAMPLES, _EXAMPLE_LENGTH = 5, 300


class CatalogueError(ValueError):
    """A source that cannot be read at all, as against single rows of it, which are rejected."""


@dataclass(frozen=True)
class Row:
    """One usable row. `load` reads or renders the encoded picture, on whatever thread calls it.

    split is set by a source that defines its own; otherwise the rows are split by dish. columns: all of the row's
    metadata, for filters.
    """

    id: str
    dish_id: str
    load: Callable[[], bytes] = field(repr=False)
    captions: tuple[Caption, ...]
    category: str = ""
    attributes: dict[str, Any] | None = None
    split: str | None = None
    columns: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Rejection:
    """A row that is not used: where it is, a reason to count it under, and what exactly was found."""

    row: str
    reason: str
    detail: str


class Rejections:
    """Rejections by reason: how many, and the first few of them. It does not grow with a catalogue."""

    def __init__(self) -> None:
        self.counts: collections.Counter[str] = collections.Counter()
        self.examples: dict[str, list[str]] = {}

    def add(self, rejection: Rejection) -> None:
        self.counts[rejection.reason] += 1
        examples = self.examples.setdefault(rejection.reason, [])
        if len(examples) < _EXAMPLES:
            examples.append(f"{rejection.row}: {rejection.detail}"[:_EXAMPLE_LENGTH])


class Catalogue(Protocol):
    """A source: its name, how many rows it has, and the rows in a fixed order."""

    name: str

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Row | Rejection]: ...


def require_utf8(what: str, path: str | os.PathLike) -> None:
    """Raises CatalogueError for a path with bytes that are no UTF-8: libraries below cannot open it."""
    try:
        os.path.abspath(path).encode()
    except UnicodeEncodeError as error:
        raise CatalogueError(f"{what} {os.fspath(path)!a}: not UTF-8 at place {error.start}; rename it") from error

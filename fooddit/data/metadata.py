"""A catalogue's metadata file as rows: JSON lines, CSV or parquet. A row that cannot be read costs no other row."""

from __future__ import annotations

import codecs
import collections
import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fooddit.data.rows import CatalogueError

# Line number (of parquet: row number) from 1, and the columns by name, or what is wrong with the row.
Rows = Iterator[tuple[int, dict[str, Any] | str]]


def open_metadata(path: Path) -> tuple[int, Callable[[], Rows]]:
    """The number of rows of a .jsonl, .csv or .parquet file, and a function that reads them.

    Lines end with \\n, \\r\\n or \\r. Raises CatalogueError for a file that is nothing of the kind: most of it not
    UTF-8, a CSV header without names or with one name twice, damaged parquet.
    """
    if path.suffix == ".parquet":
        return _parquet(path)
    lines = _count_lines(path)
    if path.suffix == ".jsonl":
        return lines, lambda: _jsonl_rows(path)
    _csv_header(path)
    return sum(1 for _ in _csv_records(path)) - 1, lambda: _csv_rows(path)


def _text_lines(path: Path, newline: str | None) -> Iterator[str]:
    """Lines of text; bytes that are no UTF-8 become lone surrogates, for the row to be told from its neighbours."""
    with path.open(encoding="utf-8", errors="surrogateescape", newline=newline) as file:
        # A byte order mark stands wherever a file that began with one was appended to another.
        yield from (line.lstrip("\ufeff") for line in file)


def _count_lines(path: Path) -> int:
    """Lines that are not blank, after a look at the encoding."""
    with path.open("rb") as file:
        head = file.read(4096)
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or head.count(0) > len(head) / 4:
        raise CatalogueError(f"{path}: UTF-16 or no text at all; save it as UTF-8 (in spreadsheets: CSV UTF-8)")
    lines = 0
    foreign = []
    for number, line in enumerate(_text_lines(path, None), 1):
        lines += not line.isspace() and line != ""
        if not line.isascii() and not _is_unicode(line):
            foreign.append(number)
    if not lines:
        raise CatalogueError(f"{path}: empty; expected a row for each picture")
    if len(foreign) > lines / 2:
        raise CatalogueError(
            f"{path}: not UTF-8 ({len(foreign)} of {lines} lines, the first is line {foreign[0]}); save it as UTF-8, "
            f"for example from GBK: iconv -f GBK -t UTF-8 {path.name}"
        )
    return lines


def _jsonl_rows(path: Path) -> Rows:
    for number, line in enumerate(_text_lines(path, None), 1):
        if not line.strip():
            continue
        if not _is_unicode(line):
            yield number, "not UTF-8"
            continue
        try:
            columns = json.loads(line)
        except (ValueError, RecursionError) as error:
            hint = "; expected an object a line, not a list" if line.lstrip().startswith("[") else ""
            yield number, f"not a line of JSON: {error}{hint}"
            continue
        if not isinstance(columns, dict):
            yield number, f"expected a JSON object, found {line[:60].strip()!r}"
        elif "\\ud" in line.lower() and not _is_unicode(json.dumps(columns, ensure_ascii=False)):
            yield number, "half of a surrogate pair (\\ud800 to \\udfff alone) in a string"
        else:
            yield number, columns


def _csv_rows(path: Path) -> Rows:
    """Columns that a row ends before are left out, as spreadsheets do with empty ones; a row of too many is broken."""
    header = _csv_header(path)
    records = _csv_records(path)
    next(records)
    for number, values in records:
        if isinstance(values, str):
            yield number, values
        elif len(values) > len(header):
            yield number, f'{len(values)} values, expected {len(header)}; a text with a comma needs quotes: "a, b"'
        elif not all(map(_is_unicode, values)):
            yield number, "not UTF-8"
        else:
            # A column without a name is what a comma at the end of every line makes.
            yield number, {name: value for name, value in zip(header, values) if name}


def _csv_header(path: Path) -> list[str]:
    _, header = next(_csv_records(path))
    if isinstance(header, str):
        raise CatalogueError(f"{path}: the first line must name the columns, found {header}")
    counts = collections.Counter(name.strip().lower() for name in header if name.strip())
    if twice := [name for name, count in counts.items() if count > 1]:
        raise CatalogueError(f"{path}: the header names {', '.join(twice)} more than once; rename or remove one")
    return header


def _csv_records(path: Path) -> Iterator[tuple[int, list[str] | str]]:
    """The records of a CSV file with the number of their first line; of one that is broken, what is wrong.

    A quote that is never closed swallows the lines after it, up to the limit of a field. Such a record costs its first
    line only: the lines after it are given back and read again.
    """
    lines = enumerate(_text_lines(path, ""), 1)
    given_back: collections.deque[tuple[int, str]] = collections.deque()
    while True:
        taken: list[tuple[int, str]] = []
        reader = csv.reader(_take(lines, given_back, taken), strict=True)
        try:
            values = next(reader, None)
        except csv.Error as error:
            yield taken[0][0], f"broken CSV: {error}; a quote inside of quotes is written twice"
            given_back.extendleft(reversed(taken[1:]))
            continue
        if values is None:
            return
        if any(map(str.strip, values)):
            yield taken[0][0], values


def _take(
    lines: Iterator[tuple[int, str]], given_back: collections.deque[tuple[int, str]], taken: list[tuple[int, str]]
) -> Iterator[str]:
    while (line := given_back.popleft() if given_back else next(lines, None)) is not None:
        taken.append(line)
        yield line[1]


def _parquet(path: Path) -> tuple[int, Callable[[], Rows]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise CatalogueError(f"{path}: parquet needs pyarrow; install it with: pip install -e '.[prep]'") from error

    def rows() -> Rows:
        number = 0
        try:
            for batch in pyarrow.parquet.ParquetFile(path).iter_batches(batch_size=1024):
                for columns in batch.to_pylist():
                    number += 1
                    yield number, columns
        except (pyarrow.ArrowException, OSError) as error:
            raise CatalogueError(f"{path}: damaged after row {number}: {error}") from error

    try:
        return pyarrow.parquet.ParquetFile(path).metadata.num_rows, rows
    except (pyarrow.ArrowException, OSError) as error:
        raise CatalogueError(f"{path}: no parquet file, or a damaged one: {error}") from error


def _is_unicode(text: str) -> bool:
    """Whether a text has no lone surrogate."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True

"""Sources of pictures: a catalogue folder, a TFDS builder, or rendered scenes, each as a stream of rows."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fooddit.data.captions import build_captions
from fooddit.data.images import encode_png
from fooddit.data.rows import Catalogue, CatalogueError, Rejection, Row
from fooddit.data.tfds_catalogue import TfdsCatalogue

METADATA_FILES = ("metadata.jsonl", "metadata.csv", "metadata.parquet")

# How each column may be spelled; the first spelling that a row has counts. Case, spaces and hyphens do not matter.
_SPELLINGS = {
    "file_name": ("file_name", "filename"),
    "title": ("title", "name", "dish_name"),
    "description": ("description", "caption", "text"),
    "ingredients": ("ingredients",),
    "category": ("category", "label", "class"),
    "language": ("language", "lang"),
    "dish_id": ("dish_id", "dish", "id"),
}
_SEPARATORS = re.compile(r"[,;|、，；\n]")


def open_catalogue(source: str, *, size: int | None = None, holdout: float = 0.1) -> Catalogue:
    """A catalogue by its name: a folder, "tfds:NAME[?split=...&data_dir=...]" or "scenes:N".

    `size` and `holdout` matter only to scenes: the side in pixels (64 by default), and how many held-out combinations
    to render beside N training scenes (holdout * N, at least 256). Raises CatalogueError.
    """
    if source.startswith("scenes:"):
        return SceneCatalogue(source, size=size or 64, holdout=holdout)
    if source.startswith("tfds:"):
        return TfdsCatalogue(source)
    return FolderCatalogue(source)


class FolderCatalogue:
    """A folder in the Hugging Face ImageFolder layout: pictures and one metadata file with a row for each.

    Columns: file_name, and any of title, description, ingredients (a list, or text separated by commas), category,
    language, dish_id. Rows without dish_id are grouped by title. https://huggingface.co/docs/datasets/image_dataset
    """

    def __init__(self, folder: str | Path):
        self._folder = Path(folder)
        self.name = self._folder.resolve().name
        if not self._folder.is_dir():
            raise CatalogueError(f"{folder}: no such folder; expected a folder with pictures, tfds:NAME or scenes:N")
        found = [self._folder / name for name in METADATA_FILES if (self._folder / name).is_file()]
        if len(found) != 1:
            what = " and ".join(path.name for path in found) if found else "none"
            raise CatalogueError(
                f"{folder}: expected one of {', '.join(METADATA_FILES)} with file_name and title columns, found {what}"
            )
        self._metadata = found[0]
        self._count, self._read = _table(self._metadata)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Row | Rejection]:
        seen: set[str] = set()
        root = self._folder.resolve()
        for place, columns in self._read():
            where = f"{self._metadata.name}:{place}"
            if isinstance(columns, str):
                yield Rejection(where, "unreadable row", columns)
            else:
                yield self._row(where, columns, root, seen)

    def _row(self, where: str, columns: dict[str, Any], root: Path, seen: set[str]) -> Row | Rejection:
        values = {name: _first(columns, spellings) for name, spellings in _SPELLINGS.items()}
        name = _text(values["file_name"])
        if not name:
            return Rejection(where, "no file_name", f"columns found: {', '.join(map(str, columns))}")
        path = (self._folder / name).resolve()
        if not path.is_relative_to(root):
            return Rejection(where, "file outside the folder", name)
        if not path.is_file():
            return Rejection(where, "file missing", name)
        if name in seen:
            return Rejection(where, "file listed twice", name)
        seen.add(name)
        category = _text(values["category"]).replace("_", " ").lower()
        captions = build_captions(
            _text(values["title"]),
            description=_text(values["description"]),
            ingredients=_list(values["ingredients"]),
            category=category,
            language=re.split("[-_]", _text(values["language"]).lower())[0],
        )
        if not captions:
            return Rejection(where, "no title, description or category", name)
        dish = _text(values["dish_id"]) or _text(values["title"]).lower() or name
        return Row(name, dish, path.read_bytes, tuple(captions), category, columns=columns)


class SceneCatalogue:
    """`scenes:N`: N rendered dish scenes to train on, and held-out attribute combinations that training never has."""

    def __init__(self, source: str, *, size: int, holdout: float, seed: int = 0):
        number = source.removeprefix("scenes:")
        if not number.isdecimal() or int(number) < 1:
            raise CatalogueError(f"{source}: expected scenes:N with N at least 1, as scenes:20000")
        self.name = source
        self._size, self._seed = size, seed
        train = int(number)
        self._counts = {"train": train, "holdout": max(256, round(train * holdout)) if holdout else 0}

    def __len__(self) -> int:
        return sum(self._counts.values())

    def __iter__(self) -> Iterator[Row]:
        from fooddit.data import scenes

        for split, count in self._counts.items():
            for index in range(count):
                spec = scenes.sample_spec(self._seed, index, split)
                values = dataclasses.asdict(spec)
                yield Row(
                    id=f"{split}/{index}",
                    dish_id="-".join(map(str, spec.indices)),
                    load=_Render(spec, self._size),
                    captions=tuple(scenes.captions(spec)),
                    category=str(spec.kind).replace("_", " "),
                    attributes=values,
                    split=split,
                    columns=values,
                )


@dataclass(frozen=True)
class _Render:
    spec: Any
    size: int

    def __call__(self) -> bytes:
        from fooddit.data import scenes

        return encode_png(scenes.render_image(self.spec, self.size))


def _table(path: Path) -> tuple[int, Callable[[], Iterator[tuple[int, dict[str, Any] | str]]]]:
    """The number of rows of a metadata file, and a function that yields (line number, columns or what is wrong)."""
    if path.suffix == ".parquet":
        return _parquet(path)
    with path.open("rb") as file:
        lines = sum(1 for line in file if line.strip())
    if path.suffix == ".csv":
        return lines - 1, lambda: _csv_rows(path)
    return lines, lambda: _jsonl_rows(path)


def _jsonl_rows(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                columns = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            except ValueError as error:
                yield number, f"not a line of JSON in UTF-8: {error}"
                continue
            yield number, columns if isinstance(columns, dict) else f"expected a JSON object, found {line[:60]!r}"


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            for columns in reader:
                columns.pop(None, None)
                yield reader.line_num, columns
    except UnicodeDecodeError as error:
        raise CatalogueError(f"{path}: not UTF-8 ({error}); save it as UTF-8") from error


def _parquet(path: Path) -> tuple[int, Callable[[], Iterator[tuple[int, dict[str, Any]]]]]:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise CatalogueError(f"{path}: parquet needs pyarrow; install it with: pip install 'fooddit[prep]'") from error
    file = pyarrow.parquet.ParquetFile(path)

    def rows() -> Iterator[tuple[int, dict[str, Any]]]:
        number = 0
        for batch in file.iter_batches(batch_size=1024):
            for columns in batch.to_pylist():
                number += 1
                yield number, columns

    return file.metadata.num_rows, rows


def _first(columns: Mapping[str, Any], spellings: tuple[str, ...]) -> Any:
    found = {re.sub(r"[\s-]+", "_", str(name).strip().lower()): value for name, value in columns.items()}
    return next((found[name] for name in spellings if found.get(name) not in (None, "")), None)


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip()


def _list(value: Any) -> list[str]:
    if value is None:
        return []
    return [_text(part) for part in (_SEPARATORS.split(value) if isinstance(value, str) else value)]

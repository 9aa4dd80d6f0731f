"""Sources of pictures: a catalogue folder, a TFDS builder, or rendered scenes, plain or styled, as streams of rows."""

from __future__ import annotations

import dataclasses
import re
import stat
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fooddit.data.captions import build_captions, clean_text
from fooddit.data.images import encode_png
from fooddit.data.metadata import open_metadata
from fooddit.data.rows import Catalogue, CatalogueError, Rejection, Row, require_utf8
from fooddit.data.tfds_catalogue import TfdsCatalogue
from fooddit.data.where import column_key

METADATA_FILES = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
# A file is read whole before it is decoded, several at a time.
MAX_FILE_BYTES = 256 << 20
# More fits no disk and no memory.
MAX_SCENES, MAX_SCENE_SIDE = 10**9, 4096
_SCENES, _STYLES = "scenes:", "styles:"

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


def is_rendered(source: str) -> bool:
    """Whether the pictures of a source are drawn, at any size, and not read: "scenes:N" or "styles:N"."""
    return source.startswith((_SCENES, _STYLES))


def open_catalogue(source: str, *, size: int | None = None, holdout: float = 0.1) -> Catalogue:
    """A catalogue by its name: a folder, "tfds:NAME[?split=...&data_dir=...]", "scenes:N" or "styles:N".

    `size` and `holdout` matter only to rendered ones: the side in pixels (64 by default), and how many held-out
    pictures to render beside N for training (holdout * N, at least 256). Raises CatalogueError.
    """
    if is_rendered(source):
        catalogue = StyleCatalogue if source.startswith(_STYLES) else SceneCatalogue
        return catalogue(source, size=size or 64, holdout=holdout)
    if source.startswith("tfds:"):
        return TfdsCatalogue(source)
    return FolderCatalogue(source)


class FolderCatalogue:
    """A folder in the Hugging Face ImageFolder layout: pictures and one metadata file with a row for each.

    Columns: file_name, and any of title, description, ingredients (a list, or text separated by commas), category,
    language, dish_id. Rows without dish_id are grouped by title. https://huggingface.co/docs/datasets/image_dataset
    """

    def __init__(self, folder: str | Path):
        require_utf8("SOURCE", folder)
        self._folder = Path(folder)
        self.name = self._folder.resolve().name
        if not str(folder) or not self._folder.is_dir():
            what = "a file" if self._folder.is_file() else "no such folder"
            if re.match(r"\w+://", str(folder)):
                what = "an address, and pictures are read from a local folder: copy them first"
            raise CatalogueError(
                f"SOURCE {folder}: {what}; expected a folder with pictures, tfds:NAME, scenes:N or styles:N"
            )
        found = [self._folder / name for name in METADATA_FILES if (self._folder / name).is_file()]
        if len(found) != 1:
            what = " and ".join(path.name for path in found) if found else "none"
            raise CatalogueError(
                f"{folder}: expected one of {', '.join(METADATA_FILES)} with a file_name column, found {what}"
            )
        self._metadata = found[0]
        self._count, self._read = open_metadata(self._metadata)

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
        for column, value in values.items():
            if isinstance(value, (dict, bytes)) or (isinstance(value, (list, tuple)) and column != "ingredients"):
                return Rejection(where, "unreadable row", f"{column} is a {type(value).__name__}, expected text")
            if isinstance(value, (list, tuple)) and any(isinstance(part, (dict, list, tuple)) for part in value):
                return Rejection(
                    where, "unreadable row", f"{column} has lists or objects in it, expected a list of texts"
                )
        name = _text(values["file_name"])
        if not name:
            found = ", ".join(map(str, columns))
            hint = "; separate columns by commas" if len(columns) == 1 and re.search("[;\t]", found) else ""
            return Rejection(where, "no file_name", f"columns found: {found}{hint}")
        try:
            path = _as_spelled(self._folder, name).resolve()
            if not path.is_relative_to(root):
                return Rejection(where, "file outside the folder", f"{name} is {path}; copy it into the folder")
            status = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return Rejection(where, "file missing", name)
        except (OSError, RuntimeError, ValueError) as error:
            return Rejection(where, "file cannot be opened", f"{name}: {error}")
        if not stat.S_ISREG(status.st_mode):
            return Rejection(where, "not a file", f"{name} is a folder, a device or a pipe")
        if status.st_size > MAX_FILE_BYTES:
            return Rejection(where, "file too large", f"{name}: {status.st_size:,} bytes, at most {MAX_FILE_BYTES:,}")
        place = str(path.relative_to(root))
        if place in seen:
            return Rejection(where, "file listed twice", name)
        seen.add(place)
        category = clean_text(_text(values["category"]).replace("_", " ").lower())
        captions = build_captions(
            _text(values["title"]),
            description=_text(values["description"]),
            ingredients=_list(values["ingredients"]),
            category=category,
            language=re.split("[-_]", _text(values["language"]).lower())[0],
        )
        if not captions:
            return Rejection(where, "no title, description or category", name)
        dish = _as_key(_text(values["dish_id"])) or _as_key(_text(values["title"])).casefold() or name
        return Row(name, dish, path.read_bytes, tuple(captions), category, columns=columns)


def _as_key(text: str) -> str:
    """One spelling of what looks the same: composed, full-width letters as narrow ones, nothing invisible."""
    return clean_text(unicodedata.normalize("NFKC", text))


def _as_spelled(folder: Path, name: str) -> Path:
    """The file of that name, in the Unicode form that the disk has it in: a table may have the other one."""
    spellings = (name, unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name))
    return next((path for spelling in spellings if (path := folder / spelling).exists()), folder / name)


class SceneCatalogue:
    """`scenes:N`: N rendered dish scenes to train on, and held-out attribute combinations that training never has."""

    def __init__(self, source: str, *, size: int, holdout: float, seed: int = 0):
        kind, _, number = source.partition(":")
        if not number.isdecimal() or not 1 <= int(number) <= MAX_SCENES:
            raise CatalogueError(f"{source}: expected {kind}:N with N from 1 to {MAX_SCENES:,}, as {kind}:20000")
        if size > MAX_SCENE_SIDE:
            raise CatalogueError(f"size {size}: scenes are drawn at {MAX_SCENE_SIDE:,} pixels a side at most")
        self.name = source
        self._size, self._seed = size, seed
        train = int(number)
        self._counts = {"train": train, "holdout": max(256, round(train * holdout)) if holdout else 0}

    def __len__(self) -> int:
        return sum(self._counts.values())

    def __iter__(self) -> Iterator[Row]:
        for split, count in self._counts.items():
            for index in range(count):
                yield self._row(split, index)

    def _row(self, split: str, index: int) -> Row:
        from fooddit.data import scenes

        spec = scenes.sample_spec(self._seed, index, split)
        values = dataclasses.asdict(spec)
        return Row(
            id=f"{split}/{index}",
            dish_id="-".join(map(str, spec.indices)),
            load=_Render(scenes.render_image, spec, self._size),
            captions=tuple(scenes.captions(spec)),
            category=str(spec.kind).replace("_", " "),
            attributes=values,
            split=split,
            columns=values,
        )


class StyleCatalogue(SceneCatalogue):
    """`styles:N`: N rendered styled scenes, several a dish, and held-out dishes whose styles training never has.

    A record's attributes are the fields of its StyledSpec, and the indices of its named attributes and its texture.
    """

    def _row(self, split: str, index: int) -> Row:
        from fooddit.data import scenes

        spec = scenes.sample_styled(self._seed, index, split)
        values = dataclasses.asdict(spec)
        return Row(
            id=f"{split}/{index}",
            dish_id=f"{split}/style {index // scenes.PICTURES}",
            load=_Render(scenes.render_styled_image, spec, self._size),
            captions=tuple(scenes.styled_captions(spec)),
            category=str(spec.kind).replace("_", " "),
            attributes=values | {"indices": list(spec.indices), "texture_index": spec.texture_index},
            split=split,
            columns=values,
        )


@dataclass(frozen=True)
class _Render:
    draw: Callable[[Any, int], np.ndarray]
    spec: Any
    size: int

    def __call__(self) -> bytes:
        return encode_png(self.draw(self.spec, self.size))


def _first(columns: Mapping[str, Any], spellings: tuple[str, ...]) -> Any:
    found = {column_key(name): value for name, value in columns.items()}
    return next((found[name] for name in spellings if found.get(name) not in (None, "")), None)


def _text(value: Any) -> str:
    """Text without the spaces around it; a missing value, which is None or not a number, is empty."""
    return "" if value is None or value != value else str(value).strip()


def _list(value: Any) -> list[str]:
    return [_text(part) for part in (value if isinstance(value, (list, tuple)) else _SEPARATORS.split(_text(value)))]

"""A TFDS builder as a catalogue, read through tfds.data_source: no TensorFlow."""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterator
from typing import Any

from fooddit.data.captions import build_captions
from fooddit.data.rows import CatalogueError, Rejection, Row

_TITLES = ("title", "name")
_DESCRIPTIONS = ("caption", "description", "text", "captions")


class TfdsCatalogue:
    """`tfds:NAME[?split=train&data_dir=DIR]`: any builder with an image and a label or caption, in array_record format.

    All of its splits are read unless one is named: the hold-out is ours, by near-duplicate cluster. A class label
    becomes the title and the category, with spaces for underscores. Each picture is its own dish: a label is a class.
    """

    def __init__(self, source: str):
        try:
            import tensorflow_datasets as tfds
        except ImportError as error:
            raise CatalogueError(
                f"{source}: needs tensorflow-datasets; install it with: pip install -e '.[prep]'"
            ) from error
        self.name = source
        dataset, options = _parse_query(source.removeprefix("tfds:"))
        if unknown := options.keys() - {"split", "data_dir"}:
            raise CatalogueError(f"{source}: unknown option {sorted(unknown)}; expected split and data_dir")
        try:
            builder = tfds.builder(dataset, data_dir=options.get("data_dir"))
            if not builder.info.splits:
                builder.download_and_prepare(file_format="array_record")
            self._keys = _keys(source, builder.info.features, tfds)
            self._labels = builder.info.features[self._keys["label"]] if self._keys["label"] else None
            skip = {self._keys["image"]: tfds.decode.SkipDecoding()}
            names = [options["split"]] if options.get("split") else sorted(builder.info.splits)
            self._splits = {name: builder.as_data_source(split=name, decoders=skip) for name in names}
        except (tfds.core.DatasetNotFoundError, NotImplementedError, ValueError, ImportError) as error:
            # It lists all datasets that there are, one a line.
            reason = str(error).strip().splitlines()[0]
            raise CatalogueError(f"{source}: TFDS cannot read it (no TensorFlow is used here): {reason}") from error

    def __len__(self) -> int:
        return sum(map(len, self._splits.values()))

    def __iter__(self) -> Iterator[Row | Rejection]:
        for split, examples in self._splits.items():
            for index in range(len(examples)):
                try:
                    example = examples[index]
                except (RuntimeError, ValueError) as error:
                    yield Rejection(f"{split}/{index}", "unreadable row", str(error))
                    continue
                yield self._row(f"{split}/{index}", example)

    def _row(self, name: str, example: dict[str, Any]) -> Row | Rejection:
        category = ""
        # -1 is TFDS's label of an example without one.
        if self._labels is not None and (label := int(example[self._keys["label"]])) >= 0:
            category = self._labels.int2str(label).replace("_", " ").lower()
        title = _text(example, self._keys["title"]) or category
        captions = build_captions(title, description=_text(example, self._keys["description"]), category=category)
        if not captions:
            return Rejection(name, "no label and no caption", f"keys: {sorted(example)}")
        image = bytes(example[self._keys["image"]])
        return Row(name, name, lambda: image, tuple(captions), category, columns={"label": category, "title": title})


def _keys(source: str, features: Any, tfds: Any) -> dict[str, str | None]:
    """The feature that holds each thing: the image, a class label, a title, a description."""
    images = [name for name, feature in features.items() if isinstance(feature, tfds.features.Image)]
    labels = [name for name, feature in features.items() if isinstance(feature, tfds.features.ClassLabel)]
    titles = [name for name in _TITLES if name in features]
    descriptions = [name for name in _DESCRIPTIONS if name in features]
    if not images or not (labels or titles or descriptions):
        raise CatalogueError(
            f"{source}: its features are {sorted(features)}; expected an Image and a ClassLabel, "
            f"or a text named {', '.join(_TITLES + _DESCRIPTIONS)}"
        )
    label = "label" if "label" in labels else next(iter(labels), None)
    first = {"image": images[0], "label": label}
    return first | {"title": next(iter(titles), None), "description": next(iter(descriptions), None)}


def _text(example: dict[str, Any], key: str | None) -> str:
    """A text feature; of a sequence of texts, the first."""
    value = example[key] if key else b""
    if not isinstance(value, (str, bytes)):
        value = next(iter(value), b"")
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)


def _parse_query(source: str) -> tuple[str, dict[str, str]]:
    """ "name?a=1&b=2" as ("name", {"a": "1", "b": "2"})."""
    name, _, query = source.partition("?")
    return name, dict(urllib.parse.parse_qsl(query, keep_blank_values=True))

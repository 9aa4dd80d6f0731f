"""The dataset card and the contact sheet: what is in a dataset, for a person to look at before training on it."""

from __future__ import annotations

import collections
import html
import io
import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from fooddit.data.captions import MAX_CHARACTERS, clean_text
from fooddit.data.lettering import draw_line
from fooddit.data.records import SPLITS, Record
from fooddit.data.spool import Spool

CARD = "dataset_card.md"
SHEET = "contact_sheet.png"

_SIDES = (64, 128, 256, 512, 768, 1024, 2048)
_ASPECTS = (0.5, 0.67, 0.8, 0.95, 1.05, 1.25, 1.5, 2.0)
_LINE, _CELL = 100, 300
_MARKUP = re.compile(r"[\\`*_\[\]|~$]")
_COLUMNS, _ROWS, _TILE, _GAP, _LABEL, _HEADER = 8, 6, 176, 16, 44, 84
_PAPER, _INK, _FAINT, _HELD = "#faf8f4", "#2b2622", "#8d857b", "#c2410c"


@dataclass
class Contents:
    """Counts of what was written, gathered one record at a time, and the pictures for the contact sheet."""

    wanted: frozenset[int]
    samples: list[tuple[int, Record, str]] = field(default_factory=list)
    sides: collections.Counter = field(default_factory=collections.Counter)
    aspects: collections.Counter = field(default_factory=collections.Counter)
    captions: collections.Counter = field(default_factory=collections.Counter)
    categories: collections.Counter = field(default_factory=collections.Counter)
    cut: int = 0

    def add(self, index: int, record: Record, split: str) -> None:
        self.sides[int(np.searchsorted(_SIDES, min(record.width, record.height), side="right"))] += 1
        self.aspects[int(np.searchsorted(_ASPECTS, record.width / record.height, side="right"))] += 1
        self.captions.update((caption.language, caption.style) for caption in record.captions)
        self.categories[record.category or "(none)"] += 1
        self.cut += sum(len(caption.text) == MAX_CHARACTERS for caption in record.captions)
        if index in self.wanted:
            self.samples.append((index, record, split))


def sample(clusters: np.ndarray, splits: np.ndarray) -> frozenset[int]:
    """Which pictures the contact sheet shows: one of a cluster, spread over the catalogue, a sixth of them held out."""
    _, firsts = np.unique(clusters, return_index=True)
    chosen: list[int] = []
    room = {"holdout": _COLUMNS * _ROWS // 6}
    for split in ("holdout", "train"):
        candidates = np.sort(firsts[splits[firsts] == split])
        count = min(len(candidates), room.get(split, _COLUMNS * _ROWS - len(chosen)))
        chosen += candidates[np.linspace(0, len(candidates) - 1, count).astype(int)].tolist() if count else []
    return frozenset(chosen)


def facts(
    source: str,
    fingerprint: str,
    contents: Contents,
    spool: Spool,
    clusters: np.ndarray,
    splits: np.ndarray,
    entries: dict[str, dict],
) -> dict[str, Any]:
    """All that the card says, as plain data."""
    sizes = np.bincount(clusters)
    return {
        "source": source,
        "fingerprint": fingerprint,
        "splits": {
            split: {
                "pictures": entries[split]["records"],
                "dishes": len(np.unique(spool.dishes[splits == split])),
                "shards": len(entries[split]["shards"]),
                "bytes": sum(shard["bytes"] for shard in entries[split]["shards"]),
            }
            for split in SPLITS
        },
        "clusters": len(sizes),
        "clusters_of_several_pictures": int((sizes > 1).sum()),
        "shorter_side": _histogram(contents.sides, _SIDES, "px"),
        "aspect": _histogram(contents.aspects, _ASPECTS, ""),
        "captions": {f"{language} {style}": n for (language, style), n in sorted(contents.captions.items())},
        "categories": dict(sorted(contents.categories.items(), key=lambda item: (-item[1], item[0]))),
        "captions_cut": contents.cut,
        "filtered": spool.filtered,
        "rejected": {
            reason: {"rows": count, "examples": spool.rejections.examples[reason]}
            for reason, count in sorted(spool.rejections.counts.items(), key=lambda item: (-item[1], item[0]))
        },
    }


def write_card(folder: Path, data: dict[str, Any]) -> None:
    """Writes dataset_card.md, for people, and dataset_card.json, for programs."""
    (folder / CARD).write_text(_markdown(data), encoding="utf-8")
    text = json.dumps(data, indent=2, ensure_ascii=False) + "\n"
    (folder / CARD).with_suffix(".json").write_text(text, encoding="utf-8")


def write_contact_sheet(folder: Path, samples: Sequence[tuple[int, Record, str]], data: dict[str, Any]) -> None:
    """Writes contact_sheet.png: a grid of pictures with their titles in the catalogue's order, held-out ones marked.

    A Chinese title is drawn if a font with its glyphs is found on this machine, else the dish's number stands there.
    """
    rows = -(-len(samples) // _COLUMNS)
    width = _GAP + _COLUMNS * (_TILE + _GAP)
    sheet = Image.new("RGB", (width, _HEADER + rows * (_TILE + _LABEL + _GAP)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw_line(draw, (_GAP, 40), clean_text(data["source"])[:_LINE], 24, _INK, width - 2 * _GAP)
    counts = ", ".join(f"{split} {entry['pictures']:,}" for split, entry in data["splits"].items())
    line = f"{counts} pictures; {len(samples)} shown, those with a coloured frame are held out"
    draw_line(draw, (_GAP, 66), line, 15, _FAINT, width - 2 * _GAP)
    for number, (_, record, split) in enumerate(sorted(samples, key=lambda sample: sample[0])):
        row, column = divmod(number, _COLUMNS)
        x, y = _GAP + column * (_TILE + _GAP), _HEADER + row * (_TILE + _LABEL + _GAP)
        _draw_tile(sheet, draw, (x, y), record, split == "holdout")
        title = record.captions[0].text[:_LINE] if record.captions else ""
        draw_line(draw, (x, y + _TILE + 20), title, 15, _INK, _TILE, f"dish {record.cluster}")
        category = "" if record.category == title else record.category
        below = f"{category[:_LINE]}  {record.width}x{record.height}".strip()
        draw_line(draw, (x, y + _TILE + 37), below, 13, _FAINT, _TILE, f"{record.width}x{record.height}")
    sheet.save(folder / SHEET)


def _draw_tile(sheet: Image.Image, draw: ImageDraw.ImageDraw, at: tuple[int, int], record: Record, held: bool) -> None:
    """One picture with round corners, whole when it is small and square, cropped to a square otherwise."""
    with Image.open(io.BytesIO(record.image)) as opened:
        enlarge = max(opened.size) <= _TILE // 2
        filtering = Image.Resampling.NEAREST if enlarge else Image.Resampling.LANCZOS
        tile = ImageOps.fit(opened.convert("RGB"), (_TILE, _TILE), filtering)
    mask = Image.new("L", (4 * _TILE, 4 * _TILE), 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, 4 * _TILE - 1, 4 * _TILE - 1), 48, fill=255)
    if held:
        draw.rounded_rectangle((at[0] - 4, at[1] - 4, at[0] + _TILE + 3, at[1] + _TILE + 3), 15, fill=_HELD)
    sheet.paste(tile, at, mask.resize((_TILE, _TILE), Image.Resampling.LANCZOS))


def _histogram(counts: collections.Counter, edges: Sequence[float], unit: str) -> dict[str, int]:
    names = [f"below {edges[0]}", *(f"{a} to {b}" for a, b in itertools.pairwise(edges)), f"{edges[-1]} and more"]
    return {f"{names[bin]} {unit}".strip(): counts[bin] for bin in sorted(counts)}


def _markdown(data: dict[str, Any]) -> str:
    splits = data["splits"]
    total = sum(entry["pictures"] for entry in splits.values())
    parts = [
        f"# {_cell(data['source'])}",
        (
            f"{total:,} pictures. Made by `fooddit prepare`; fingerprint `{data['fingerprint'][:16]}`. "
            "See contact_sheet.png for a look, dataset_card.json for the same figures as data."
        ),
        "## Splits",
        _table(
            ("split", "pictures", "dishes", "shards", "MB"),
            [(s, e["pictures"], e["dishes"], e["shards"], f"{e['bytes'] / 1e6:.1f}") for s, e in splits.items()],
        ),
        (
            f"Split by dish and near-duplicate, never by picture: {data['clusters']:,} groups, "
            f"{data['clusters_of_several_pictures']:,} of them with several pictures."
        ),
        "## Rows that were not used",
        _rejected(data),
        "## Captions",
        _table(("language and style", "captions"), data["captions"].items()),
        *(
            [f"{data['captions_cut']:,} of them were cut at {MAX_CHARACTERS:,} characters."]
            * bool(data["captions_cut"])
        ),
        "## Shorter side",
        _bars(data["shorter_side"]),
        "## Aspect (width / height)",
        _bars(data["aspect"]),
        f"## Categories ({len(data['categories'])})",
        _table(("category", "pictures"), list(data["categories"].items())[:50]),
    ]
    if len(data["categories"]) > 50:
        parts.append(f"and {len(data['categories']) - 50} more, in dataset_card.json")
    return "\n\n".join(parts) + "\n"


def _rejected(data: dict[str, Any]) -> str:
    rows = [(reason, group["rows"], group["examples"]) for reason, group in data["rejected"].items()]
    if data["filtered"]:
        rows.append(("left out by --where", data["filtered"], ""))
    return _table(("reason", "rows", "examples"), rows) if rows else "None: every row was used."


def _table(header: Sequence[str], rows: Any) -> str:
    cells = [header, ["---"] * len(header), *(map(_cell, row) for row in rows)]
    return "\n".join("| " + " | ".join(row) + " |" for row in cells)


def _cell(value: Any) -> str:
    """A value as one line of Markdown that shows just these characters: titles and file names are no markup."""
    if isinstance(value, list):
        return "<br>".join(map(_cell, value))
    text = clean_text(str(value))
    text = text if len(text) <= _CELL else text[:_CELL] + "..."
    return _MARKUP.sub(r"\\\g<0>", html.escape(text, quote=False))


def _bars(counts: dict[str, int]) -> str:
    most = max(counts.values())
    return _table(("", "pictures", ""), [(name, n, "█" * round(20 * n / most)) for name, n in counts.items()])

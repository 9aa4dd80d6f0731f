"""The corpus of bad input, made by code: every case with the reason it is counted under, its message, or its pixels.

Pictures are files of a catalogue, rows are lines of its metadata.jsonl, tables are whole metadata files, prompts are
what `fooddit generate` is given, configs what a run is. docs/reliability.md says what each is answered with and why.
"""

from __future__ import annotations

import io
import json
import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from tests.data.made import jpeg, picture

WIDTH, HEIGHT = 60, 40
PIXELS = picture(77, WIDTH, HEIGHT)


@dataclass(frozen=True)
class PictureCase:
    """A file. Refused: `reason` and a part of `detail`. Usable: its `pixels` within `tolerance`, or its `size`."""

    name: str
    data: bytes
    detail: str = ""
    pixels: np.ndarray | None = None
    tolerance: float = 0.0
    size: tuple[int, int] | None = None
    reason: str = "picture cannot be read"


@dataclass(frozen=True)
class RowCase:
    """A line of metadata.jsonl, what must lie on the disk for it, and what it is counted under."""

    name: str
    line: str | bytes | dict[str, Any]
    reason: str
    detail: str = ""
    place: Callable[[Path], Any] = lambda folder: None


@dataclass(frozen=True)
class TableCase:
    """A metadata file: refused as a whole with `message`, or rows by file name and title, and rejections by detail."""

    name: str
    file: str
    content: bytes
    message: str = ""
    titles: dict[str, str] = field(default_factory=dict)
    rejected: tuple[str, ...] = ()


def _saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def _png(width: int, height: int, pixels: bytes = b"") -> bytes:
    """A PNG of one bit a pixel that declares a size, whatever it holds."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)), (b"IDAT", zlib.compress(pixels))]
    parts = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in [*chunks, (b"IEND", b"")]
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _deep(pixels: np.ndarray) -> bytes:
    """8-bit pixels as the high bytes of a 16-bit PNG."""
    return cv2.imencode(".png", pixels[..., ::-1].astype(np.uint16) * 256 + 255)[1].tobytes()


_IMAGE = Image.fromarray(PIXELS)
_OTHER = Image.fromarray(picture(78, WIDTH, HEIGHT))
_PALETTE = _IMAGE.quantize(64)
_GREY = np.repeat(PIXELS[..., :1], 3, axis=2)
_WHITE_CORNER = PIXELS.copy()
_WHITE_CORNER[:10, :10] = 255
_ALPHA = np.dstack([PIXELS, np.full((HEIGHT, WIDTH), 255, np.uint8)])
_ALPHA[:10, :10, 3] = 0
_EXIF = Image.Exif()
_EXIF[0x0112] = 6
_ANIMATION: dict[str, Any] = {"save_all": True, "append_images": [_OTHER], "duration": 100}
_JPEG, _PNG, _WEBP = (_saved(_IMAGE, kind) for kind in ("JPEG", "PNG", "WEBP"))

BAD_PICTURES = [
    PictureCase("zero-byte.jpg", b"", "empty, 0 bytes; copy or download it again"),
    PictureCase("truncated.jpg", _JPEG[:-100], "Premature end"),
    PictureCase("truncated-header.jpg", _JPEG[: len(_JPEG) // 2], "Truncated File Read"),
    PictureCase("truncated.png", _PNG[: len(_PNG) // 2], "truncated"),
    PictureCase("without-its-end.png", _PNG[:-20], "damaged"),
    PictureCase("truncated.webp", _WEBP[: len(_WEBP) // 2], "damaged"),
    PictureCase("truncated.gif", _saved(_PALETTE, "GIF")[:-100], "truncated"),
    PictureCase("flipped-bit.png", _PNG[:200] + bytes([_PNG[200] ^ 1]) + _PNG[201:], "damaged"),
    PictureCase("header-only.jpg", _JPEG[:4], "known format"),
    PictureCase("photo.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(400), "HEIC; convert it to JPEG or PNG"),
    PictureCase("burst.heif", b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(400), "HEIC; convert it to JPEG or PNG"),
    PictureCase("video.jpg", b"\0\0\0\x18ftypisom\0\0\0\0isommp42" + bytes(400), "video; convert it to JPEG or PNG"),
    PictureCase("drawing.svg", b'<svg xmlns="http://www.w3.org/2000/svg"></svg>', "SVG, a drawing; convert it"),
    PictureCase("drawing.jpg", b'\xef\xbb\xbf<?xml version="1.0"?>\n<svg></svg>', "SVG, a drawing; convert it"),
    PictureCase("not-found.jpg", b"<!DOCTYPE html><title>404</title>", "a web page or message instead of a picture"),
    PictureCase("postscript.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "known format"),
    PictureCase("text.jpg", b"soup of the day", "not a picture of a known format"),
    PictureCase("bomb-declared.png", _png(60_000, 60_000), "declares more than 134,217,728 pixels; shrink it"),
    PictureCase(
        "bomb.png",
        _png(12_000, 12_000, bytes(12_000 * 1501)),
        "declares 12000 x 12000 pixels, at most 134,217,728 are read; shrink it",
    ),
    PictureCase("floats.tiff", _saved(Image.fromarray(PIXELS[..., 0] / np.float32(255)), "TIFF"), "floating-point"),
]

USABLE_PICTURES = [
    PictureCase(
        "rotated.jpg", _saved(_IMAGE, "JPEG", exif=_EXIF, quality=95), pixels=np.rot90(PIXELS, -1), tolerance=4
    ),
    PictureCase("rotated.png", _saved(_IMAGE, "PNG", exif=_EXIF), pixels=np.rot90(PIXELS, -1)),
    PictureCase(
        "broken-exif.jpg", _saved(_IMAGE, "JPEG", exif=b"Exif\0\0soup", quality=95), pixels=PIXELS, tolerance=4
    ),
    PictureCase("cmyk.jpg", _saved(_IMAGE.convert("CMYK"), "JPEG", quality=95), pixels=PIXELS, tolerance=6),
    PictureCase("cmyk.tiff", _saved(_IMAGE.convert("CMYK"), "TIFF"), pixels=PIXELS, tolerance=1),
    PictureCase("16-bit.png", _deep(PIXELS), pixels=PIXELS),
    PictureCase("16-bit-grey.png", _deep(PIXELS[..., :1]), pixels=_GREY),
    PictureCase("16-bit-grey.tiff", _saved(Image.fromarray(PIXELS[..., 0] * np.uint16(256)), "TIFF"), pixels=_GREY),
    PictureCase("palette.png", _saved(_PALETTE, "PNG"), pixels=np.asarray(_PALETTE.convert("RGB"))),
    PictureCase("transparent.png", _saved(Image.fromarray(_ALPHA), "PNG"), pixels=_WHITE_CORNER),
    PictureCase(
        "grey.jpg",
        _saved(_IMAGE.convert("L"), "JPEG"),
        pixels=np.asarray(_IMAGE.convert("L").convert("RGB")),
        tolerance=4,
    ),
    PictureCase("animated.gif", _saved(_PALETTE, "GIF", **_ANIMATION), pixels=np.asarray(_PALETTE.convert("RGB"))),
    PictureCase("animated.webp", _saved(_IMAGE, "WEBP", lossless=True, **_ANIMATION), pixels=PIXELS, tolerance=2),
    PictureCase("animated.png", _saved(_IMAGE, "PNG", **_ANIMATION), pixels=PIXELS),
    PictureCase("two-pictures.mpo", _saved(_IMAGE, "MPO", quality=95, **_ANIMATION), pixels=PIXELS, tolerance=4),
    PictureCase("no-extension", _PNG, pixels=PIXELS),
    PictureCase("png-inside.jpg", _PNG, pixels=PIXELS),
    PictureCase("wide.jpg", _saved(Image.new("RGB", (30_000, 40), "red"), "JPEG"), size=(30_000, 40)),
    PictureCase("one-pixel.gif", _saved(Image.new("P", (1, 1)), "GIF"), size=(1, 1)),
]


def _row(file_name: Any, title: Any = "soup", **columns: Any) -> dict[str, Any]:
    return {"file_name": file_name, "title": title} | columns


def _link_out(folder: Path) -> None:
    (folder.parent / "private.jpg").write_bytes(jpeg(1))
    (folder / "link.jpg").symlink_to(folder.parent / "private.jpg")


def _sparse(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.truncate(size)


def _picture(name: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_bytes(jpeg(2))


_BROKEN, _CLOSED, _OUTSIDE = "unreadable row", "file cannot be opened", "file outside the folder"
_NAMELESS = "no title, description or category"
_HUGE = 300 << 20

BAD_ROWS = [
    RowCase("not JSON", '{"file_name": "soup.jpg", "title": ', _BROKEN, "not a line of JSON"),
    RowCase("deep JSON", "[" * 100_000, _BROKEN, "not a line of JSON"),
    RowCase("a list", '["soup.jpg", "soup"]', _BROKEN, "expected a JSON object"),
    RowCase("GBK", '{"file_name": "a.jpg", "title": "红烧肉"}'.encode("gbk"), _BROKEN, "not UTF-8"),
    RowCase("half a pair", r'{"file_name": "a.jpg", "title": "\ud83c"}', _BROKEN, "surrogate pair"),
    RowCase("a title that is a list", _row("a.jpg", ["a", "b"]), _BROKEN, "title is a list, expected text"),
    RowCase("no file name", {"title": "soup"}, "no file_name", "columns found: title"),
    RowCase("no file", _row("nowhere.jpg"), "file missing", "nowhere.jpg"),
    RowCase("a file as folder", _row("good-0.jpg/a.jpg"), "file missing", "good-0.jpg/a.jpg"),
    RowCase("a file name of 10,000 letters", _row("a" * 10_000), _CLOSED, "too long"),
    RowCase("NUL in a file name", _row("a\0.jpg"), _CLOSED, "null"),
    RowCase("a circle of links", _row("o.jpg"), _CLOSED, "o.jpg", lambda f: (f / "o.jpg").symlink_to("o.jpg")),
    RowCase("a folder", _row("folder.jpg"), "not a file", "folder.jpg", lambda f: (f / "folder.jpg").mkdir()),
    RowCase("a pipe", _row("pipe.jpg"), "not a file", "pipe.jpg", lambda f: os.mkfifo(f / "pipe.jpg")),
    RowCase("a path outside", _row("../private.jpg"), _OUTSIDE, "copy it into the folder", _link_out),
    RowCase("an absolute path", _row("/etc/passwd"), _OUTSIDE, "/etc/passwd"),
    RowCase("a link out of the folder", _row("link.jpg"), _OUTSIDE, "private.jpg"),
    RowCase(
        "300 MB", _row("huge.jpg"), "file too large", "314,572,800 bytes", lambda f: _sparse(f / "huge.jpg", _HUGE)
    ),
    RowCase("listed again", _row("good-0.jpg"), "file listed twice", "good-0.jpg"),
    RowCase("listed again in other words", _row("folder.jpg/../good-0.jpg"), "file listed twice", "good-0.jpg"),
    RowCase("no caption", _row("no.jpg", ""), _NAMELESS, "no.jpg", _picture("no.jpg")),
    RowCase("blank caption", _row("blank.jpg", " \n\t"), _NAMELESS, "blank.jpg", _picture("blank.jpg")),
    RowCase("invisible caption", _row("zero.jpg", "\u200b\ufeff\0"), _NAMELESS, "zero.jpg", _picture("zero.jpg")),
    RowCase("not a number", '{"file_name": "nan.jpg", "title": NaN}', _NAMELESS, "nan.jpg", _picture("nan.jpg")),
]

_HEAD = b"file_name,title\n"
_ZH = "file_name,title\na.jpg,红烧肉\nb.jpg,汤\n"
_TWO = {"a.jpg": "beef", "b.jpg": "soup"}
_LINES = [json.dumps(_row("a.jpg", "beef")), json.dumps(_row("b.jpg", "soup"))]

TABLES = [
    TableCase("empty", "metadata.csv", b"", message="empty; expected a row for each picture"),
    TableCase("blank lines", "metadata.jsonl", b"\n\r\n\n", message="empty; expected a row for each picture"),
    TableCase("GBK", "metadata.csv", _ZH.encode("gbk"), message="iconv -f GBK -t UTF-8 metadata.csv"),
    TableCase("UTF-16", "metadata.csv", _ZH.encode("utf-16"), message="UTF-16 or no text at all; save it as UTF-8"),
    TableCase("UTF-16, no mark", "metadata.jsonl", _LINES[0].encode("utf-16-le"), message="UTF-16 or no text at all"),
    TableCase("a picture", "metadata.csv", _PNG, message="metadata.csv"),
    TableCase("a column twice", "metadata.csv", b"file_name,title,Title \na.jpg,x,y\n", message="title more than once"),
    TableCase("a broken header", "metadata.csv", b'"file_name,title\na.jpg,x\n', message="must name the columns"),
    TableCase("no parquet", "metadata.parquet", b"PAR1 soup", message="no parquet file, or a damaged one"),
    TableCase("byte order mark", "metadata.csv", b"\xef\xbb\xbffile_name,title\na.jpg,beef\nb.jpg,soup\n", titles=_TWO),
    TableCase("two joined files", "metadata.jsonl", "\n\ufeff".join(_LINES).encode("utf-8-sig"), titles=_TWO),
    TableCase("mixed newlines", "metadata.csv", b"file_name,title\r\na.jpg,beef\rb.jpg,soup\n", titles=_TWO),
    TableCase("old Mac newlines", "metadata.jsonl", "\r".join(_LINES).encode(), titles=_TWO),
    TableCase(
        "line separator in a string",
        "metadata.jsonl",
        '{"file_name": "a.jpg", "title": "beef\u2028stew\u0085hot"}\n'.encode(),
        titles={"a.jpg": "beef stew hot"},
    ),
    TableCase("newline in quotes", "metadata.csv", _HEAD + b'a.jpg,"beef\r\nstew"\n', titles={"a.jpg": "beef stew"}),
    TableCase("NUL", "metadata.csv", _HEAD + b"a.jpg,be\0ef\nb.jpg,soup\n", titles={"a.jpg": "be ef", "b.jpg": "soup"}),
    TableCase(
        "one line in Latin-1",
        "metadata.csv",
        _HEAD + b"a.jpg,beef\nc.jpg,br\xfbl\xe9e\nb.jpg,soup\n",
        titles=_TWO,
        rejected=("not UTF-8",),
    ),
    TableCase(
        "a value too many",
        "metadata.csv",
        _HEAD + b"a.jpg,beef\nc.jpg,beans, red\nb.jpg,soup\n",
        titles=_TWO,
        rejected=("3 values, expected 2",),
    ),
    TableCase("a value too few", "metadata.csv", b"file_name,title,lang\na.jpg,beef\nb.jpg,soup,en\n", titles=_TWO),
    TableCase(
        "columns without names", "metadata.csv", b"file_name,title,,\na.jpg,beef,,\n,,,\nb.jpg,soup,,", titles=_TWO
    ),
    TableCase(
        "a quote never closed",
        "metadata.csv",
        _HEAD + b'a.jpg,beef\nc.jpg,"beans\nb.jpg,soup\n',
        titles=_TWO,
        rejected=("broken CSV: unexpected end of data",),
    ),
    TableCase(
        "a quote closed by the next row's",
        "metadata.csv",
        _HEAD + b'a.jpg,beef\nc.jpg,"beans\nb.jpg,"soup"\n',
        titles=_TWO,
        rejected=("broken CSV: ',' expected after '\"'",),
    ),
    TableCase(
        "a field of 200,000 characters",
        "metadata.csv",
        _HEAD + b"a.jpg,beef\nc.jpg," + b"x" * 200_000 + b"\nb.jpg,soup\n",
        titles=_TWO,
        rejected=("field larger than field limit",),
    ),
    *(
        TableCase(f"injection by {text[0]}", "metadata.csv", _HEAD + f'a.jpg,"{text}"'.encode(), titles={"a.jpg": text})
        for text in ("=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(1)")
    ),
]

# Titles and categories that break a page which takes them for markup.
MARKUP = [
    "<script>alert(1)</script>",
    "a | b",
    "![x](http://x.y/z.png)",
    "`rm -rf`",
    "# soup\n\n- <b>",
    "a\\|b",
    "\u202esoup",
]

PROMPTS = {
    "empty": (["--prompt", "soup", "--prompt", ""], "prompt 2 (--prompt 2) is empty"),
    "blank": (["--prompt", " \t\u3000"], "prompt 1 (--prompt 1) is empty"),
    "invisible": (["--prompt", "\u200b"], "is empty"),
    "100,000 characters": (["--prompt", "soup " * 20_000], "has 100,000 characters, expected at most 4,000"),
    "control character": (["--prompt", "soup\x07"], "has a control character (U+0007, place 5)"),
    "half of a character": (["--prompt", "soup \udce9"], "has half of a character (U+DCE9, place 6)"),
}
PROMPT_FILES = {
    "missing": (None, "--prompt-file {file}: no such file, expected"),
    "empty": (b"\xef\xbb\xbf\r\n \n", "no prompts; expected one a line"),
    "a picture": (_PNG, "expected UTF-8 text"),
    "GBK": ("三个饺子".encode("gbk"), "expected UTF-8 text"),
    "NUL": (b"soup\nbe\0ef\n", "prompt 2 ({file}:2) has a control character (U+0000, place 3)"),
    "after blank lines": (b"soup\n\n\n\x1b[31mred\n", "prompt 2 ({file}:4) has a control character (U+001B, place 1)"),
}
GOOD_PROMPTS = [
    "🍕",
    "🍜 a bowl of ramen",
    "مرحبا حساء",
    "\u202bשלום\u202c",
    "three\u2028dumplings",
    "../../etc/passwd",
    ".",
]

CONFIGS = {
    "unknown key": ({"train": {"stpes": 3}}, "train.stpes"),
    "negative steps": ({"train": {"steps": -3}}, "train.steps must be at least 1, found -3"),
    "text for a number": ({"train": {"steps": "many"}}, "train.steps"),
    "a fraction of a step": ({"train": {"steps": 1.5}}, "train.steps"),
    "a number for a section": ({"data": 3}, "data"),
    "a type that nothing computes in": ({"model": {"dtype": "int8"}}, "model.dtype: found 'int8', expected one of"),
    "more guidance than there is": ({"sampling": {"guidance_scale": 1e30}}, "guidance_scale must be from 0 to"),
    "no time for a step": ({"train": {"hang_seconds": 0.01}}, "hang_seconds must be 0 (no watch) or at least 10"),
    "odds that do not add up": ({"data": {"short": 0.9}}, "expected odds that sum to 1"),
}

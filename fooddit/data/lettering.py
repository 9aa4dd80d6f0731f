"""Text on pictures that people look at: fonts with Chinese where this machine has one, lines cut or wrapped to fit."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator

from PIL import ImageDraw, ImageFont

# Fonts with more glyphs than Pillow's own, by file name and number of the face in it, on Linux, macOS and Windows; all
# but the first have Chinese ones. Of a file with a face for each region, the one of simplified Chinese.
_FONTS = (
    ("DejaVuSans.ttf", 0),
    ("NotoSansCJK-Regular.ttc", 2),
    ("NotoSansCJKsc-Regular.otf", 0),
    ("NotoSansSC-Regular.otf", 0),
    ("SourceHanSansSC-Regular.otf", 0),
    ("wqy-microhei.ttc", 0),
    ("wqy-zenhei.ttc", 0),
    ("DroidSansFallbackFull.ttf", 0),
    ("PingFang.ttc", 0),
    ("Hiragino Sans GB.ttc", 0),
    ("STHeiti Light.ttc", 0),
    ("msyh.ttc", 0),
    ("simhei.ttf", 0),
)
# A Chinese character or mark, or a run of anything else between spaces.
_UNITS = re.compile(r"[\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef]|[^\s\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef]+|\s+")
# Marks that begin no line.
_CLOSING = "，。、；：？！）》」』】”’"


def font_for(text: str, size: int) -> ImageFont.FreeTypeFont | None:
    """The first font of this machine that has a glyph for every character; None if there is none."""
    return next((font for font in fonts(size) if _has_glyphs(font, text)), None)


@functools.cache
def fonts(size: int) -> tuple[ImageFont.FreeTypeFont, ...]:
    """Pillow's own font, which is always there, and those for more letters and for Chinese that this machine has."""
    found = [ImageFont.load_default(size)]
    for name, face in _FONTS:
        try:
            found.append(ImageFont.truetype(name, size, index=face))
        except OSError:
            continue
    return tuple(found)


def draw_line(
    draw: ImageDraw.ImageDraw,
    at: tuple[int, int],
    text: str,
    size: int,
    colour: str,
    width: int,
    instead: str = "",
) -> None:
    """Draws one line, cut with an ellipsis at `width` pixels; `instead` stands there if no font has all its glyphs.

    `at` is the left end of the baseline: fonts differ in the height above it.
    """
    font = font_for(text, size)
    if font is None:
        text, font = instead, fonts(size)[-1]
    whole = text
    while text and draw.textlength(text if text == whole else text + "...", font=font) > width:
        text = text[:-1].rstrip()
    draw.text(at, text if text == whole else text + "...", fill=colour, font=font, anchor="ls")


def wrap(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Lines of at most `width` pixels: broken between words, in Chinese between characters, never before a comma."""
    lines, line = [], ""
    for unit in _units(text, font, width):
        if line and font.getlength((line + unit).rstrip()) > width:
            lines.append(line.rstrip())
            line = ""
        line += unit if line else unit.lstrip()
    return lines + [line.rstrip()] if line.strip() else lines


def _units(text: str, font: ImageFont.FreeTypeFont, width: int) -> Iterator[str]:
    """What a line may not be broken inside of; a word wider than a line is cut into characters."""
    unit = ""
    for part in _UNITS.findall(text):
        if unit and part not in _CLOSING:
            yield from [unit] if font.getlength(unit) <= width else unit
            unit = ""
        unit += part
    yield from [unit] if font.getlength(unit) <= width else unit


def _has_glyphs(font: ImageFont.FreeTypeFont, text: str) -> bool:
    """Whether a font draws every character as something else than the box that stands for a missing one."""
    missing = font.getmask("\U0010fffd")
    box = (missing.size, bytes(missing))
    return all((mask.size, bytes(mask)) != box for mask in map(font.getmask, set(text) - set(" ")))

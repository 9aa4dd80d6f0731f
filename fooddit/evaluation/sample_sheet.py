"""The sample sheet: generated pictures beside their whole prompts, a page to show to somebody."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from fooddit.data.lettering import font_for, fonts, wrap

_WIDTH, _MARGIN, _COLUMNS, _SIDE = 1600, 64, 3, 192
_GUTTER, _ROW_GAP, _TEXT_GAP, _CORNER = 44, 40, 22, 14
_TITLE, _SUBTITLE, _PROMPT, _NOTE = 42, 20, 20, 16
_LEADING = 1.36
_MEASURE = 1080  # the longest line of the subtitle
_PAPER, _INK, _MUTED, _RULE, _WRONG, _RIGHT = "#faf8f4", "#2b2622", "#857c72", "#ddd6cb", "#b3401c", "#5b7f4f"
_DOTS = {None: _MUTED, False: _RIGHT, True: _WRONG}


class Note(NamedTuple):
    """A line under a prompt: what was found in the picture, and whether that is wrong (None: neither right nor so)."""

    text: str
    wrong: bool | None = None


def sample_sheet(
    images: UInt8[np.ndarray, "n height width 3"],
    prompts: Sequence[str],
    *,
    title: str,
    subtitle: str,
    notes: Sequence[Note] | None = None,
    english: Sequence[str] | None = None,
) -> Image.Image:
    """Pictures, enlarged to about 192 pixels, each with its prompt and note at its right: 1600 pixels wide, RGB.

    Args:
      english: stands for a prompt whose letters no font of this machine has, marked "(asked in Chinese)".

    Raises:
      ValueError: another number of prompts, notes or english texts than of pictures, or none at all.
    """
    _check(images, prompts, notes, english)
    pictures = [_enlarged(image) for image in images]
    box = pictures[0].size
    cell = (_WIDTH - 2 * _MARGIN - (_COLUMNS - 1) * _GUTTER) // _COLUMNS
    width = cell - box[0] - _TEXT_GAP
    texts = [_Text(prompt, english[i] if english else "", width) for i, prompt in enumerate(prompts)]
    remarks = [_Remark(notes[i] if notes else None, width) for i in range(len(prompts))]
    heights = [max(box[1], text.height + remark.height) for text, remark in zip(texts, remarks)]
    rows = [max(heights[i : i + _COLUMNS]) for i in range(0, len(heights), _COLUMNS)]

    about = wrap(subtitle, font_for(subtitle, _SUBTITLE) or fonts(_SUBTITLE)[0], _MEASURE)
    top = _MARGIN + _TITLE + 14 + round(len(about) * _SUBTITLE * _LEADING) + 52
    height = top + sum(rows) + (len(rows) - 1) * _ROW_GAP + _MARGIN
    sheet = Image.new("RGB", (_WIDTH, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    _draw_header(draw, title, about, top - 26)
    for i, (picture, text, remark) in enumerate(zip(pictures, texts, remarks)):
        row, column = divmod(i, _COLUMNS)
        x, y = _MARGIN + column * (cell + _GUTTER), top + sum(rows[:row]) + row * _ROW_GAP
        sheet.paste(picture, (x, y), _rounded(picture.size))
        below = text.draw(draw, (x + box[0] + _TEXT_GAP, y))
        remark.draw(draw, (x + box[0] + _TEXT_GAP, below))
    return sheet


class _Text:
    """A prompt, wrapped: its lines and their height."""

    def __init__(self, prompt: str, english: str, width: int):
        font = font_for(prompt, _PROMPT)
        self.asked_in_chinese = font is None
        self.font = font or font_for(english, _PROMPT) or fonts(_PROMPT)[0]
        self.lines = wrap(english if self.asked_in_chinese else prompt, self.font, width)
        if self.asked_in_chinese:
            self.lines.append("(asked in Chinese)")
        self.height = round(len(self.lines) * _PROMPT * _LEADING)

    def draw(self, draw: ImageDraw.ImageDraw, at: tuple[int, int]) -> int:
        """Draws the lines with the capitals' top at `at`; returns where they end."""
        for i, line in enumerate(self.lines):
            colour = _MUTED if self.asked_in_chinese and i == len(self.lines) - 1 else _INK
            _draw_at_capital(draw, (at[0], at[1] + round(i * _PROMPT * _LEADING)), line, self.font, _PROMPT, colour)
        return at[1] + self.height


class _Remark:
    """A note with its dot, wrapped; nothing for None."""

    def __init__(self, note: Note | None, width: int):
        self.note, self.font = note, fonts(_NOTE)[0]
        self.lines = []
        if note is not None and note.text:
            self.font = font_for(note.text, _NOTE) or self.font
            self.lines = wrap(note.text, self.font, width - _NOTE)
        self.height = round(8 + len(self.lines) * _NOTE * _LEADING) if self.lines else 0

    def draw(self, draw: ImageDraw.ImageDraw, at: tuple[int, int]) -> None:
        if not self.lines:
            return
        x, y = at[0], at[1] + 8
        draw.ellipse((x, y + 2, x + 7, y + 9), fill=_DOTS[self.note.wrong])
        for i, line in enumerate(self.lines):
            place = (x + _NOTE, y + round(i * _NOTE * _LEADING))
            _draw_at_capital(draw, place, line, self.font, _NOTE, _WRONG if self.note.wrong else _MUTED)


def _draw_header(draw: ImageDraw.ImageDraw, title: str, about: Sequence[str], rule: int) -> None:
    _draw_at_capital(draw, (_MARGIN - 2, _MARGIN), title, font_for(title, _TITLE) or fonts(_TITLE)[0], _TITLE, _INK)
    for i, line in enumerate(about):
        place = (_MARGIN, _MARGIN + _TITLE + 14 + round(i * _SUBTITLE * _LEADING))
        _draw_at_capital(draw, place, line, font_for(line, _SUBTITLE) or fonts(_SUBTITLE)[0], _SUBTITLE, _MUTED)
    draw.line((_MARGIN, rule, _WIDTH - _MARGIN, rule), fill=_RULE, width=1)


def _draw_at_capital(
    draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, font: ImageFont.FreeTypeFont, size: int, colour: str
) -> None:
    """Draws text so that the top of a capital letter is at `at`, the same in every font: 0.72 of the size."""
    draw.text((at[0], at[1] + round(0.72 * size)), text, fill=colour, font=font, anchor="ls")


def _enlarged(image: np.ndarray) -> Image.Image:
    """By a whole factor without smoothing, so that a small picture's pixels stay what they are; a large one shrinks."""
    picture = Image.fromarray(image)
    factor = _SIDE // max(picture.size)
    if factor == 0:
        picture.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
        return picture
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def _rounded(size: tuple[int, int]) -> Image.Image:
    mask = Image.new("L", (4 * size[0], 4 * size[1]), 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, 4 * size[0] - 1, 4 * size[1] - 1), 4 * _CORNER, fill=255)
    return mask.resize(size, Image.Resampling.LANCZOS)


def _check(images: np.ndarray, prompts: Sequence[str], notes, english) -> None:
    counts = {"prompts": len(prompts), "notes": len(notes or prompts), "english": len(english or prompts)}
    if not len(images) or any(count != len(images) for count in counts.values()):
        raise ValueError(f"a sample sheet of {len(images)} pictures: found {counts}, expected one for each picture")

"""Captions: what a picture may be called, and which of its names a training example gets."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

STYLES = ("short", "dense")
# Longer captions are cut here, prompts refused: twice of what a text encoder of 512 tokens reads. Training keeps whole
# captions in memory beside their tokens.
MAX_CHARACTERS = 4000

_HAN = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]")
# Control characters stand for nothing in a caption; a text of zero-width ones only is an empty one.
_SPACES = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")
_INVISIBLE = re.compile("[\u200b\u2060\ufeff]")
_ENDS = ".!?。！？"


@dataclass(frozen=True)
class Caption:
    """One text for a picture: `style` is "short" (a name) or "dense" (a description), `language` is "en", "zh", ..."""

    text: str
    style: str
    language: str

    def __post_init__(self):
        if self.style not in STYLES:
            raise ValueError(f"caption {self.text!r} has style {self.style!r}; expected one of {STYLES}")


def build_captions(
    title: str,
    *,
    description: str = "",
    ingredients: Sequence[str] = (),
    category: str = "",
    language: str = "",
) -> list[Caption]:
    """Captions of a catalogue row: its title and category are short ones, its description and ingredients dense ones.

    The language of a caption is Chinese when it holds a Chinese character, else the row's own, else English: catalogues
    often pair an English name with a Chinese description. A caption that would repeat another is left out, one of more
    than MAX_CHARACTERS cut there.
    """
    title, description, category = (clean_text(text) for text in (title, description, category))
    ingredients = [name for name in map(clean_text, ingredients) if name]
    chinese = bool(_HAN.search(title + description)) or language == "zh"
    comma, colon, stop, listed = ("，", "：", "。", "、") if chinese else (", ", ": ", ". ", ", ")

    texts = [(title, "short")]
    if category and category.lower() not in title.lower():
        texts.append((f"{title}{comma}{category}" if title else category, "short"))
    if description:
        ending = "" if not title else " " if title[-1] in ".!?" else "" if title[-1] in _ENDS else stop
        texts.append((f"{title}{ending}{description}", "dense"))
    if ingredients:
        contents = listed.join(ingredients)
        texts.append((f"{title}{colon}{contents}" if title else contents, "dense"))
    texts = dict.fromkeys((text[:MAX_CHARACTERS], style) for text, style in texts if text)
    return [Caption(text, style, _language(text, language)) for text, style in texts]


def choose_caption(captions: Sequence[Caption], draws: tuple[float, float], *, short: float, dropped: float) -> int:
    """The number of the caption that a training example gets, a pure function of `draws`; -1 for none, which
    classifier-free guidance needs.

    `draws` are two uniform numbers in [0, 1): the first chooses between dropped, short and dense (what is left of the
    odds), the second among the captions of that style, whatever their language. A picture without captions of the
    chosen style gives one of the other style: it is not a reason to drop the text more often than asked.
    """
    style_draw, pick_draw = draws
    if style_draw < dropped or not captions:
        return -1
    style = "short" if style_draw < dropped + short else "dense"
    matching = [i for i, caption in enumerate(captions) if caption.style == style] or range(len(captions))
    return matching[int(pick_draw * len(matching))]


def clean_text(text: str) -> str:
    """One line of text: NFC, one space for any run of spaces, line ends and control characters, nothing invisible."""
    return _SPACES.sub(" ", _INVISIBLE.sub("", unicodedata.normalize("NFC", text))).strip()


def check_prompt(text: str) -> None:
    """Raises ValueError for what nobody types: control characters, halves of surrogate pairs, over MAX_CHARACTERS."""
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"has {len(text):,} characters, expected at most {MAX_CHARACTERS:,}")
    for place, character in enumerate(text, 1):
        if character not in "\t\r\n" and unicodedata.category(character) in ("Cc", "Cs"):
            kind = "a control character" if unicodedata.category(character) == "Cc" else "half of a character"
            raise ValueError(f"has {kind} (U+{ord(character):04X}, place {place}); expected text in UTF-8")


def _language(text: str, default: str) -> str:
    return "zh" if _HAN.search(text) else default if default and default != "zh" else "en"

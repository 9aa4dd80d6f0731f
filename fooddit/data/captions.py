"""Captions: what a picture may be called, and which of its names a training example gets."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

STYLES = ("short", "dense")

_HAN = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]")
_SPACES = re.compile(r"\s+")
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
    often pair an English name with a Chinese description. A caption that would repeat another is left out.
    """
    title, description, category = (_clean(text) for text in (title, description, category))
    ingredients = [name for name in map(_clean, ingredients) if name]
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
    return [Caption(text, style, _language(text, language)) for text, style in dict.fromkeys(texts) if text]


def choose_caption(captions: Sequence[Caption], draws: tuple[float, float], *, short: float, dropped: float) -> str:
    """The text one training example gets; "" means none, for classifier-free guidance. A pure function of `draws`.

    `draws` are two uniform numbers in [0, 1): the first chooses between dropped, short and dense (what is left of the
    odds), the second among the captions of that style, whatever their language. A picture without captions of the
    chosen style gives one of the other style: it is not a reason to drop the text more often than asked.
    """
    style_draw, pick_draw = draws
    if style_draw < dropped or not captions:
        return ""
    style = "short" if style_draw < dropped + short else "dense"
    matching = [caption for caption in captions if caption.style == style] or captions
    return matching[int(pick_draw * len(matching))].text


def _clean(text: str) -> str:
    return _SPACES.sub(" ", unicodedata.normalize("NFC", text)).strip()


def _language(text: str, default: str) -> str:
    return "zh" if _HAN.search(text) else default if default and default != "zh" else "en"

"""Captions of a styled scene: they say the six named attributes, and of its style only that there is one."""

from fooddit.data.captions import Caption
from fooddit.data.scenes.styles import StyledSpec
from fooddit.data.scenes.wording import LANGUAGES, Said, dish_captions, dish_prompt, require_language, vessel_words


def styled_captions(spec: StyledSpec) -> list[Caption]:
    """Every caption of the scene: three short and five dense ones in each language; none depends on the style."""
    return dish_captions(spec, {language: _said(spec, language) for language in LANGUAGES})


def styled_prompt(spec: StyledSpec, language: str = "en") -> str:
    """One dense caption, its template chosen by the spec's seed; language is "en" or "zh"."""
    require_language(language)
    return dish_prompt(spec, _said(spec, language), language)


def _said(spec: StyledSpec, language: str) -> Said:
    shape, vessel = vessel_words(spec, language)
    if language == "en":
        return Said(f"{shape} glazed {vessel}", f"a glazed {vessel}", "a patterned tabletop")
    return Said(f"釉面{shape}{vessel}", f"釉面{vessel}", "花纹桌面")

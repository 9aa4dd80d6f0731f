"""Wrapping loses nothing and fits; a font is one that has every glyph."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from fooddit.data import lettering
from fooddit.data.lettering import draw_line, font_for, fonts, wrap

ENGLISH = "An oval white plate holding two whole fish and a chili, in warm evening light."
CHINESE = "清晨的冷光下，白色圆盘里盛着三块蛋糕，用紫花点缀，摆在石板桌中央。"


@pytest.mark.parametrize("width", [60, 150, 400])
def test_wrapped_lines_fit_and_hold_the_whole_text(width):
    font = fonts(20)[0]
    lines = wrap(ENGLISH, font, width)
    assert len(lines) > 1 and all(font.getlength(line) <= width for line in lines)
    assert "".join(lines).replace(" ", "") == ENGLISH.replace(" ", "")
    if width >= 150:
        assert " ".join(lines) == ENGLISH


@settings(max_examples=50, deadline=None)
@given(st.text(alphabet="ab 饭，。汤x\n", max_size=60), st.integers(30, 200))
def test_any_text_wraps(text, width):
    font = fonts(16)[0]
    lines = wrap(text, font, width)
    assert "".join("".join(lines).split()) == "".join(text.split())
    assert all(line == line.strip() and line for line in lines)


def test_chinese_breaks_between_characters_but_not_before_a_mark():
    # A third of the whole, whatever the fonts of this machine: without a Chinese one every character is a narrow box.
    font = fonts(20)[-1]
    lines = wrap(CHINESE, font, round(font.getlength(CHINESE) / 3) + 1)
    assert "".join(lines) == CHINESE and len(lines) >= 3
    assert not any(line[0] in "，。" for line in lines)


def test_a_font_has_every_glyph_or_there_is_none(monkeypatch):
    assert font_for("plain", 15) is fonts(15)[0]
    assert font_for("\U0010fffd", 15) is None
    monkeypatch.setattr(lettering, "fonts", lambda size: fonts(size)[:1])
    assert font_for(CHINESE, 15) is None


def test_a_line_is_cut_at_its_width():
    image = Image.new("L", (400, 40), 0)
    draw_line(ImageDraw.Draw(image), (10, 25), ENGLISH, 15, "white", 120)
    left, _, right, _ = image.getbbox()
    assert left >= 9 and 80 < right <= 131
    other = Image.new("L", (400, 40), 0)
    draw_line(ImageDraw.Draw(other), (10, 25), "\U0010fffd", 15, "white", 120, instead="dish 3")
    assert other.getbbox() is not None

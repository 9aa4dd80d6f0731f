"""The sheet shows every picture pixel by pixel, the whole prompt, and what was found to be wrong."""

import io

import numpy as np
import pytest
from PIL import ImageColor

from fooddit.data import lettering
from fooddit.data.scenes import prompt, render_image, sample_spec
from fooddit.evaluation import sample_sheet as module
from fooddit.evaluation.sample_sheet import Note, sample_sheet

SPECS = [sample_spec(7, i, "holdout") for i in range(12)]
IMAGES = np.stack([render_image(spec, 64) for spec in SPECS])
PROMPTS = [prompt(spec, ("en", "zh")[i % 2]) for i, spec in enumerate(SPECS)]
WORDS = {"title": "Dishes", "subtitle": "drawn from their prompts"}


def contains(sheet: np.ndarray, colour: str) -> bool:
    return bool((sheet == ImageColor.getrgb(colour)).all(axis=-1).any())


def test_pictures_are_enlarged_by_a_whole_factor():
    sheet = sample_sheet(IMAGES, PROMPTS, **WORDS)
    assert sheet.width == 1600 and 800 < sheet.height < 1600
    pixels = np.asarray(sheet)
    first = np.repeat(np.repeat(IMAGES[0], 3, axis=0), 3, axis=1)
    top = next(y for y in range(sheet.height - 192) if (pixels[y + 96, 64:256] == first[96]).all())
    np.testing.assert_array_equal(pixels[top + 20 : top + 172, 64:256], first[20:172])
    assert tuple(pixels[top, 64]) == ImageColor.getrgb(module._PAPER)


def test_a_page_is_small_enough_to_publish():
    data = io.BytesIO()
    sample_sheet(IMAGES, PROMPTS, notes=[Note("all 8 attributes right")] * 12, **WORDS).save(data, "PNG", optimize=True)
    assert 50_000 < len(data.getvalue()) < 600_000


def test_notes_are_red_only_where_something_is_wrong():
    right = np.asarray(sample_sheet(IMAGES[:2], PROMPTS[:2], notes=[Note("all right", False), Note("")], **WORDS))
    wrong = np.asarray(sample_sheet(IMAGES[:2], PROMPTS[:2], notes=[Note("count: asked 3", True), Note("")], **WORDS))
    assert contains(right, module._RIGHT) and not contains(right, module._WRONG)
    assert contains(wrong, module._WRONG) and not contains(wrong, module._RIGHT)
    plain = np.asarray(sample_sheet(IMAGES[:1], PROMPTS[:1], notes=[Note("distance 0.2")], **WORDS))
    assert not contains(plain, module._WRONG) and not contains(plain, module._RIGHT)


def test_long_prompts_make_rows_taller_and_other_sizes_fit():
    images = np.random.default_rng(0).integers(0, 255, (4, 256, 128, 3), np.uint8)
    short = sample_sheet(images, ["noodles"] * 4, **WORDS)
    tall = sample_sheet(images, ["noodles with " * 60] * 4, **WORDS)
    assert tall.height > short.height + 400


def test_without_chinese_letters_the_english_text_stands_there(monkeypatch):
    drawn = []
    monkeypatch.setattr(module, "_draw_at_capital", lambda draw, at, text, *rest: drawn.append(text))
    monkeypatch.setattr(lettering, "fonts", lambda size: module.fonts(size)[:1])
    sample_sheet(IMAGES[:2], PROMPTS[:2], english=["first", "second text"], **WORDS)
    text = " ".join(drawn)
    assert "second text (asked in Chinese)" in text and "first" not in text.split() and PROMPTS[1][:2] not in text


def test_everything_is_counted():
    with pytest.raises(ValueError, match="sheet of 12 pictures: found .*'prompts': 3"):
        sample_sheet(IMAGES, PROMPTS[:3], **WORDS)
    with pytest.raises(ValueError, match="'notes': 1"):
        sample_sheet(IMAGES, PROMPTS, notes=[Note("x")], **WORDS)
    with pytest.raises(ValueError, match="sheet of 0 pictures"):
        sample_sheet(IMAGES[:0], [], **WORDS)

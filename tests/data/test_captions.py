"""Captions: what a row gives, and the odds of the choice."""

import collections

import numpy as np
import pytest

from fooddit.data.captions import Caption, build_captions, choose_caption

CAPTIONS = (Caption("a", "short", "en"), Caption("b", "short", "zh"), Caption("long", "dense", "en"))


def test_a_row_gives_short_and_dense_captions():
    found = build_captions(
        "Apple Pie", description="A pie of apples.", ingredients=["apples", " flour "], category="dessert"
    )
    assert [(c.text, c.style) for c in found] == [
        ("Apple Pie", "short"),
        ("Apple Pie, dessert", "short"),
        ("Apple Pie. A pie of apples.", "dense"),
        ("Apple Pie: apples, flour", "dense"),
    ]
    assert {c.language for c in found} == {"en"}


def test_chinese_rows_have_chinese_punctuation_and_language():
    found = build_captions("水煮牛肉", description="麻辣鲜香。", ingredients=["牛肉", "花椒"], language="zh")
    assert [c.text for c in found] == ["水煮牛肉", "水煮牛肉。麻辣鲜香。", "水煮牛肉：牛肉、花椒"]
    assert {c.language for c in found} == {"zh"}


def test_language_is_that_of_the_text():
    found = build_captions("Goulash", description="牛肉炖土豆", language="en")
    assert [c.language for c in found] == ["en", "zh"]


def test_nothing_gives_nothing_and_repeats_are_left_out():
    assert build_captions("  ") == []
    assert [c.text for c in build_captions("pizza", category="Pizza")] == ["pizza"]


def test_unknown_style_is_an_error():
    with pytest.raises(ValueError, match="medium"):
        Caption("x", "medium", "en")


def test_choice_meets_the_odds():
    draws = np.random.default_rng(0).random((20000, 2))
    counts = collections.Counter(choose_caption(CAPTIONS, tuple(d), short=0.3, dropped=0.1) for d in draws)
    shares = {number: count / len(draws) for number, count in counts.items()}
    assert shares == pytest.approx({-1: 0.1, 0: 0.15, 1: 0.15, 2: 0.6}, abs=0.015)


def test_a_missing_style_is_no_reason_to_drop():
    assert choose_caption(CAPTIONS[:1], (0.9, 0.5), short=0.3, dropped=0.1) == 0
    assert choose_caption((), (0.9, 0.5), short=0.3, dropped=0.1) == -1

"""Verdicts: every reason is given, limits come from the config, and each rule has its limit."""

import dataclasses

import numpy as np
import pytest

from fooddit.curation.rules import PIXEL_RULES, PixelLimits, judge_pixels
from fooddit.curation.view import View
from tests.curation.test_pixel_rules import blurred, picture


def test_a_good_picture_is_accepted_and_a_bad_one_has_all_its_reasons():
    good = judge_pixels(View(picture(0)), PixelLimits())
    assert good.accepted and good.scores["short_side"] == 384
    bad = (blurred(picture(0), 4)[:100] * 0.2).astype(np.uint8)
    verdict = judge_pixels(View(bad), PixelLimits())
    assert verdict.failed == ("short_side", "aspect_ratio", "blur_radius", "brightest") and not verdict.accepted


def test_each_rule_has_a_limit_of_its_name_and_reasons_in_both_languages():
    assert [rule.name for rule in PIXEL_RULES] == [field.name for field in dataclasses.fields(PixelLimits)]
    assert all(set(rule.reason) == {"en", "zh"} for rule in PIXEL_RULES)


@pytest.mark.parametrize("rule", PIXEL_RULES, ids=lambda rule: rule.name)
def test_a_limit_is_passed_by_what_equals_it_and_by_no_nan(rule):
    assert rule.passes(0.5, 0.5) and not rule.passes(float("nan"), 0.5)
    assert rule.passes(0.6, 0.5) == rule.at_least != rule.passes(0.4, 0.5)


def test_limits_are_the_configs():
    view = View(blurred(picture(0), 2))
    assert judge_pixels(view, PixelLimits()).failed == ("blur_radius",)
    assert judge_pixels(view, PixelLimits(blur_radius=3)).accepted

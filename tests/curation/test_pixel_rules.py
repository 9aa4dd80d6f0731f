"""Scores of pixels against defects that are put in exactly, and against what only looks like one."""

import cv2
import numpy as np
import pytest

from fooddit.curation import pixel_rules as rules
from fooddit.curation.view import SIDE, View
from fooddit.data.scenes import render_image, sample_spec

SHAPE = 384, 512


def picture(seed: int, shape=SHAPE) -> np.ndarray:
    """Overlapping discs of any colour: edges everywhere, in every direction, one pixel sharp."""
    rng, height, width = np.random.default_rng(seed), *shape
    canvas = np.full((2 * height, 2 * width, 3), rng.integers(40, 200, 3), np.uint8)
    for _ in range(120):
        where = int(rng.integers(2 * width)), int(rng.integers(2 * height))
        cv2.circle(canvas, where, int(rng.integers(10, 120)), rng.integers(0, 250, 3).tolist(), -1)
    return cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)


def blurred(pixels: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(pixels, (0, 0), sigma)


def scene(seed: int) -> np.ndarray:
    return render_image(sample_spec(0, seed), SIDE)


def saved(pixels: np.ndarray, quality: int) -> np.ndarray:
    return cv2.imdecode(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


@pytest.mark.parametrize("sigma", [1.5, 2, 3, 4])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_blur_that_was_put_in_is_found(sigma, seed):
    own = rules.blur_radius(View(picture(seed)))  # Of the drawing's own anti-aliasing.
    assert 0.5 < own < 1
    found = rules.blur_radius(View(blurred(picture(seed), sigma)))
    assert found == pytest.approx(np.hypot(own, sigma), rel=0.15)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_blurred_background_is_no_blur(seed):
    pixels, height, width = picture(seed), *SHAPE
    mask = np.zeros(SHAPE, np.uint8)
    cv2.circle(mask, (width // 2, height // 2), height // 3, 1, -1)
    bokeh = np.where(mask[..., None], pixels, blurred(pixels, 8))
    assert rules.blur_radius(View(bokeh)) < 1
    assert rules.blur_radius(View(blurred(bokeh, 3))) > 2


def test_a_large_picture_is_judged_at_the_size_of_a_small_one():
    large = picture(0, (4 * SHAPE[0], 4 * SHAPE[1]))
    own = rules.blur_radius(View(large))
    assert rules.blur_radius(View(blurred(large, 12))) == pytest.approx(np.hypot(own, 3), rel=0.15)
    assert rules.blur_radius(View(blurred(large, 2))) < 1.2


def test_nothing_to_be_sharp_is_not_sharp():
    assert rules.blur_radius(View(np.full((*SHAPE, 3), 128, np.uint8))) == float("inf")


@pytest.mark.parametrize("colour", [255, 0, 128])
@pytest.mark.parametrize("sides", [(20, 20, 20, 20), (0, 40, 0, 0), (0, 0, 30, 30)])
def test_a_frame_is_as_wide_as_it_was_made(colour, sides):
    framed = cv2.copyMakeBorder(picture(2), *sides, cv2.BORDER_CONSTANT, value=(colour,) * 3)
    framed = framed[:512, :512]
    view = View(saved(framed, 85))
    assert rules.frame(view) == pytest.approx(max(sides) / 512, abs=0.02)


@pytest.mark.parametrize("seed", range(4))
def test_a_plate_on_a_plain_table_has_no_frame(seed):
    table = np.full((*SHAPE, 3), 250, np.uint8)
    cv2.circle(table, (256, 192), 150, (255, 255, 255), -1)
    cv2.circle(table, (256, 192), 150, (225, 225, 225), 2)
    table[120:260, 180:330] = picture(seed)[:140, :150]
    assert rules.frame(View(saved(table, 85))) == 0
    assert rules.frame(View(scene(seed))) == 0


@pytest.mark.parametrize("axis", [0, 1])
def test_a_collage_has_a_seam(axis):
    collage = np.concatenate([picture(3), picture(4)], axis=axis)
    assert rules.seam(View(saved(collage, 80))) > 0.6
    # A white gutter makes two of them.
    gutter = np.full((SHAPE[0], 8, 3) if axis else (8, SHAPE[1], 3), 255, np.uint8)
    assert rules.seam(View(saved(np.concatenate([picture(3), gutter, picture(4)], axis=axis), 80))) > 0.6


@pytest.mark.parametrize("seed", range(4))
def test_a_table_edge_is_no_seam(seed):
    pixels = picture(seed).astype(np.float32)
    # A degree off the horizontal, as no camera is held better.
    row = 200 + np.arange(SHAPE[1])[None] * np.tan(np.radians(1))
    below = np.clip(np.arange(SHAPE[0])[:, None] - row, 0, 1)[..., None]
    pixels = 0.25 * pixels + 0.75 * (60 * (1 - below) + 180 * below)
    assert rules.seam(View(saved(pixels.astype(np.uint8), 80))) < 0.3


def test_dark_and_burnt_pictures_are_told_from_white_plates():
    pixels = picture(5)
    assert rules.brightest(View((pixels * 0.2).astype(np.uint8))) < 0.3 < rules.brightest(View(pixels))
    burnt = np.clip(pixels.astype(int) + 230, 0, 255).astype(np.uint8)
    assert rules.burnt_out(View(burnt)) > 0.5
    plate = pixels.copy()
    cv2.circle(plate, (256, 192), 160, (245, 246, 244), -1)
    assert rules.burnt_out(View(plate)) < 0.05


def test_sizes_are_the_pictures_own():
    view = View(picture(0, (300, 1200)))
    assert rules.short_side(view) == 300 and rules.aspect_ratio(view) == 4
    assert view.small.shape == (128, 512, 3) and view.grey.shape == (128, 512)
    assert View(picture(0, (100, 60))).small.shape == (100, 60, 3)

"""Cosines of pictures and prompts, beside wrong prompts and the dishes' own photos."""

import numpy as np
import pytest

from fooddit.evaluation.prompt_alignment import clip_alignment, cosines


def test_figures_are_means_of_cosines():
    texts = np.eye(3)[[0, 1, 2, 0]]
    images = np.array([[2.0, 0, 0], [1, 1, 0], [0, 0, 3], [0, 1, 0]])
    found = clip_alignment(images, texts, [0, 1, 2, 0], photos=np.array([[0.0, 5, 0]]), photo_texts=texts[1:2])
    assert found.pictures.value == pytest.approx((1 + 0.5**0.5 + 1 + 0) / 4) and found.pictures.n == 3
    # Against prompts that are not its own, of which there are 2, 3, 3 and 2.
    assert found.shuffled.value == pytest.approx((0 + 2 * 0.5**0.5 / 3 + 0 + 1 / 2) / 4)
    assert found.real.value == 1 and set(found.to_dict()) == {"pictures", "shuffled", "real"}


def test_without_photos_there_is_no_figure_of_them():
    found = clip_alignment(np.eye(2), np.eye(2), [0, 1], np.zeros((0, 2)), np.zeros((0, 2)))
    assert found.real is None and "real" not in found.to_dict()


def test_an_empty_prompt_fits_nothing():
    np.testing.assert_allclose(cosines(np.array([[1.0, 0]]), np.zeros((1, 2))), [0])

import cv2
import numpy as np
import pytest

from fooddit.evaluation.reconstruction import fine_detail, psnr


@pytest.fixture(scope="module")
def noise():
    return np.random.default_rng(0).integers(50, 200, (4, 32, 48, 3), np.uint8)


def test_psnr_of_a_known_error(noise):
    shifted = noise.copy()
    shifted[0] += 10
    shifted[1, ..., 0] += 10
    found = psnr(noise, shifted)
    assert found[0] == pytest.approx(20 * np.log10(255 / 10))
    assert found[1] == pytest.approx(20 * np.log10(255 / 10) + 10 * np.log10(3), abs=1e-3)
    assert np.isfinite(found).all() and found[2] > 60


def test_fine_detail_falls_with_blur_and_rises_with_noise(noise):
    assert fine_detail(noise, noise) == pytest.approx(1)
    blurred = np.stack([cv2.GaussianBlur(image, (0, 0), 1.0) for image in noise])
    assert fine_detail(noise, blurred) < 0.2
    assert fine_detail(blurred, noise) > 5
    # A shift of all values is no detail.
    assert fine_detail(noise, noise + 20) == pytest.approx(1)
    # Waves of eight pixels are not fine, waves of three are.
    columns = np.arange(48)
    wave = lambda length: np.broadcast_to(  # noqa: E731
        (128 + 60 * np.cos(2 * np.pi * columns / length))[None, None, :, None], (1, 32, 48, 3)
    ).astype(np.uint8)
    assert fine_detail(wave(3), wave(8)) < 0.01

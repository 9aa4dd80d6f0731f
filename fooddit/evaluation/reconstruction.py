"""How near an autoencoder's pictures are to the originals, and how sharp."""

import numpy as np
from jaxtyping import Float, UInt8


def psnr(
    images: UInt8[np.ndarray, "n height width 3"], decoded: UInt8[np.ndarray, "n height width 3"]
) -> Float[np.ndarray, "n"]:
    """Peak signal-to-noise ratio of each picture in dB; equal pictures count as a squared error of 1e-2."""
    error = images.astype(np.float32) - decoded.astype(np.float32)
    return 10 * np.log10(255**2 / np.maximum(np.mean(error**2, axis=(1, 2, 3)), 1e-2))


def fine_detail(images: UInt8[np.ndarray, "n height width 3"], decoded: UInt8[np.ndarray, "n height width 3"]) -> float:
    """Energy of the decoded pictures above half the highest frequency, over the originals': a measure of blur.

    1 is as much fine detail as there was, right or invented; below 1 is blurred. The spectrum is of the grey picture,
    over all pictures together, frequencies beyond a quarter of a cycle a pixel.
    """
    return float(_fine_energy(decoded) / _fine_energy(images))


def _fine_energy(images: np.ndarray) -> float:
    height, width = images.shape[1:3]
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :]
    fine = np.hypot(rows, columns) > 0.25
    return sum(np.sum(np.abs(np.fft.fft2(image.mean(axis=-1)))[fine] ** 2) for image in images)

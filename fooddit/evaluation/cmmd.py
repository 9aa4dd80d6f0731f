"""CMMD: the distance between two sets of CLIP embeddings that needs no Gaussians and few pictures."""

import numpy as np
from jaxtyping import Float

from fooddit.evaluation.kernel_distance import check, kernel_sums

# Of the Gaussian kernel, for embeddings of length 1, and the factor that makes the values readable.
BANDWIDTH = 10.0
SCALE = 1000.0


def cmmd(x: Float[np.ndarray, "n features"], y: Float[np.ndarray, "m features"]) -> float:
    """1000 times the squared MMD of embeddings of length 1 under exp(-|a - b|^2 / 200) (Jayasumana et al. 2024,
    arXiv:2401.09603), by the biased estimate that the authors publish: pairs of a picture with itself count.

    Raises:
      ValueError: fewer than two pictures in a set, different features, or an embedding that is zero.
    """
    return float(resampled_cmmd(x, y, np.ones((1, len(x))), np.ones((1, len(y))))[0])


def resampled_cmmd(
    x: Float[np.ndarray, "n features"],
    y: Float[np.ndarray, "m features"],
    x_counts: Float[np.ndarray, "resamples n"],
    y_counts: Float[np.ndarray, "resamples m"],
) -> Float[np.ndarray, " resamples"]:
    """`cmmd` of each pair of resampled sets, which have picture i `counts[i]` times."""
    check(x, y)
    x, y = unit_length(x), unit_length(y)
    within_x = kernel_sums(x, x, x_counts, x_counts, gaussian).mean
    within_y = kernel_sums(y, y, y_counts, y_counts, gaussian).mean
    return SCALE * (within_x + within_y - 2 * kernel_sums(x, y, x_counts, y_counts, gaussian).mean)


def gaussian(x: Float[np.ndarray, "n features"], y: Float[np.ndarray, "m features"]) -> Float[np.ndarray, "n m"]:
    """exp(-|x - y|^2 / (2 * 10^2))."""
    squares = (x**2).sum(axis=1)[:, None] + (y**2).sum(axis=1)[None] - 2 * x @ y.T
    return np.exp(-squares / (2 * BANDWIDTH**2))


def unit_length(embeddings: Float[np.ndarray, "n features"]) -> Float[np.ndarray, "n features"]:
    """Each embedding over its length, float64. ValueError for one that is zero or not finite."""
    embeddings = np.asarray(embeddings, np.float64)
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    if not (np.isfinite(lengths) & (lengths > 0)).all():
        raise ValueError("embeddings: found one that is zero or not finite; the network or its weights are broken")
    return embeddings / lengths

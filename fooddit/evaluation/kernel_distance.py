"""Squared maximum mean discrepancy between two sets of features: KID, and what CMMD is made of."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

# Rows of a kernel matrix that are in memory at once.
_BLOCK = 1024

Kernel = Callable[[np.ndarray, np.ndarray], np.ndarray]


def polynomial(x: Float[np.ndarray, "n features"], y: Float[np.ndarray, "m features"]) -> Float[np.ndarray, "n m"]:
    """(x.y / features + 1)^3, the kernel of KID (Binkowski et al. 2018, arXiv:1801.01401)."""
    return (x @ y.T / x.shape[1] + 1) ** 3


@dataclass(frozen=True)
class KernelSums:
    """Sums of a kernel over pairs of pictures, one for each resample: `same` counts a picture paired with itself.

    Attributes:
      all: over all pairs; same: over pairs of a picture with itself; pairs, same_pairs: how many those are.
    """

    all: Float[np.ndarray, " resamples"]
    same: Float[np.ndarray, " resamples"]
    pairs: Float[np.ndarray, " resamples"]
    same_pairs: Float[np.ndarray, " resamples"]

    @property
    def mean(self) -> Float[np.ndarray, " resamples"]:
        return self.all / self.pairs

    @property
    def mean_of_different(self) -> Float[np.ndarray, " resamples"]:
        """Without pairs of a picture with itself, of which a resample has more than the set that it comes from."""
        return (self.all - self.same) / (self.pairs - self.same_pairs)


def kernel_distance(
    x: Float[np.ndarray, "n features"], y: Float[np.ndarray, "m features"], kernel: Kernel = polynomial
) -> float:
    """The unbiased estimate of squared MMD over all pairs of pictures; may be below zero. KID with the default kernel.

    Published KIDs are means over subsets of at most 1,000 pictures, which estimate the same number less precisely.

    Raises:
      ValueError: fewer than two pictures in a set, or different features.
    """
    return float(resampled_kernel_distance(x, y, np.ones((1, len(x))), np.ones((1, len(y))), kernel)[0])


def resampled_kernel_distance(
    x: Float[np.ndarray, "n features"],
    y: Float[np.ndarray, "m features"],
    x_counts: Float[np.ndarray, "resamples n"],
    y_counts: Float[np.ndarray, "resamples m"],
    kernel: Kernel = polynomial,
) -> Float[np.ndarray, " resamples"]:
    """`kernel_distance` of each pair of resampled sets, which have picture i `counts[i]` times.

    A picture that was taken twice is not paired with itself: its likeness to itself says nothing of the set.
    """
    check(x, y)
    within_x = kernel_sums(x, x, x_counts, x_counts, kernel).mean_of_different
    within_y = kernel_sums(y, y, y_counts, y_counts, kernel).mean_of_different
    return within_x + within_y - 2 * kernel_sums(x, y, x_counts, y_counts, kernel).mean


def kernel_sums(
    x: Float[np.ndarray, "n features"],
    y: Float[np.ndarray, "m features"],
    x_counts: Float[np.ndarray, "resamples n"],
    y_counts: Float[np.ndarray, "resamples m"],
    kernel: Kernel,
) -> KernelSums:
    """Sums of kernel(x_i, y_j) * x_counts_i * y_counts_j for all resamples in one pass, a block of the matrix at once.

    `same` is of pairs i = j where x is y (the same array), else zero.
    """
    itself = x is y
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    total = np.zeros(len(x_counts))
    same, same_pairs = np.zeros_like(total), np.zeros_like(total)
    for start in range(0, len(x), _BLOCK):
        rows = slice(start, start + _BLOCK)
        block = kernel(x[rows], y)
        total += np.einsum("rn,rn->r", x_counts[:, rows] @ block, y_counts)
        if itself:
            squares = x_counts[:, rows] * y_counts[:, rows]
            same += squares @ block[np.arange(len(block)), np.arange(start, start + len(block))]
            same_pairs += squares.sum(axis=1)
    return KernelSums(total, same, x_counts.sum(axis=1) * y_counts.sum(axis=1), same_pairs)


def check(x: np.ndarray, y: np.ndarray) -> None:
    """Raises ValueError for sets that cannot be compared."""
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"found features of shapes {x.shape} and {y.shape}; expected (pictures, the same features)")
    if min(len(x), len(y)) < 2:
        raise ValueError(f"found {len(x)} and {len(y)} pictures, expected at least 2 in each set")

"""Squared maximum mean discrepancy between two sets of features: KID, and what CMMD is made of."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

# Rows of a kernel matrix that are in memory at once.
_BLOCK = 1024

Kernel = Callable[[np.ndarray, np.ndarray], np.ndarray]


def polynomial(x: Float[np.ndarray, "n features"], y: Float[np.ndarray, "m features"]) -> Float[np.ndarray, "n m"]:
    """(x.y / features + 1)^3, the kernel of KID (Binkowski et al. 2018, arXiv:1801.01401)."""
    return (x @ y.T / x.shape[1] + 1) ** 3


@dataclass(frozen=True)
class KernelSums:
    """Sums of a kernel over pairs of pictures, one for each resample, of which some are of one label.

    Attributes:
      all: over all pairs; same: over those of one label; pairs, same_pairs: how many there are.
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
        """Over pairs of two labels; NaN where there is none."""
        pairs = self.pairs - self.same_pairs
        return np.divide(self.all - self.same, pairs, out=np.full_like(pairs, np.nan), where=pairs > 0)


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
    labels: tuple[Int[np.ndarray, " n"], Int[np.ndarray, " m"]] | None = None,
) -> Float[np.ndarray, " resamples"]:
    """`kernel_distance` of each pair of resampled sets, which have picture i `counts[i]` times.

    A picture that was taken twice is not paired with itself: its likeness to itself says nothing of the set.

    Args:
      labels: of the dishes, where both sets are of the same ones: two pictures of one dish are no independent draws,
        and the estimate is over pairs of two dishes (with pairs of one it would be too small).
    """
    check(x, y)
    of_x, of_y = (np.arange(len(x)), np.arange(len(y))) if labels is None else labels
    within_x = kernel_sums(x, x, x_counts, x_counts, kernel, (of_x, of_x)).mean_of_different
    within_y = kernel_sums(y, y, y_counts, y_counts, kernel, (of_y, of_y)).mean_of_different
    return within_x + within_y - 2 * kernel_sums(x, y, x_counts, y_counts, kernel, labels).mean_of_different


def kernel_sums(
    x: Float[np.ndarray, "n features"],
    y: Float[np.ndarray, "m features"],
    x_counts: Float[np.ndarray, "resamples n"],
    y_counts: Float[np.ndarray, "resamples m"],
    kernel: Kernel,
    labels: tuple[np.ndarray, np.ndarray] | None = None,
) -> KernelSums:
    """Sums of kernel(x_i, y_j) * x_counts_i * y_counts_j for all resamples in one pass, a block of the matrix at once.

    `labels`: of x and of y; without them no pair is of one label.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    total = np.zeros(len(x_counts))
    same, same_pairs = np.zeros_like(total), np.zeros_like(total)
    for start in range(0, len(x), _BLOCK):
        rows = slice(start, start + _BLOCK)
        block, counts = kernel(x[rows], y), x_counts[:, rows]
        total += np.einsum("rn,rn->r", counts @ block, y_counts)
        if labels is not None:
            one_label = labels[0][rows, None] == labels[1][None]
            same += np.einsum("rn,rn->r", counts @ np.where(one_label, block, 0), y_counts)
            same_pairs += np.einsum("rn,rn->r", counts @ one_label, y_counts)
    return KernelSums(total, same, x_counts.sum(axis=1) * y_counts.sum(axis=1), same_pairs)


def check(x: np.ndarray, y: np.ndarray) -> None:
    """Raises ValueError for sets that cannot be compared."""
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"found features of shapes {x.shape} and {y.shape}; expected (pictures, the same features)")
    if min(len(x), len(y)) < 2:
        raise ValueError(f"found {len(x)} and {len(y)} pictures, expected at least 2 in each set")

"""The Fréchet distance between two sets of features (FID, whatever network gave them), in float64."""

import warnings

import numpy as np
from jaxtyping import Float


class RankDeficient(UserWarning):
    """Fewer pictures than features: the covariance is singular, and the distance says much of how few they are."""


class Moments:
    """Count, mean and covariance of features, from sums that are added to: memory does not grow with the pictures.

    Chan, Golub and LeVeque 1979, "Updating formulae and a pairwise algorithm for computing sample variances".
    """

    def __init__(self, dimension: int):
        self.count = 0
        self.mean = np.zeros(dimension)
        self._scatter = np.zeros((dimension, dimension))

    @classmethod
    def of(cls, features: Float[np.ndarray, "n features"], counts: Float[np.ndarray, " n"] | None = None) -> "Moments":
        """Of features that are all there, each `counts` times (once without)."""
        moments = cls(features.shape[1])
        moments.add(features, counts)
        return moments

    def add(self, features: Float[np.ndarray, "n features"], counts: Float[np.ndarray, " n"] | None = None) -> None:
        """Takes some more pictures' features in. ValueError for features that are not finite."""
        features = np.asarray(features, np.float64)
        counts = np.ones(len(features)) if counts is None else counts
        if not counts.sum():
            return
        if not np.isfinite(features).all():
            raise ValueError("features: found some that are not finite; the network or its weights are broken")
        count, kept = counts.sum(), counts > 0
        mean = counts @ features / count
        scaled, shift = (features[kept] - mean) * np.sqrt(counts[kept])[:, None], mean - self.mean
        total = self.count + count
        self._scatter += scaled.T @ scaled + np.outer(shift, shift) * (self.count * count / total)
        self.mean += shift * (count / total)
        self.count = int(total)

    @property
    def covariance(self) -> Float[np.ndarray, "features features"]:
        """The sample covariance (n - 1 in the denominator). ValueError for fewer than two pictures."""
        if self.count < 2:
            raise ValueError(f"found {self.count} pictures, expected at least 2: a covariance needs several")
        return self._scatter / (self.count - 1)


def frechet_distance(a: Moments, b: Moments) -> float:
    """Squared Fréchet distance of the two Gaussians with these moments: |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)).

    Heusel et al. 2017 (arXiv:1706.08500). The root's trace is taken from the eigenvalues of S1^(1/2) S2 S1^(1/2), which
    is symmetric: no imaginary parts, no iteration that may not converge.

    Raises:
      ValueError: fewer than two pictures, or different features. Warns RankDeficient for fewer pictures than features.
    """
    if len(a.mean) != len(b.mean):
        raise ValueError(f"found {len(a.mean)} and {len(b.mean)} features; expected the same network for both sets")
    warn_of_few(a.count, b.count, len(a.mean))
    return _of_gaussians(a.mean, a.covariance, b.mean, b.covariance)


def warn_of_few(first: int, second: int, dimension: int) -> None:
    """Warns RankDeficient if one of two sets has fewer pictures than features."""
    if min(first, second) <= dimension:
        warnings.warn(
            f"{min(first, second)} pictures for {dimension} features: the Fréchet distance is far too large at so few; "
            "compare it with that of real pictures, as many, and look at the kernel distance",
            RankDeficient,
            stacklevel=3,
        )


def resampled_frechet(
    x: Float[np.ndarray, "n features"],
    y: Float[np.ndarray, "m features"],
    x_counts: Float[np.ndarray, "resamples n"],
    y_counts: Float[np.ndarray, "resamples m"],
) -> Float[np.ndarray, " resamples"]:
    """The distance of each pair of resampled sets, which have picture i `counts[i]` times; NaN where one has fewer than
    two pictures.

    Of few pictures the root's trace is the sum of the singular values of their inner products, which are taken once:
    the features, however wide, are not looked at again. With more pictures than features it is taken from `Moments`.

    Raises:
      ValueError: features that are not finite.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("features: found some that are not finite; the network or its weights are broken")
    shared = y.mean(axis=0)
    x, y = x - shared, y - shared
    few = len(x) * len(y) * min(len(x), len(y)) < 4 * x.shape[1] ** 3
    distance = _InnerProducts(x, y) if few else _OfMoments(x, y)
    pairs = zip(x_counts, y_counts, strict=True)
    return np.array([distance(v, w) if min(v.sum(), w.sum()) > 1 else np.nan for v, w in pairs])


class _InnerProducts:
    """The distance from inner products alone: tr (S1 S2)^(1/2) is the nuclear norm of X1 X2^T, both centred."""

    def __init__(self, x: np.ndarray, y: np.ndarray):
        self.xx, self.yy, self.xy = x @ x.T, y @ y.T, x @ y.T

    def __call__(self, v: np.ndarray, w: np.ndarray) -> float:
        n, m = v.sum(), w.sum()
        p, q = v / n, w / m
        mean_x, mean_y = p @ self.xx @ p, q @ self.yy @ q
        between = mean_x + mean_y - 2 * p @ self.xy @ q
        spread_x = (p @ self.xx.diagonal() - mean_x) * n / (n - 1)
        spread_y = (q @ self.yy.diagonal() - mean_y) * m / (m - 1)
        rows, columns = v > 0, w > 0
        centred = self.xy - (self.xy @ q)[:, None] - (p @ self.xy)[None] + p @ self.xy @ q
        scaled = np.sqrt(v[rows])[:, None] * centred[np.ix_(rows, columns)] * np.sqrt(w[columns])
        root = np.linalg.svd(scaled, compute_uv=False).sum() / np.sqrt((n - 1) * (m - 1))
        return float(between + spread_x + spread_y - 2 * root)


class _OfMoments:
    """The distance from weighted moments, for many pictures."""

    def __init__(self, x: np.ndarray, y: np.ndarray):
        self.x, self.y = x, y

    def __call__(self, v: np.ndarray, w: np.ndarray) -> float:
        a, b = Moments.of(self.x, v), Moments.of(self.y, w)
        return _of_gaussians(a.mean, a.covariance, b.mean, b.covariance)


def _of_gaussians(mean_1: np.ndarray, cov_1: np.ndarray, mean_2: np.ndarray, cov_2: np.ndarray) -> float:
    values, vectors = np.linalg.eigh(cov_1)
    root = vectors * np.sqrt(np.maximum(values, 0))
    squares = np.linalg.eigvalsh(root.T @ cov_2 @ root)
    # Zeros of a singular matrix come out as rounding errors, whose roots would count.
    noise = len(squares) * np.finfo(np.float64).eps * max(squares[-1], 0)
    trace = np.sqrt(np.where(squares > noise, squares, 0)).sum()
    shift = mean_1 - mean_2
    return float(shift @ shift + np.trace(cov_1) + np.trace(cov_2) - 2 * trace)

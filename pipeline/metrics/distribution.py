"""Distances between two sets of feature vectors: Fréchet distance and kernel distance, float64, without `sqrtm`.

Fréchet: |mu1 - mu2|^2 + tr(S1 + S2 - 2 (S1^1/2 S2 S1^1/2)^1/2) (Heusel et al. 2017), the root by symmetric eigenvalues clamped
at 0: finite and real for rank-deficient sets, independent of scipy's version. Kernel: unbiased MMD with (x.y/d + 1)^3
(Binkowski et al. 2018) over seeded subsets. Pitfall: the Fréchet distance is biased upwards by about 1/n; only equal n compare.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.floating]  # (n, d)
Matrix = NDArray[np.float64]


class Moments:
    """Running count, sum and product sum of feature rows in float64: mean and covariance in memory that does not grow."""

    def __init__(self, width: int) -> None:
        self.count = 0
        self.width = width
        self._shift: Matrix | None = None  # the first row: subtracted, so that the product sum does not cancel
        self._sum = np.zeros(width)
        self._products = np.zeros((width, width))

    def update(self, features: Features) -> None:
        """Add rows (n, d). Raises ValueError for another width, another shape or values that are not finite."""
        rows = check_features(features, self.width)
        if self._shift is None:
            self._shift = rows[0].copy()
        centred = rows - self._shift
        self.count += len(rows)
        self._sum += centred.sum(axis=0)
        self._products += centred.T @ centred

    @property
    def mean(self) -> Matrix:
        """(d,)."""
        assert self._shift is not None, "moments of nothing"
        return self._shift + self._sum / self.count

    @property
    def covariance(self) -> Matrix:
        """(d, d) with n - 1. Raises ValueError below two rows."""
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 feature rows, got {self.count}")
        mean = self._sum / self.count
        return (self._products - self.count * np.outer(mean, mean)) / (self.count - 1)

    @classmethod
    def of(cls, features: Features) -> Moments:
        """Moments of one array of rows."""
        moments = cls(features.shape[1])
        moments.update(features)
        return moments


def check_features(features: Features, width: int | None = None) -> Matrix:
    """Rows as float64; ValueError unless they are (n >= 1, d >= 2), finite, and of `width` where that is given.

    Flattened feature buffers once gave a plausible Fréchet distance near 0.
    """
    if features.ndim != 2 or features.shape[0] < 1 or features.shape[1] < 2:
        raise ValueError(f"features must be (n, d) with d >= 2, got shape {features.shape}")
    if width is not None and features.shape[1] != width:
        raise ValueError(f"features must have {width} columns, got {features.shape[1]}")
    rows = features.astype(np.float64)
    if not np.isfinite(rows).all():
        raise ValueError("features are not finite")
    return rows


def root(matrix: Matrix) -> Matrix:
    """Symmetric square root of a symmetric positive semidefinite matrix; negative rounding is clamped to 0."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2.0)
    return (vectors * np.sqrt(significant(values))) @ vectors.T


def significant(eigenvalues: NDArray[np.floating]) -> Matrix:
    """Eigenvalues with those below the rank tolerance (numpy's own: largest x count x epsilon) set to 0.

    Rounding noise of 1e-16 would otherwise enter a sum of square roots as 1e-8 each, and below 0 as NaN.
    """
    floor = float(np.max(np.abs(eigenvalues), initial=0.0)) * len(eigenvalues) * np.finfo(np.float64).eps
    kept: Matrix = np.where(eigenvalues > floor, eigenvalues, 0.0).astype(np.float64)
    return kept


def frechet(mean_a: Matrix, cov_a: Matrix, mean_b: Matrix, cov_b: Matrix) -> float:
    """Fréchet distance of two Gaussians (squared, as FID is defined). Means (d,), covariances (d, d); result >= 0.

    Raises ValueError when shapes do not fit.
    """
    width = mean_a.shape[0]
    if mean_b.shape != (width,) or cov_a.shape != (width, width) or cov_b.shape != (width, width):
        raise ValueError(f"shapes {mean_a.shape}, {cov_a.shape}, {mean_b.shape}, {cov_b.shape} do not fit together")
    root_a = root(cov_a)
    product = root_a @ cov_b @ root_a
    values = np.linalg.eigvalsh((product + product.T) / 2.0)
    cross = float(np.sqrt(significant(values)).sum())
    offset = mean_a - mean_b
    return max(0.0, float(offset @ offset + np.trace(cov_a) + np.trace(cov_b) - 2.0 * cross))


@dataclass(frozen=True)
class Interval:
    """Percentile interval."""

    low: float
    high: float


def frechet_interval(
    mean_ref: Matrix, cov_ref: Matrix, features: Features, *, resamples: int, seed: int, level: float = 0.95
) -> Interval:
    """Interval of the Fréchet distance to a fixed reference by resampling the generated images with replacement.

    The rows are turned by S_ref^1/2 once, so that a resample costs one (d, d) spectrum. With no more images than features one
    (n, n) Gram matrix serves all resamples instead: the non-zero eigenvalues of S_ref^1/2 S S_ref^1/2 are those of
    X S_ref X^T/(n-1) with X the centred rows. Repeated images raise the distance (its bias is about 1/n), so the resampled values
    are shifted to have the measured one as their mean: the interval says how much the choice of images matters, not where
    n -> inf lies.
    """
    rows = check_features(features, mean_ref.shape[0])
    count = len(rows)
    rng = np.random.default_rng(seed)
    centred = rows - rows.mean(axis=0)  # the spectrum does not depend on it, its rounding does
    few = count <= rows.shape[1]
    gram: Matrix | None = centred @ cov_ref @ centred.T if few else None
    turned: Matrix = rows if few else centred @ root(cov_ref)
    norms = (rows * rows).sum(axis=1)
    values = np.empty(resamples)
    for i in range(resamples):
        times = np.bincount(rng.integers(0, count, count), minlength=count).astype(np.float64)
        chosen = np.flatnonzero(times)
        weight = times[chosen] / count
        mean = weight @ rows[chosen]
        if gram is not None:
            spectrum = _gram_spectrum(gram[np.ix_(chosen, chosen)], weight, times[chosen])
        else:
            away = turned[chosen] - weight @ turned[chosen]
            spectrum = _spectrum((away * times[chosen][:, None]).T @ away)
        eigenvalues = spectrum / (count - 1)
        trace = (times[chosen] @ norms[chosen] - count * mean @ mean) / (count - 1)
        offset = mean - mean_ref
        values[i] = offset @ offset + np.trace(cov_ref) + trace - 2 * np.sqrt(significant(eigenvalues)).sum()
    tail = (1.0 - level) / 2.0
    own = Moments.of(rows)
    values += frechet(mean_ref, cov_ref, own.mean, own.covariance) - values.mean()
    low, high = np.quantile(values, [tail, 1.0 - tail])
    return Interval(max(0.0, float(low)), float(high))


def _gram_spectrum(block: Matrix, weight: NDArray[np.float64], times: NDArray[np.float64]) -> NDArray[np.float64]:
    """Eigenvalues of the centred products `block` (m, m) of rows that occur `times` (m,), `weight` their shares."""
    across = weight @ block
    centred = block - across[None, :] - across[:, None] + weight @ across
    scale = np.sqrt(times)
    return _spectrum(centred * scale[:, None] * scale[None, :])


def _spectrum(symmetric: Matrix) -> Matrix:
    values: Matrix = np.linalg.eigvalsh(symmetric).astype(np.float64)
    return values


@dataclass(frozen=True)
class KernelDistance:
    """Mean and standard deviation over subsets; not scaled."""

    mean: float
    std: float
    subset_size: int  # what was used: at most either set's size


def kernel_distance(a: Features, b: Features, *, subsets: int, subset_size: int, seed: int) -> KernelDistance:
    """Unbiased squared MMD with kernel (x.y/d + 1)^3, averaged over `subsets` random subsets drawn without replacement.

    a (n, d), b (m, d). May be slightly negative for like sets (it is unbiased). Raises ValueError below 2 rows.
    """
    rows_a, rows_b = check_features(a), check_features(b, a.shape[1])
    size = min(subset_size, len(rows_a), len(rows_b))
    if size < 2:
        raise ValueError(
            f"a kernel distance needs at least 2 images of either kind, got {len(rows_a)} and {len(rows_b)}"
        )
    rng = np.random.default_rng(seed)
    width = rows_a.shape[1]
    values = np.empty(subsets)
    for i in range(subsets):
        x = rows_a[rng.choice(len(rows_a), size, replace=False)]
        y = rows_b[rng.choice(len(rows_b), size, replace=False)]
        within_x, within_y = (x @ x.T / width + 1) ** 3, (y @ y.T / width + 1) ** 3
        across = (x @ y.T / width + 1) ** 3
        pairs = size * (size - 1)
        values[i] = (
            (within_x.sum() - np.trace(within_x)) / pairs
            + (within_y.sum() - np.trace(within_y)) / pairs
            - 2.0 * across.mean()
        )
    return KernelDistance(float(values.mean()), float(values.std()), size)

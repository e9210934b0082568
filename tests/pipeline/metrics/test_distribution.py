"""Fréchet and kernel distances: closed forms, clean-fid and scipy where they are right, rank deficiency, invariances."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.metrics.distribution import Moments, check_features, frechet, frechet_interval, kernel_distance


def rows(n: int, d: int, seed: int = 0, shift: float = 0.0, scale: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, scale, (n, d))


@given(
    st.lists(st.tuples(st.floats(-3, 3), st.floats(-3, 3), st.floats(0, 4), st.floats(0, 4)), min_size=2, max_size=6)
)
def test_gaussians_with_known_distance(values: list[tuple[float, float, float, float]]) -> None:
    mean_a, mean_b, std_a, std_b = (np.array(column) for column in zip(*values, strict=True))
    expected = float(((mean_a - mean_b) ** 2 + (std_a - std_b) ** 2).sum())
    # The same rotation of both leaves the distance as it is.
    rotation, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(len(values), len(values))))
    cov_a, cov_b = (rotation @ np.diag(std**2) @ rotation.T for std in (std_a, std_b))
    found = frechet(rotation @ mean_a, cov_a, rotation @ mean_b, cov_b)
    assert found == pytest.approx(expected, abs=1e-5)


def test_identical_sets_are_near_zero_and_far_ones_are_not() -> None:
    a = Moments.of(rows(50, 8))
    assert frechet(a.mean, a.covariance, a.mean, a.covariance) == pytest.approx(0, abs=1e-9)
    b = Moments.of(rows(50, 8, shift=5.0))
    assert frechet(a.mean, a.covariance, b.mean, b.covariance) == pytest.approx(8 * 25, rel=0.1)


def test_rank_deficient_sets_are_finite_and_symmetric() -> None:
    a, b = Moments.of(rows(5, 64)), Moments.of(rows(7, 64, seed=1))
    forth = frechet(a.mean, a.covariance, b.mean, b.covariance)
    back = frechet(b.mean, b.covariance, a.mean, a.covariance)
    assert np.isfinite(forth) and forth > 0 and forth == pytest.approx(back, rel=1e-9)


def test_equal_to_clean_fid_and_scipy_on_full_rank() -> None:
    from cleanfid.fid import frechet_distance
    from cleanfid.fid import kernel_distance as clean_kernel
    from scipy.linalg import sqrtm

    a, b = rows(200, 12), rows(150, 12, seed=1, shift=0.3, scale=1.4)
    first, second = Moments.of(a), Moments.of(b)
    found = frechet(first.mean, first.covariance, second.mean, second.covariance)
    by_hand = (
        ((a.mean(0) - b.mean(0)) ** 2).sum()
        + np.trace(np.cov(a.T) + np.cov(b.T))
        - 2 * np.trace(sqrtm(np.cov(a.T) @ np.cov(b.T))).real
    )
    assert found == pytest.approx(by_hand, rel=1e-8)
    try:
        theirs = frechet_distance(a.mean(0), np.cov(a.T), b.mean(0), np.cov(b.T))
    except (TypeError, ValueError):
        theirs = by_hand  # scipy >= 1.18 breaks clean-fid's own call: why the distance is computed here
    assert found == pytest.approx(theirs, rel=1e-8)
    # With subsets as large as the sets nothing is random, and the two estimators must agree.
    same = rows(150, 12, seed=2)
    kernel = kernel_distance(same, b, subsets=1, subset_size=150, seed=0)
    assert kernel.mean == pytest.approx(clean_kernel(same, b, num_subsets=1, max_subset_size=150), rel=1e-9)


@settings(max_examples=20)
@given(st.integers(1, 40), st.floats(-1e3, 1e3))
def test_running_moments_do_not_depend_on_batches_and_offsets(size: int, offset: float) -> None:
    data = rows(40, 5) + offset
    running = Moments(5)
    for start in range(0, 40, size):
        running.update(data[start : start + size])
    assert np.allclose(running.mean, data.mean(0), atol=1e-9)
    assert np.allclose(running.covariance, np.cov(data.T), atol=1e-9)


def test_the_kernel_distance_is_seeded_ordered_by_likeness_and_says_what_it_used() -> None:
    a, near, far = rows(60, 6), rows(60, 6, seed=1, shift=0.2), rows(60, 6, seed=1, shift=1.0)
    first = kernel_distance(a, near, subsets=10, subset_size=30, seed=3)
    assert first == kernel_distance(a, near, subsets=10, subset_size=30, seed=3)
    assert first != kernel_distance(a, near, subsets=10, subset_size=30, seed=4)
    assert first.mean < kernel_distance(a, far, subsets=10, subset_size=30, seed=3).mean
    like = [kernel_distance(a, rows(60, 6, seed=s), subsets=1, subset_size=60, seed=0).mean for s in range(5, 45)]
    assert abs(np.mean(like)) < 3 * np.std(like) / np.sqrt(40) + 0.05 and min(like) < 0  # unbiased: some are negative
    assert kernel_distance(a, near, subsets=1, subset_size=500, seed=0).subset_size == 60
    with pytest.raises(ValueError, match="at least 2"):
        kernel_distance(a[:1], near, subsets=1, subset_size=5, seed=0)


@pytest.mark.parametrize(("n", "d"), [(60, 5), (12, 40)])
def test_the_interval_holds_the_value_and_shrinks_with_n(n: int, d: int) -> None:
    reference = Moments.of(rows(300, d, seed=9))

    def interval(count: int) -> tuple[float, float, float]:
        data = rows(count, d, seed=1, shift=0.5)
        own = Moments.of(data)
        found = frechet_interval(reference.mean, reference.covariance, data, resamples=40, seed=0)
        return found.low, frechet(reference.mean, reference.covariance, own.mean, own.covariance), found.high

    low, value, high = interval(n)
    assert 0 <= low < value < high
    wide = high - low
    low, value, high = interval(20 * n)
    assert high - low < wide


def test_the_interval_resamples_what_moments_of_resampled_rows_give() -> None:
    reference, data = Moments.of(rows(100, 4, seed=9)), rows(20, 4, shift=0.5)
    rng = np.random.default_rng(0)
    direct = []
    for _ in range(30):
        chosen = Moments.of(data[rng.integers(0, 20, 20)])
        direct.append(frechet(reference.mean, reference.covariance, chosen.mean, chosen.covariance))
    own = Moments.of(data)
    shift = frechet(reference.mean, reference.covariance, own.mean, own.covariance) - np.mean(direct)
    found = frechet_interval(reference.mean, reference.covariance, data, resamples=30, seed=0)
    assert (found.low, found.high) == pytest.approx(
        tuple(np.quantile(np.array(direct) + shift, [0.025, 0.975])), rel=1e-8
    )


def test_flattened_or_broken_features_are_refused() -> None:
    for bad in (np.zeros(10), np.zeros((10, 1)), np.zeros((0, 4)), np.full((3, 4), np.nan)):
        with pytest.raises(ValueError, match="features"):
            check_features(bad)
    with pytest.raises(ValueError, match="columns"):
        Moments(3).update(np.zeros((2, 4)))
    with pytest.raises(ValueError, match="at least 2"):
        _ = Moments.of(np.zeros((1, 4))).covariance
    with pytest.raises(ValueError, match="fit together"):
        frechet(np.zeros(3), np.zeros(()), np.zeros(3), np.zeros((3, 3)))

"""Intervals over seeds and images: how often they cover the truth, how often true nulls are rejected, how many seeds decide."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import ttost_paired

from analysis.statistics import (
    hierarchical_interval,
    seeds_to_decide,
)
from analysis.statistics.intervals import Interval, quantile, tail


def simulate(generator: np.random.Generator, count: int, seeds: int, images: int) -> np.ndarray:
    """(count, seeds, images) paired differences with mean 0: seed, image and residual noise.

    One seed or one image has no noise of its own: the interval is then about that run, or that set of images.
    """
    return (
        generator.normal(0, 1.0 if seeds > 1 else 0.0, size=(count, seeds, 1))
        + generator.normal(0, 2.0 if images > 1 else 0.0, size=(count, 1, images))
        + generator.normal(0, 2.0, size=(count, seeds, images))
    )


@pytest.mark.parametrize(("seeds", "images"), [(3, 40), (5, 20), (10, 30), (5, 1), (1, 25)])
def test_interval_covers_the_truth_as_often_as_it_says(seeds: int, images: int) -> None:
    generator = np.random.default_rng(11)
    simulated = simulate(generator, 500, seeds, images)
    hits = [not hierarchical_interval(one).excludes(0.0) for one in simulated]
    assert 0.925 <= np.mean(hits) <= 0.99  # 95 % within sampling error (1 %), mildly conservative


def resampled(generator: np.random.Generator, matrix: np.ndarray, count: int, *, rescaled: bool) -> np.ndarray:
    """(count,) means of new seeds and new images, drawn independently: what the standard error stands for."""

    def weights(n: int) -> np.ndarray:
        drawn = generator.multinomial(n, np.full(n, 1 / n), size=count) / n
        return 1 / n + math.sqrt(n / (n - 1)) * (drawn - 1 / n) if rescaled and n > 1 else drawn

    seeds, images = (weights(n) for n in matrix.shape)
    return np.einsum("bi,bi->b", seeds @ matrix, images)


@pytest.mark.parametrize(("seeds", "images"), [(3, 40), (5, 1), (1, 25)])
def test_the_standard_error_is_what_resampling_tends_to(seeds: int, images: int) -> None:
    generator = np.random.default_rng(14)
    matrix = simulate(generator, 1, seeds, images)[0]
    drawn = resampled(generator, matrix, 200_000, rescaled=True)
    assert hierarchical_interval(matrix).standard_error == pytest.approx(drawn.std(), rel=0.01)


def test_percentile_interval_is_too_narrow_with_three_seeds() -> None:
    """Why it is not used."""
    generator = np.random.default_rng(12)
    hits = []
    for one in simulate(generator, 400, 3, 40):
        low, high = np.quantile(resampled(generator, one, 400, rescaled=False), [0.025, 0.975])
        hits.append(low <= 0 <= high)
    assert np.mean(hits) < 0.9


def test_interval_without_images_is_students() -> None:
    differences = [0.31, -0.12, 0.55, 0.27, 0.44, 0.08, 0.61, -0.05]
    values = np.array(differences)[:, None]
    ours = hierarchical_interval(values)
    expected = stats.t.interval(0.95, 7, np.mean(differences), stats.sem(differences))
    assert (ours.lower, ours.upper) == (pytest.approx(expected[0]), pytest.approx(expected[1]))


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("ratio", [0.1, 0.3, 1.0])
def test_true_nulls_are_not_rejected_too_often_far_out_in_the_tail(seeds: int, ratio: float) -> None:
    """Where Holm's correction reads: one-sided at 0.025 / 30. `ratio`: noise of images over noise of seeds, in the mean.

    Satterthwaite's degrees of freedom rejected 11 and 29 times as often as they say with 3 and 2 seeds at 0.3.
    """
    generator, level, images, count = np.random.default_rng(13), 0.025 / 30, 16, 20_000
    of_image = ratio * math.sqrt(images)
    differences = (
        generator.normal(0, math.sqrt(seeds), (count, seeds, 1))
        + generator.normal(0, of_image, (count, 1, images))
        + generator.normal(0, 0.3 * of_image, (count, seeds, images))
    )
    margins = differences.mean(2), differences.mean(1)
    of_seeds, of_images = (margin.var(1, ddof=1) / margin.shape[1] for margin in margins)
    total = of_seeds + of_images  # the squared standard error, and a little less: it adds the residuals once more
    beyond = differences.mean((1, 2)) / np.sqrt(total)
    suspects = np.flatnonzero(beyond > stats.t.isf(level, images - 1))  # no quantile is smaller
    rejected = [
        tail(((of_seeds[i] / total[i], seeds - 1), (of_images[i] / total[i], images - 1)), beyond[i]) < level
        for i in suspects
    ]
    assert sum(rejected) <= stats.binom.isf(0.001, count, level)


def test_a_tail_is_where_its_quantile_lies() -> None:
    parts = ((0.7, 2), (0.3, 40))
    for beyond in (0.3, 0.025, 1e-5):
        assert tail(parts, quantile(parts, beyond)) == pytest.approx(beyond, rel=1e-6)
    assert quantile(((1.0, 4),), 0.025) == pytest.approx(stats.t.isf(0.025, 4))
    assert tail(((0.0, 1), (1.0, 9)), 2.0) == pytest.approx(stats.t.sf(2.0, 9)), "a source without noise has no say"
    interval = hierarchical_interval(simulate(np.random.default_rng(2), 1, 4, 12)[0] + 1)
    upper = interval.p_beyond(interval.upper)
    assert upper == (pytest.approx(0.975), pytest.approx(0.025)) and sum(interval.p_beyond(0.3)) == pytest.approx(1)


def test_equivalence_over_seeds_alone_is_statsmodels() -> None:
    base = np.array([20.1, 20.4, 19.8, 20.0, 20.3])
    other = base + np.array([0.02, -0.01, 0.03, 0.0, 0.01])
    p_value, *_ = ttost_paired(other, base, -0.1, 0.1)
    assert hierarchical_interval((other - base)[:, None]).p_within(0.1)[0] == pytest.approx(p_value)
    wide = hierarchical_interval(np.array([[1.0], [-1.1], [0.4], [-0.2]]))
    assert wide.p_within(0.1)[0] > 0.4, "no significance is no equivalence"
    ends = Interval(0.0, -1, 1, 0.95, 5, 1, 0.5, ((1.0, 4),))
    edge = ends.standard_error * float(stats.t.isf(0.025, 4))
    assert ends.p_within(edge)[0] == pytest.approx(0.025), "within exactly where the 95 % interval ends"


@pytest.mark.parametrize("effect", [0.3, 0.8, 1.5, 3.0])
def test_seeds_to_decide_is_statsmodels_rounded_up_where_seeds_are_all_the_noise(effect: float) -> None:
    expected = TTestPower().solve_power(effect_size=effect, alpha=0.025, power=0.8, alternative="larger")
    one = Interval(effect, 0, 0, 0.95, 4, 1, 1 / math.sqrt(4), ((1.0, 3),))
    assert seeds_to_decide(one, effect, beyond=0.025) == math.ceil(float(np.squeeze(expected)))
    assert seeds_to_decide(one, 1e-6, beyond=0.025) is None and seeds_to_decide(one, 0.0, beyond=0.025) is None


def test_more_seeds_do_not_stand_in_for_more_images() -> None:
    """0.02 away, with a standard error of 0.022 that is all but the images': no number of seeds decides."""
    images = Interval(0.06, 0, 0, 0.95, 5, 24, 0.022, ((0.01, 4), (0.99, 23)))
    assert seeds_to_decide(images, 0.06, beyond=0.025 / 20) is None
    assert seeds_to_decide(images, 0.12, beyond=0.025 / 20) == 3
    seeds = Interval(0.06, 0, 0, 0.95, 5, 24, 0.022, ((0.99, 4), (0.01, 23)))
    found = seeds_to_decide(seeds, 0.06, beyond=0.025 / 20)
    assert found is not None and 8 <= found <= 16


@pytest.mark.parametrize("values", [np.ones((1, 1)), np.ones(3), np.array([[1.0, math.nan]])])
def test_interval_refuses_what_it_cannot_do(values: np.ndarray) -> None:
    with pytest.raises(ValueError):
        hierarchical_interval(values)

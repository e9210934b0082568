"""Each statistical routine against scipy, statsmodels or a closed form."""

from __future__ import annotations

import math
from unittest import mock

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from analysis.statistics import (
    correlate_metrics,
    correlation,
    effect_size,
    holm,
    interquartile_mean,
    minimum_detectable_effect,
    paired_permutation_test,
    paired_t_test,
    paired_test,
    power_of_paired_t,
    summarise,
    wilcoxon_test,
)
from analysis.statistics.effects import hedges_correction, noncentral_t_cdf

DIFFERENCES = [0.31, -0.12, 0.55, 0.27, 0.44, 0.08, 0.61, -0.05]
finite_floats = st.floats(-1e6, 1e6, allow_nan=False, allow_subnormal=False)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# -- summaries ---------------------------------------------------------------------------------------------------------


def test_summary_is_that_of_the_sample() -> None:
    summary = summarise([1.0, 2.0, 3.0, 10.0])
    assert (summary.n, summary.mean, summary.median, summary.minimum, summary.maximum) == (4, 4.0, 2.5, 1.0, 10.0)
    assert summary.std == pytest.approx(math.sqrt((9 + 4 + 1 + 36) / 3))  # ddof = 1
    assert summary.iqm == 2.5


def test_one_value_has_no_spread() -> None:
    assert summarise([3.5]).std is None


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
def test_no_statistic_of_nothing_or_nan(values: list[float]) -> None:
    with pytest.raises(ValueError):
        summarise(values)


@given(st.lists(finite_floats, min_size=1, max_size=40))
def test_interquartile_mean_is_scipys_trimmed_mean(values: list[float]) -> None:
    assert interquartile_mean(values) == pytest.approx(stats.trim_mean(values, 0.25), rel=1e-9, abs=1e-6)


@given(st.lists(finite_floats, min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_a_mean_does_not_depend_on_the_order_of_runs(values: list[float], random) -> None:  # type: ignore[no-untyped-def]
    shuffled = list(values)
    random.shuffle(shuffled)
    assert summarise(shuffled).mean == summarise(values).mean


# -- tests -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
def test_paired_t_is_scipys(alternative: str) -> None:
    ours = paired_t_test(DIFFERENCES, alternative=alternative)  # type: ignore[arg-type]
    theirs = stats.ttest_1samp(DIFFERENCES, 0.0, alternative=alternative)
    assert (ours.statistic, ours.p_value) == (pytest.approx(theirs.statistic), pytest.approx(theirs.pvalue))


@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
@pytest.mark.parametrize("count", [2, 3, 8])
def test_exact_permutation_is_scipys(alternative: str, count: int) -> None:
    values = DIFFERENCES[:count]
    ours = paired_permutation_test(values, rng(), alternative=alternative)  # type: ignore[arg-type]
    theirs = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", alternative=alternative, n_resamples=np.inf
    )
    assert ours.p_value == pytest.approx(theirs.pvalue)


def test_auto_takes_the_permutation_test_only_where_it_can_survive_a_correction() -> None:
    assert paired_permutation_test([1.0, 1.1, 0.9], rng()).p_value == 0.25
    clear = [1.0 + 0.01 * i for i in range(10)]  # every pair on one side: the smallest p-value there is
    assert paired_permutation_test(clear[:6], rng()).p_value == 2 / 2**6
    assert [paired_test(clear[:n], rng()).name for n in (3, 6, 9)] == ["paired t test"] * 3
    assert holm([2 / 2**6] * 6)[0] > 0.05  # six seeds, six arms: nothing could be significant
    assert paired_test(clear, rng()).name == "paired permutation test"
    assert holm([2 / 2**10] * 25)[0] < 0.05


def test_sampled_permutation_comes_near_the_exact_one() -> None:
    values = rng(3).normal(0.25, 0.5, size=20)
    sampled = paired_permutation_test(values.tolist(), rng(1), resamples=20_000)
    exact = stats.permutation_test((values,), np.mean, permutation_type="samples", n_resamples=200_000, rng=rng(2))
    assert sampled.p_value == pytest.approx(exact.pvalue, abs=0.006)


def test_sampled_permutation_follows_the_generator_it_is_given() -> None:
    values = rng(3).normal(0.2, 1.0, size=20).tolist()
    first, again, other = (paired_permutation_test(values, rng(seed), resamples=500).p_value for seed in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize("count", [5, 8])
def test_wilcoxon_is_scipys(count: int) -> None:
    ours, theirs = wilcoxon_test(DIFFERENCES[:count]), stats.wilcoxon(DIFFERENCES[:count])
    assert (ours.statistic, ours.p_value) == (theirs.statistic, pytest.approx(theirs.pvalue))
    assert wilcoxon_test([0.0, 0.0, 0.0]).p_value == 1.0


def test_constant_differences_are_certain() -> None:
    assert paired_t_test([0.5, 0.5, 0.5]).p_value == 0.0
    assert paired_t_test([0.0, 0.0, 0.0]).p_value == 1.0


@pytest.mark.parametrize("test", [paired_t_test, wilcoxon_test])
def test_one_pair_is_no_test(test) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="two pairs"):
        test([0.3])


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_is_statsmodels(p_values: list[float]) -> None:
    with mock.patch("gc.collect"):  # statsmodels sweeps the whole suite's memory at every call: 40 seconds of it
        expected = multipletests(p_values, method="holm")[1] if p_values else []
    assert holm(p_values) == pytest.approx(list(expected))


def test_holm_refuses_what_is_no_probability() -> None:
    with pytest.raises(ValueError, match="p-values"):
        holm([0.1, math.nan])


# -- effect size and power ---------------------------------------------------------------------------------------------


def test_effect_size_and_its_interval() -> None:
    effect = effect_size(DIFFERENCES)
    assert effect.d_z == pytest.approx(np.mean(DIFFERENCES) / np.std(DIFFERENCES, ddof=1))
    assert effect.g_z == pytest.approx(effect.d_z * (1 - 3 / (4 * 7 - 1)), rel=2e-3)  # Hedges' approximation
    t = effect.d_z * math.sqrt(8)
    # by definition: the observed t is the 2.5 % and the 97.5 % point under the two ends
    assert stats.nct.sf(t, 7, effect.lower * math.sqrt(8)) == pytest.approx(0.025, abs=1e-6)
    assert stats.nct.cdf(t, 7, effect.upper * math.sqrt(8)) == pytest.approx(0.025, abs=1e-6)


@pytest.mark.parametrize(
    ("t", "df", "shift"), [(0.5, 1, 0.0), (2.0, 2, 1.0), (-1.0, 4, 0.7), (3.0, 9, 5.0), (6.0, 30, 4.0)]
)
def test_noncentral_t_is_scipys_where_that_works(t: float, df: int, shift: float) -> None:
    assert noncentral_t_cdf(t, df, shift) == pytest.approx(stats.nct.cdf(t, df, shift), abs=1e-9)


@pytest.mark.parametrize("scale", [1.0, 100.0, 1e4])
def test_effect_sizes_of_clear_effects_have_finite_intervals(scale: float) -> None:
    for differences in ([1.0, 1.0 + 1 / scale], [1.0, 1.0 + 1 / scale, 1.0 - 0.5 / scale]):
        effect = effect_size(differences)
        assert effect.lower < effect.d_z < effect.upper
        assert math.isfinite(effect.upper)


def test_hedges_correction_closed_form() -> None:
    assert hedges_correction(2) == pytest.approx(1 / math.sqrt(math.pi))  # Gamma(1) / Gamma(1/2)
    assert hedges_correction(1) == 0.0


@pytest.mark.parametrize("sides", [1, 2])
@pytest.mark.parametrize(("effect", "n"), [(0.2, 3), (0.5, 5), (1.0, 10), (2.0, 4)])
def test_power_is_statsmodels(effect: float, n: int, sides: int) -> None:
    alternative = "two-sided" if sides == 2 else "larger"
    expected = TTestPower().power(effect, n, 0.05, alternative=alternative)
    assert power_of_paired_t(effect, n, sides=sides) == pytest.approx(expected, abs=1e-9)  # type: ignore[arg-type]


def test_minimum_detectable_effect_is_statsmodels() -> None:
    expected = TTestPower().solve_power(nobs=5, alpha=0.05, power=0.8)
    assert minimum_detectable_effect(0.3, 5) == pytest.approx(0.3 * expected, rel=1e-6)
    assert minimum_detectable_effect(0.3, 1) == math.inf


# -- correlation -------------------------------------------------------------------------------------------------------


def test_correlation_is_scipys() -> None:
    generator = rng(7)
    first = generator.normal(size=25)
    second = first + generator.normal(size=25)
    pearson = stats.pearsonr(first, second)
    r, lower, upper = correlation(first, second, kind="pearson")
    interval = pearson.confidence_interval()
    assert (r, lower, upper) == tuple(map(pytest.approx, (pearson.statistic, interval.low, interval.high)))
    assert correlation(first, second)[0] == pytest.approx(stats.spearmanr(first, second).statistic)


def test_correlation_pairs_only_runs_that_have_both() -> None:
    frame = pd.DataFrame({"a": [1.0, 2.0, 3.0, None, 5.0], "b": [2.0, 4.0, 5.0, 1.0, None], "c": [1.0] * 5})
    pairs = {(item.first, item.second): item for item in correlate_metrics(frame)}
    assert pairs["a", "b"].n == 3
    assert pairs["a", "b"].coefficient == pytest.approx(1.0)
    assert pairs["a", "c"].coefficient is None  # no spread


def test_no_correlation_of_too_little() -> None:
    two, three = np.array([1.0, 2.0]), np.array([1.0, 2.0, 3.0])
    assert correlation(two, two) == (None, None, None)
    assert correlation(three, np.ones(3)) == (None, None, None)
    assert correlation(three, three) == (pytest.approx(1.0), None, None)  # no error to make an interval of

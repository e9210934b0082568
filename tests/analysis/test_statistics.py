"""Each statistical routine against scipy, statsmodels or a closed form."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import ttost_paired

from analysis.statistics import (
    analyse_factorial,
    correlate_metrics,
    correlation,
    effect_size,
    hierarchical_interval,
    holm,
    interquartile_mean,
    minimum_detectable_effect,
    paired_permutation_test,
    paired_t_test,
    paired_test,
    power_of_paired_t,
    seeds_to_decide,
    summarise,
    tost,
    wilcoxon_test,
)
from analysis.statistics.bootstrap import Interval, quantile, tail
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


# -- equivalence -------------------------------------------------------------------------------------------------------


def test_tost_is_statsmodels() -> None:
    base = np.array([20.1, 20.4, 19.8, 20.0, 20.3])
    other = base + np.array([0.02, -0.01, 0.03, 0.0, 0.01])
    p_value, low, high = ttost_paired(other, base, -0.1, 0.1)
    ours = tost((other - base).tolist(), -0.1, 0.1)
    assert ours.p_value == pytest.approx(p_value)
    assert (ours.p_low, ours.p_high) == (pytest.approx(low[1]), pytest.approx(high[1]))
    assert ours.equivalent
    assert -0.1 < ours.lower < ours.upper < 0.1  # the 90 % interval lies inside exactly when equivalent


def test_no_significance_is_not_equivalence() -> None:
    wide = [1.0, -1.1, 0.4, -0.2]
    assert paired_t_test(wide).p_value > 0.5
    assert not tost(wide, -0.1, 0.1).equivalent


def test_tost_refuses_empty_margins() -> None:
    with pytest.raises(ValueError, match="margins"):
        tost([0.1, 0.2], 0.1, -0.1)


# -- factorial ---------------------------------------------------------------------------------------------------------


def factorial_data(missing: int = 0) -> pd.DataFrame:
    generator, rows = rng(5), []
    for a in ("low", "high"):
        for b in ("x", "y", "z"):
            for seed in range(4):
                value = 10 + 2 * (a == "high") + (b == "y") - 1.5 * (a == "high" and b == "z") + 0.3 * seed
                rows.append({"a": a, "b": b, "seed": seed, "value": value + generator.normal(0, 0.2)})
    return pd.DataFrame(rows).iloc[missing:].reset_index(drop=True)


@pytest.mark.parametrize("missing", [0, 2])
def test_factorial_is_statsmodels_anova(missing: int) -> None:
    from statsmodels.formula.api import ols
    from statsmodels.stats.anova import anova_lm

    data = factorial_data(missing)
    expected = anova_lm(ols("value ~ C(a, Sum) * C(b, Sum) + C(seed, Sum)", data).fit(), typ=3)
    ours = analyse_factorial(data, ["a", "b"])
    names = {"a": "C(a, Sum)", "b": "C(b, Sum)", "a:b": "C(a, Sum):C(b, Sum)", "seed": "C(seed, Sum)"}
    for test in ours.tests:
        line = expected.loc[names[test.term]]
        assert (test.df, test.sum_of_squares) == (line["df"], pytest.approx(line["sum_sq"]))
        assert (test.f, test.p_value) == (pytest.approx(line["F"]), pytest.approx(line["PR(>F)"]))


def test_factorial_effects_are_differences_of_means_when_balanced() -> None:
    data = factorial_data()
    ours = analyse_factorial(data, ["a", "b"])
    by_level = {(effect.term, effect.levels): effect for effect in ours.effects}
    grand = data["value"].mean()
    assert ours.grand_mean == pytest.approx(grand)
    for level, mean in data.groupby("b")["value"].mean().items():
        assert by_level["b", (level,)].effect == pytest.approx(mean - grand)
    cell = data[(data.a == "high") & (data.b == "z")]["value"].mean()
    additive = by_level["a", ("high",)].effect + by_level["b", ("z",)].effect
    assert by_level["a:b", ("high", "z")].effect == pytest.approx(cell - grand - additive)


def test_factorial_standard_errors_are_statsmodels() -> None:
    from statsmodels.formula.api import ols

    data = factorial_data(2)
    fit = ols("value ~ C(a, Sum) * C(b, Sum) + C(seed, Sum)", data).fit()
    ours = {(item.term, item.levels): item for item in analyse_factorial(data, ["a", "b"]).effects}
    assert ours["a", ("high",)].effect == pytest.approx(fit.params["C(a, Sum)[S.high]"])
    assert ours["a", ("high",)].standard_error == pytest.approx(fit.bse["C(a, Sum)[S.high]"])
    assert ours["b", ("y",)].standard_error == pytest.approx(fit.bse["C(b, Sum)[S.y]"])


def test_factorial_without_residual_says_so() -> None:
    data = factorial_data()
    one_seed = data[data.seed == 0]
    assert all(test.p_value is None for test in analyse_factorial(one_seed, ["a", "b"]).tests)
    assert analyse_factorial(one_seed, ["a", "b"], order=1).tests[0].p_value is not None


def test_an_interaction_with_a_hole_is_left_out_by_name() -> None:
    from statsmodels.formula.api import ols
    from statsmodels.stats.anova import anova_lm

    data = factorial_data()
    data = data[~((data.a == "high") & (data.b == "z"))]
    ours = analyse_factorial(data, ["a", "b"])
    assert ours.left_out == ("a:b",) and ours.n == 20
    expected = anova_lm(ols("value ~ C(a, Sum) + C(b, Sum) + C(seed, Sum)", data).fit(), typ=3)
    assert {item.term: item.p_value for item in ours.tests} == {
        "a": pytest.approx(expected.loc["C(a, Sum)", "PR(>F)"]),
        "b": pytest.approx(expected.loc["C(b, Sum)", "PR(>F)"]),
        "seed": pytest.approx(expected.loc["C(seed, Sum)", "PR(>F)"]),
    }
    assert analyse_factorial(factorial_data(), ["a", "b"]).left_out == ()


def two_levels(count: int, keep: Callable[[tuple[int, ...]], bool]) -> pd.DataFrame:
    """The cells of a factorial of that many factors with two levels, a, b, c, ..., that are kept; two seeds."""
    generator = rng(3)
    cells = [levels for levels in itertools.product((0, 1), repeat=count) if keep(levels)]
    rows = [
        {**dict(zip("abcdef", map(str, levels), strict=False)), "seed": seed, "value": levels[0] + generator.normal(0, 0.1)}
        for levels in cells for seed in (0, 1)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_a_fraction_gives_what_its_resolution_allows() -> None:
    """Main effects of 2^(3-1) and 2^(4-1); of two interactions that are one contrast, neither is named."""
    third = analyse_factorial(two_levels(3, lambda levels: levels[2] == sum(levels[:2]) % 2), list("abc"))
    assert third.left_out == ("a:b", "a:c", "b:c")
    assert [item.term for item in third.tests] == ["a", "b", "c", "seed"]
    fourth = analyse_factorial(two_levels(4, lambda levels: levels[3] == sum(levels[:3]) % 2), list("abcd"))
    assert len(fourth.left_out) == 6 and fourth.tests[0].p_value is not None
    fifth = analyse_factorial(two_levels(5, lambda levels: levels[4] == sum(levels[:4]) % 2), list("abcde"))
    assert fifth.left_out == () and len([item for item in fifth.tests if ":" in item.term]) == 10


def test_runs_that_a_factor_does_not_enter_tell_of_the_others() -> None:
    """`loss` means something for family x alone: the family is compared at the mean of its levels, and crossed with `size`."""
    generator, rows = rng(7), []
    for family, loss in (("x", "off"), ("x", "on"), ("y", None)):
        for size in ("s", "t"):
            for seed in range(3):
                value = 5.0 * (family == "y") + 2.0 * (loss == "on") + 1.0 * (size == "t") + generator.normal(0, 0.05)
                rows.append({"family": family, "loss": loss, "size": size, "seed": seed, "value": value})
    ours = analyse_factorial(pd.DataFrame(rows), ["family", "loss", "size"])
    assert (ours.n, ours.left_out) == (18, ())  # with one family that has a loss, the two have nothing to interact in
    effects = {(item.term, item.levels): item.effect for item in ours.effects}
    assert effects["family", ("y",)] - effects["family", ("x",)] == pytest.approx(4.0, abs=0.1)  # 5 - (0 + 2) / 2
    assert effects["loss", ("on",)] - effects["loss", ("off",)] == pytest.approx(2.0, abs=0.1)
    tests = {item.term: item for item in ours.tests}
    assert set(tests) == {"family", "loss", "size", "family:size", "loss:size", "seed"}
    assert all((tests[name].p_value or 0) < 1e-6 for name in ("family", "loss", "size"))
    assert all((tests[name].p_value or 0) > 1e-3 for name in ("family:size", "loss:size"))


def test_factorial_refuses_what_cannot_be_told_apart_and_single_levels() -> None:
    data = factorial_data()
    with pytest.raises(ValueError, match="cells are missing, so that the effects of a, b cannot be told apart"):
        analyse_factorial(data[(data.a == "high") == (data.b == "z")].query("b != 'y'"), ["a", "b"])
    with pytest.raises(ValueError, match="one level"):
        analyse_factorial(data[data.a == "high"], ["a", "b"])


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


# -- intervals ---------------------------------------------------------------------------------------------------------


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
    generator = rng(11)
    simulated = simulate(generator, 500, seeds, images)
    hits = [not hierarchical_interval(one, generator, resamples=400).excludes(0.0) for one in simulated]
    assert 0.925 <= np.mean(hits) <= 0.99  # 95 % within sampling error (1 %), mildly conservative


def test_percentile_interval_is_too_narrow_with_three_seeds() -> None:
    generator = rng(12)
    simulated = simulate(generator, 400, 3, 40)
    hits = [
        not hierarchical_interval(one, generator, resamples=400, method="percentile").excludes(0) for one in simulated
    ]
    assert np.mean(hits) < 0.9  # why it is not the default


def test_interval_without_images_is_students() -> None:
    values = np.array(DIFFERENCES)[:, None]
    ours = hierarchical_interval(values, rng(), resamples=200_000)
    expected = stats.t.interval(0.95, 7, np.mean(DIFFERENCES), stats.sem(DIFFERENCES))
    assert (ours.lower, ours.upper) == (pytest.approx(expected[0], abs=2e-3), pytest.approx(expected[1], abs=2e-3))


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("ratio", [0.1, 0.3, 1.0])
def test_true_nulls_are_not_rejected_too_often_far_out_in_the_tail(seeds: int, ratio: float) -> None:
    """Where Holm's correction reads: one-sided at 0.025 / 30. `ratio`: noise of images over noise of seeds, in the mean.

    Satterthwaite's degrees of freedom rejected 11 and 29 times as often as they say with 3 and 2 seeds at 0.3.
    """
    generator, level, images, count = rng(13), 0.025 / 30, 16, 20_000
    of_image = ratio * math.sqrt(images)
    differences = (
        generator.normal(0, math.sqrt(seeds), (count, seeds, 1))
        + generator.normal(0, of_image, (count, 1, images))
        + generator.normal(0, 0.3 * of_image, (count, seeds, images))
    )
    margins = differences.mean(2), differences.mean(1)
    of_seeds, of_images = (margin.var(1, ddof=1) / margin.shape[1] for margin in margins)
    total = of_seeds + of_images  # what the bootstrap estimates, and a little less: it adds the residuals once more
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
    interval = hierarchical_interval(simulate(rng(2), 1, 4, 12)[0] + 1, rng())
    upper = interval.p_beyond(interval.upper)
    assert upper == (pytest.approx(0.975), pytest.approx(0.025)) and sum(interval.p_beyond(0.3)) == pytest.approx(1)


@pytest.mark.parametrize("effect", [0.3, 0.8, 1.5, 3.0])
def test_seeds_to_decide_is_statsmodels_rounded_up_where_seeds_are_all_the_noise(effect: float) -> None:
    expected = TTestPower().solve_power(effect_size=effect, alpha=0.025, power=0.8, alternative="larger")
    one = Interval(effect, 0, 0, 0.95, 4, 1, "student", 1 / math.sqrt(4), ((1.0, 3),))
    assert seeds_to_decide(one, effect, beyond=0.025) == math.ceil(float(np.squeeze(expected)))
    assert seeds_to_decide(one, 1e-6, beyond=0.025) is None and seeds_to_decide(one, 0.0, beyond=0.025) is None


def test_more_seeds_do_not_stand_in_for_more_images() -> None:
    """0.02 away, with a standard error of 0.022 that is all but the images': no number of seeds decides."""
    images = Interval(0.06, 0, 0, 0.95, 5, 24, "student", 0.022, ((0.01, 4), (0.99, 23)))
    assert seeds_to_decide(images, 0.06, beyond=0.025 / 20) is None
    assert seeds_to_decide(images, 0.12, beyond=0.025 / 20) == 3
    seeds = Interval(0.06, 0, 0, 0.95, 5, 24, "student", 0.022, ((0.99, 4), (0.01, 23)))
    found = seeds_to_decide(seeds, 0.06, beyond=0.025 / 20)
    assert found is not None and 8 <= found <= 16


def test_interval_follows_its_generator() -> None:
    values = simulate(rng(1), 1, 4, 10)[0]
    first, again, other = (hierarchical_interval(values, rng(seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize("values", [np.ones((1, 1)), np.ones(3), np.array([[1.0, math.nan]])])
def test_interval_refuses_what_it_cannot_do(values: np.ndarray) -> None:
    with pytest.raises(ValueError):
        hierarchical_interval(values, rng())

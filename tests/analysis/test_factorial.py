"""Main effects and interactions of factorial and fractional designs, against statsmodels and closed forms."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from analysis.statistics import (
    analyse_factorial,
)


def factorial_data(missing: int = 0) -> pd.DataFrame:
    generator, rows = np.random.default_rng(5), []
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
    generator = np.random.default_rng(3)
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
    generator, rows = np.random.default_rng(7), []
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

"""`compare`: differences, effects and power, which runs the factors are told by, and rank correlations."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pandas as pd
import pytest

from analysis.__main__ import main
from analysis.frame import load_study
from tests.analysis.synthetic import SyntheticArm, make_study

ROOT = Path(__file__).parents[2]


def test_compare_shows_differences_effects_and_power(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from analysis.overview import overview
    from analysis.statistics import effect_size, holm, minimum_detectable_effect

    study = load_study(out, "synthetic")
    found = overview(study, within=0.5)
    line = next(line for line in found.lines if line.arm == "spade")
    frame = study.frame[(study.frame["metric"] == "psnr") & (study.frame["state"] == "trained")]
    wide = frame.pivot(index="seed", columns="arm", values="value").astype(float)
    differences = (wide["spade"] - wide["ca2sis"]).tolist()
    assert line.comparison is not None
    assert line.comparison.difference == pytest.approx(sum(differences) / 3)
    assert line.effect == effect_size(differences)
    spread, family = pd.Series(differences).std(), 3  # arms beside reference and painter
    assert line.detectable == pytest.approx(minimum_detectable_effect(spread, 3, alpha=0.05 / family))
    tested = [item for item in found.lines if item.comparison is not None and item.comparison.interval is not None]
    alone = [item.comparison.interval.p_within(0.5)[0] for item in tested]  # type: ignore[union-attr]
    assert [item.p_within for item in tested] == pytest.approx(holm(alone)) and len(tested) == family
    assert found.factorial is None  # one factor
    assert next(line for line in found.lines if line.arm == "painter").comparison is None
    assert main(["compare", "synthetic", "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert f"{line.comparison.difference:+.4g}" in text
    assert "rank correlation, runs" in text
    assert main(["compare", "synthetic", "--metric", "psnrr", "--out", str(out)]) == 2
    for width in ("-1", "nan", "inf"):
        assert main(["compare", "synthetic", "--equivalent-within", width, "--out", str(out)]) == 2
    capsys.readouterr()
    assert main(["compare", "synthetic", "--equivalent-within", "0.5", "--out", str(out)]) == 0
    assert f"not shown (p = {line.p_within:.3g})" in capsys.readouterr().out


def test_compare_analyses_a_factorial(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arms = [
        SyntheticArm(f"{a}-{b}", levels={"a": a, "b": b}, reference=(a, b) == ("off", "off"),
                     effects={"psnr": (a == "on") * 1.0 + (a == b == "on") * 2.0})
        for a in ("off", "on") for b in ("off", "on")
    ]  # fmt: skip
    make_study(tmp_path, arms=arms, design="factorial", seeds=(0, 1, 2, 3))
    from analysis.overview import overview

    found = overview(load_study(tmp_path, "synthetic")).factorial
    assert found is not None
    tests = {item.term: item for item in found.tests}
    assert (tests["a"].p_value or 1) < 1e-4
    assert (tests["a:b"].p_value or 1) < 1e-4
    effects = {(item.term, item.levels): item.effect for item in found.effects}
    assert effects["a", ("on",)] == pytest.approx(1.0, abs=0.2)  # (1 + 3) / 2 against 0, halved
    assert effects["a:b", ("on", "on")] == pytest.approx(0.5, abs=0.15)
    assert main(["compare", "synthetic", "--out", str(tmp_path)]) == 0
    assert "factors (seeds as blocks)" in capsys.readouterr().out


def crossed(*levels: dict[str, str], **more: object) -> list[SyntheticArm]:
    """Arms of these levels, the first the reference; every level called `on` adds 1 dB."""
    return [
        SyntheticArm(",".join(item.values()), levels=item, reference=index == 0,
                     effects={"psnr": float(sum(level == "on" for level in item.values()))}, **more)  # type: ignore[arg-type]
        for index, item in enumerate(levels)
    ]  # fmt: skip


def factors_said(out: Path, capsys: pytest.CaptureFixture[str], arms: list[SyntheticArm], seeds: int = 3) -> list[str]:
    """What `compare` prints of the factors of a study, line by line."""
    make_study(out, arms=arms, design="factorial", seeds=range(seeds))
    assert main(["compare", "synthetic", "--out", str(out)]) == 0
    text = capsys.readouterr().out
    return text[text.index("\nfactors") + 1 : text.index("\nrank correlation")].splitlines()


def test_compare_keeps_the_arms_that_a_conditional_factor_does_not_enter(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arms = crossed(
        {"family": "ca", "loss": "off"}, {"family": "ca", "loss": "on"}, {"family": "sean"}, {"family": "spade"}
    )
    lines = factors_said(tmp_path, capsys, arms)
    assert lines[:3] == [
        "factors (seeds as blocks)",
        "n = 12 of the design's 12 runs.",
        "loss does not enter sean, spade: their runs tell of the other factors alone.",
    ]
    assert lines[3].split() == ["term", "df", "F", "p", "partial", "eta²"]
    from analysis.overview import overview

    found = overview(load_study(tmp_path, "synthetic")).factorial
    assert found is not None and found.n == 12
    assert [item.term for item in found.tests] == ["family", "loss", "seed"]
    effects = {item.levels: item.effect for item in found.effects}
    assert effects["on",] - effects["off",] == pytest.approx(1.0, abs=0.3)
    assert effects["ca",] - effects["spade",] == pytest.approx(0.5, abs=0.3)  # ca at the mean of its two arms


def test_compare_says_which_runs_the_factors_are_told_by(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    levels = [{"model": model, "size": size} for model in ("ca", "spade", "painter") for size in ("small", "on")]
    arms = [dataclasses.replace(arm, kind="rule") if "painter" in arm.name else arm for arm in crossed(*levels)]
    arms[3] = dataclasses.replace(arms[3], states={1: "failed"})
    assert factors_said(tmp_path, capsys, arms)[1] == (
        "n = 11 of the design's 18 runs; 6 are of rules, which learn nothing; 1 have no value of the metric (spade,on: 1)."
    )


def test_compare_falls_back_to_main_effects_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Half of a 2^3: c is the interaction of a and b, which only the reader can rule out."""
    fraction = [
        {name: ("off", "on")[level] for name, level in zip("abc", (a, b, (a + b) % 2), strict=True)}
        for a in (0, 1) for b in (0, 1)
    ]  # fmt: skip
    lines = factors_said(tmp_path, capsys, crossed(*fraction))
    assert lines[1:3] == [
        "n = 12 of the design's 12 runs.",
        "Main effects alone: these runs cannot tell a:b, a:c, b:c, and the effects shown hold only where there are none.",
    ]
    assert any(line.startswith("c ") for line in lines)


def test_compare_says_why_factors_cannot_be_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    same = crossed({"a": "off", "b": "off"}, {"a": "on", "b": "on"})
    assert factors_said(tmp_path / "same", capsys, same) == [
        "factors",
        "n = 6 of the design's 6 runs.",
        "No analysis of variance: cells are missing, so that the effects of a, b cannot be told apart.",
    ]
    levels = [{"a": a, "b": b} for a in ("off", "on") for b in ("off", "on")]
    assert factors_said(tmp_path / "seed", capsys, crossed(*levels), seeds=1)[2] == (
        "No test: these runs have as many effects as values; more seeds would give a spread to judge by."
    )

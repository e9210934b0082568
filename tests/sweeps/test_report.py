"""What is read off a sweep: the best as overrides, importances, plots."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from optuna.distributions import FloatDistribution
from optuna.trial import create_trial

from pipeline.config import compose, resolve
from pipeline.errors import UserError
from sweeps import report
from sweeps.storage import open_storage, open_study
from sweeps.sweep import Sweep, check, load_sweep
from tests.sweeps.fakes import sweep

RANGE = {"kind": "float", "low": 0.0, "high": 1.0}
TWO_KEYS = {"good": RANGE, "bad": RANGE}


def bump(position: float, at: float) -> float:
    return 10.0 * math.exp(-(((position - at) / 0.1) ** 2))


def told(made: Sweep, folder: Path, sign: float = 1.0) -> optuna.Study:
    """120 trials: `good` alone lifts the value (times `sign`) to its best, `bad` alone drops it to its worst."""
    study = open_study(open_storage(f"journal:{folder / 'journal.log'}"), made)
    draw = random.Random(0)
    trials = []
    for _ in range(120):
        good, bad = draw.random(), draw.random()
        value = sign * (bump(good, 0.8) - bump(bad, 0.2))
        trials.append(
            create_trial(
                values=[value] * len(made.objectives),
                params={"good": good, "bad": bad},
                distributions={"good": FloatDistribution(0.0, 1.0), "bad": FloatDistribution(0.0, 1.0)},
            )
        )
    study.add_trials(trials)
    return study


@pytest.mark.parametrize(("objective", "sign"), [("psnr", 1.0), ("rmse", -1.0)])
def test_ped_anova_asks_what_makes_a_trial_good(tmp_path: Path, objective: str, sign: float) -> None:
    made = sweep(space=TWO_KEYS, objectives=[objective])
    shares = report.importances(told(made, tmp_path, sign), made, "ped-anova")[objective]
    assert next(iter(shares)) == "good" and shares["good"] > 2 * shares["bad"]
    assert sum(shares.values()) == pytest.approx(1.0)


def test_each_objective_has_its_own_direction(tmp_path: Path) -> None:
    made = sweep(space=TWO_KEYS, objectives={"psnr": "max", "rmse": "min"})
    found = report.importances(told(made, tmp_path), made, "ped-anova")
    assert [max(shares, key=lambda key: shares[key]) for shares in found.values()] == ["good", "bad"]


def test_fanova_asks_what_makes_the_value_vary(tmp_path: Path) -> None:
    made = sweep(space=TWO_KEYS)
    shares = report.importances(told(made, tmp_path), made, "fanova")["psnr"]
    assert set(shares) == {"good", "bad"} and sum(shares.values()) == pytest.approx(1.0)
    assert all(0.3 < share < 0.7 for share in shares.values()), "both move it alike"


def test_fanova_is_refused_where_it_would_leave_keys_out(tmp_path: Path) -> None:
    """Optuna's fanova scores keys that every trial has, as if the others were not there: one key of three got 100 %."""
    made = load_sweep("attention_loss")
    study = open_study(open_storage(f"journal:{tmp_path / 'journal.log'}"), made)
    words = r"fanova leaves out .* \(loss.attention.weight, loss.attention.levels\), so its shares would mislead; use ped-anova"
    with pytest.raises(UserError, match=words):
        report.importances(study, made, "fanova")
    draw = random.Random(0)
    for number in range(40):
        kind = ("bce", "off")[number % 2]
        chosen: dict[str, Any] = {"loss.attention.kind": kind}
        if kind != "off":
            chosen |= {
                "loss.attention.weight": draw.uniform(0.01, 30.0),
                "loss.attention.levels": draw.choice(["all", "[0]"]),
            }
        value = chosen.get("loss.attention.weight", 0.0)
        known = {key: made.space[key].distribution() for key in chosen}
        study.add_trial(create_trial(values=[value], params=chosen, distributions=known))
    assert set(report.importances(study, made, "ped-anova")["psnr"]) == set(made.space), "the other method knows all"


def test_the_plot_shows_the_numbers_of_importances(tmp_path: Path) -> None:
    made = sweep(space=TWO_KEYS, objectives={"psnr": "max", "rmse": "min"})
    study = told(made, tmp_path)
    panels = report.importance_figure(study, made).axes
    for axis, (objective, shares) in zip(panels, report.importances(study, made, "ped-anova").items(), strict=True):
        assert axis.get_title() == objective
        assert [label.get_text() for label in axis.get_yticklabels()] == list(shares)
        assert [bar.get_width() for bar in axis.patches] == pytest.approx(list(shares.values()))


def test_too_few_trials_leave_the_importances_undrawn(tmp_path: Path) -> None:
    made = sweep()
    study = open_study(open_storage(f"journal:{tmp_path / 'journal.log'}"), made)
    with pytest.raises(UserError, match="0 finished trials are too few"):
        report.importances(study, made, "ped-anova")
    _, left = report.write_plots(study, made, tmp_path / "plots")
    assert left[0] == "importances: sweep w: 0 finished trials are too few for importances (at least 4)"


def test_best_is_accepted_everywhere(work: Any, tmp_path: Path) -> None:
    study, _ = work(sweep(), trials=4)
    path = tmp_path / "best.yaml"
    trial = report.write_best(study, sweep(), path, None)
    assert trial.value == max(item.value for item in study.trials if item.value is not None)
    content = yaml.safe_load(path.read_text())
    assert content["trial"] == trial.number and content["overrides"][0] == "preset=tiny"
    assert resolve([f"+best={path}", "protocol=quick"]).run_id == trial.user_attrs["run_id"]
    assert resolve([f"+best={path}", "seed=3"]).config.seed == 3
    from ablations.plan import make_plan
    from ablations.study import load_study

    plan = make_plan(load_study("demo"), extra=[f"+best={path}"])
    assert all(not cell.overrides[0].startswith("+best") for cell in plan.manifest.cells), (
        "plans hold what the file said"
    )
    with pytest.raises(UserError, match="no best.yaml of nothing_of_this_name below out"):
        resolve(["+best=nothing_of_this_name"])


def test_a_trial_that_breaks_the_constraints_is_not_best_by_name_either(work: Any, tmp_path: Path) -> None:
    made = sweep(constraints={"params": 1.0})
    study, _ = work(made, trials=2)
    with pytest.raises(UserError, match="no finished trial keeps the constraints yet"):
        report.write_best(study, made, tmp_path / "best.yaml", None)
    with pytest.raises(UserError, match="trial 0 breaks the constraints, so it is never best"):
        report.write_best(study, made, tmp_path / "best.yaml", 0)
    assert not (tmp_path / "best.yaml").exists()


def test_the_best_says_nothing_about_how_to_measure(work: Any, tmp_path: Path) -> None:
    """A study that takes it over keeps its own metric groups, and so does another sweep, whose base it may stand in."""
    made = sweep(
        base=["preset=tiny", "protocol.groups=[reconstruction,cost]", "++protocol.images=7", "train.batch_size=2"]
    )
    study, _ = work(made, trials=2)
    path = tmp_path / "best.yaml"
    trial = report.write_best(study, made, path, None)
    chosen = trial.user_attrs["overrides"]
    assert yaml.safe_load(path.read_text())["overrides"] == ["preset=tiny", "train.batch_size=2", *chosen]
    config = compose([f"+best={path}", "protocol=standard"])
    assert config.protocol == compose(["preset=tiny", "protocol=standard"]).protocol and config.train.batch_size == 2
    other = load_sweep("attention_loss", (f"+best={path}",))
    assert other.base[-3:] == ("preset=tiny", "train.batch_size=2", *chosen)
    check(other)

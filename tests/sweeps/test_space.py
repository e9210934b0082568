"""Search spaces: what a parameter may be, which enter a trial, and the overrides that a choice amounts to."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from optuna.trial import FixedTrial
from pydantic import ValidationError

from sweeps.space import Parameter, Space, check_space, extremes, overrides, suggest


def parameter(**values: Any) -> Parameter:
    return Parameter.model_validate(values)


KIND = parameter(kind="categorical", choices=["bce", "ce", "off"])
CHILD = parameter(kind="float", low=0.1, high=10.0, log=True, when={"kind": ["bce", "ce"]})
GRANDCHILD = parameter(kind="int", low=1, high=3, when={"levels": "few"})


def test_a_child_enters_only_where_its_parent_lets_it() -> None:
    space: Space = {"kind": KIND, "weight": CHILD}
    assert suggest(FixedTrial({"kind": "ce", "weight": 2.0}), space) == {"kind": "ce", "weight": 2.0}
    trial = FixedTrial({"kind": "off", "weight": 2.0})
    assert suggest(trial, space) == {"kind": "off"}
    assert list(trial.distributions) == ["kind"], "an absent parameter is not even asked for"


def test_a_grandchild_is_absent_with_its_parent() -> None:
    levels = parameter(kind="categorical", choices=["few", "all"], when={"kind": "ce"})
    space: Space = {"kind": KIND, "levels": levels, "number": GRANDCHILD}
    check_space(space)
    chosen = {"levels": "few", "number": 2}
    assert suggest(FixedTrial({"kind": "ce", **chosen}), space) == {"kind": "ce", "levels": "few", "number": 2}
    assert suggest(FixedTrial({"kind": "bce", **chosen}), space) == {"kind": "bce"}


def test_bounds_steps_and_logs_are_kept() -> None:
    space: Space = {
        "log": parameter(kind="float", low=0.01, high=30.0, log=True),
        "grid": parameter(kind="float", low=0.0, high=1.0, step=0.25),
        "int": parameter(kind="int", low=4, high=16, step=4),
        "log_int": parameter(kind="int", low=1, high=64, log=True),
    }
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    found = [suggest(study.ask(), space) for _ in range(200)]
    logs = [float(values["log"]) for values in found]
    assert all(0.01 <= value <= 30.0 for value in logs)
    assert 80 <= sum(value < 0.5477 for value in logs) <= 120, "half of them below the geometric middle"
    assert {values["grid"] for values in found} == {0.0, 0.25, 0.5, 0.75, 1.0}
    assert {values["int"] for values in found} == {4, 8, 12, 16}
    assert all(isinstance(values["int"], int) and 1 <= int(values["log_int"]) <= 64 for values in found)


@pytest.mark.parametrize(
    ("values", "ends"),
    [
        ({"kind": "categorical", "choices": ["a", [4, 2], True, None]}, ("a", "[4,2]", "true", "null")),
        ({"kind": "float", "low": 0.5, "high": 2}, (0.5, 2.0)),
        ({"kind": "int", "low": 2, "high": 8, "step": 2}, (2, 8)),
    ],
)
def test_extremes(values: dict[str, Any], ends: tuple[Any, ...]) -> None:
    found = extremes(parameter(**values))
    assert found == ends and [type(item) for item in found] == [type(item) for item in ends]


def test_overrides_keep_all_digits() -> None:
    assert overrides({"a": 0.1 + 0.2, "b": 3, "c": "[8,4]"}) == ("a=0.30000000000000004", "b=3", "c=[8,4]")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"kind": "categorical", "choices": ["a"]}, "at least two different choices"),
        ({"kind": "categorical", "choices": ["a", "a"]}, "at least two different choices"),
        ({"kind": "categorical", "choices": ["1", 1]}, "at least two different choices"),
        ({"kind": "categorical", "choices": ["a", "b"], "low": 1.0}, "choices alone"),
        ({"kind": "float", "low": 1.0}, "takes low and high"),
        ({"kind": "float", "low": 1.0, "high": 1.0}, "not below"),
        ({"kind": "float", "low": 0.0, "high": 1.0, "log": True}, "above 0"),
        ({"kind": "float", "low": 0.1, "high": 1.0, "log": True, "step": 0.1}, "no step"),
        ({"kind": "int", "low": 1, "high": 2.5}, "whole numbers"),
        ({"kind": "int", "low": 1, "high": 3, "step": -1}, "greater than 0"),
        ({"kind": "float", "low": 0.0, "high": 1.0, "step": 0.0}, "greater than 0"),
        ({"kind": "int", "low": 1, "high": 3, "choices": ["a", "b"]}, "no choices"),
    ],
)
def test_a_parameter_that_makes_no_sense_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        parameter(**values)


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ({"weight": CHILD, "kind": KIND}, "condition on 'kind', which is no categorical parameter before it"),
        ({"kind": parameter(kind="int", low=1, high=2), "weight": CHILD}, "no categorical parameter"),
        (
            {"kind": parameter(kind="categorical", choices=["bce", "kl"]), "weight": CHILD},
            "kind=ce, which is not among",
        ),
    ],
)
def test_conditions_look_back_at_choices(space: Space, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check_space(space)

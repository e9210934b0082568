"""Designs: which arms a study file means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablations.designs import arms_of
from ablations.study import Study, load_study, parse_study, shipped
from pipeline.errors import UserError


def factor(count: int, **more: Any) -> dict[str, Any]:
    """Levels l0 (the reference), l1, ..."""
    return {
        "reference": "l0",
        "levels": {f"l{index}": [f"train.batch_size={index + 1}"] for index in range(count)},
        **more,
    }


def study(design: str, **more: Any) -> Study:
    return parse_study({"name": "s", "question": "?", "design": design, **more}, "test")


def names(made: Study) -> list[str]:
    return [arm.name for arm in arms_of(made)]


def test_one_at_a_time_changes_one_factor() -> None:
    made = study("one_at_a_time", factors={"a": factor(3), "b": factor(2)})
    assert names(made) == ["reference", "a=l1", "a=l2", "b=l1"]
    assert [arm.reference for arm in arms_of(made)] == [True, False, False, False]
    assert arms_of(made)[2].levels == {"a": "l2", "b": "l0"}


@settings(max_examples=30)
@given(st.lists(st.integers(2, 4), min_size=1, max_size=4))
def test_counts_follow_the_design(sizes: list[int]) -> None:
    factors = {f"f{index}": factor(size) for index, size in enumerate(sizes)}
    product = 1
    for size in sizes:
        product *= size
    assert len(names(study("factorial", factors=factors))) == product
    assert len(names(study("one_at_a_time", factors=factors))) == 1 + sum(size - 1 for size in sizes)
    two = {name: factor(2) for name in factors}
    assert len(names(study("cumulative", factors=two))) == 1 + len(sizes)
    for design in ("factorial", "one_at_a_time"):
        made = arms_of(study(design, factors=factors))
        assert len({arm.name for arm in made}) == len(made)
        assert [arm.reference for arm in made] == [True] + [False] * (len(made) - 1)


def test_cumulative_changes_one_more_each_step() -> None:
    made = arms_of(study("cumulative", factors={name: factor(2) for name in "abc"}))
    assert [arm.name for arm in made] == ["reference", "+a=l1", "+b=l1", "+c=l1"]
    assert [sum(level == "l1" for level in arm.levels.values()) for arm in made] == [0, 1, 2, 3]


def test_leave_one_out_takes_one_component_away() -> None:
    made = arms_of(study("leave_one_out", factors={name: factor(2) for name in "abc"}))
    assert [sum(level == "l1" for level in arm.levels.values()) for arm in made] == [0, 1, 1, 1]


def test_half_fraction_of_a_two_level_factorial_is_balanced() -> None:
    """D = A + B + C modulo 2: 8 of 16 cells, every pair of levels of two factors equally often (resolution IV)."""
    factors = {name: factor(2) for name in "abcd"}
    made = arms_of(study("factorial", factors=factors, fraction={"d": ["a", "b", "c"]}))
    assert len(made) == 8
    for first in "abcd":
        for second in "abcd":
            if first < second:
                counts = [sum((arm.levels[first], arm.levels[second]) == pair for arm in made)
                          for pair in (("l0", "l0"), ("l0", "l1"), ("l1", "l0"), ("l1", "l1"))]  # fmt: skip
                assert counts == [2, 2, 2, 2]


def test_exclusions_remove_what_matches_all_of_one() -> None:
    made = study("factorial", factors={"a": factor(2), "b": factor(3)}, exclusions=[{"a": "l1", "b": ["l1", "l2"]}])
    assert names(made) == ["reference", "a=l0,b=l1", "a=l0,b=l2", "a=l1,b=l0"]


def test_conditional_factor_enters_only_where_it_means_something() -> None:
    """The attention-loss weight means nothing for a family without attention: one arm there, not three."""
    factors = {"family": factor(2), "weight": factor(3, when={"family": "l0"})}
    made = arms_of(study("factorial", factors=factors))
    assert [arm.levels for arm in made] == [
        {"family": "l0", "weight": "l0"},
        {"family": "l0", "weight": "l1"},
        {"family": "l0", "weight": "l2"},
        {"family": "l1"},
    ]
    assert made[-1].overrides == ("train.batch_size=2",)


def test_conditional_level_exists_only_with_its_condition() -> None:
    second = factor(2)
    second["levels"]["l1"] = {"overrides": ["seed=3"], "when": {"a": "l1"}}
    assert names(study("factorial", factors={"a": factor(2), "b": second})) == ["reference", "a=l1,b=l0", "a=l1,b=l1"]


def test_conditions_hold_of_what_enters_not_of_what_was_crossed() -> None:
    """Where attention does not enter, neither does the number of its heads: one arm of the family without it."""
    attention = {"reference": "off", "levels": {"off": [], "on": ["a=1"]}, "when": {"family": "l0"}}
    factors = {"family": factor(2), "heads": factor(2, when={"attention": "on"}), "attention": attention}
    for order in (["family", "attention", "heads"], ["heads", "attention", "family"]):
        made = arms_of(study("factorial", factors={name: factors[name] for name in order}))
        found = [",".join(f"{name}={arm.levels[name]}" for name in factors if name in arm.levels) for arm in made]
        assert sorted(found) == [
            "family=l0,attention=off", "family=l0,heads=l0,attention=on", "family=l0,heads=l1,attention=on", "family=l1",
        ]  # fmt: skip


CONDITIONAL = {"reference": "l0", "levels": {"l0": [], "l1": {"overrides": ["seed=3"], "when": {"a": "l1"}}}}


@pytest.mark.parametrize(
    ("made", "lost"),
    [
        # design one_at_a_time and leave_one_out never leave the reference's level of `a`, where `b` does not enter
        (study("one_at_a_time", factors={"a": factor(2), "b": factor(3, when={"a": "l1"})}), "b=l1, b=l2"),
        (study("leave_one_out", factors={"a": factor(2), "b": factor(2, when={"a": "l1"})}), "b=l1"),
        (study("one_at_a_time", factors={"a": factor(2), "b": CONDITIONAL}), "b=l1"),
        # the last step of `a` has no `b` yet
        (study("cumulative", factors={"a": factor(2), "b": factor(2, when={"a": "l0"})}), "b=l1"),
        # a fraction of three levels by a factor of two never takes the third
        (study("factorial", factors={"a": factor(2), "b": factor(3)}, fraction={"b": ["a"]}), "b=l2"),
    ],
)
def test_a_level_that_no_arm_has_is_refused(made: Study, lost: str) -> None:
    with pytest.raises(UserError, match=f"study s: no arm has {lost}: ") as caught:
        arms_of(made)
    assert "\n" not in str(caught.value)


def test_a_level_that_the_file_excludes_is_no_mistake() -> None:
    """Exclusions name what they take out; conditions and fractions do it by consequence."""
    factors = {"a": factor(3), "b": factor(2, when={"a": "l2"})}
    assert names(study("factorial", factors={"a": factor(3)}, exclusions=[{"a": "l1"}])) == ["reference", "a=l2"]
    assert names(study("factorial", factors=factors, exclusions=[{"a": "l2", "b": "l1"}])) == [
        "reference", "a=l1", "a=l2,b=l0",
    ]  # fmt: skip


def test_names_are_text_as_written(tmp_path: Path) -> None:
    levels = (
        "{0: [loss.attention.weight=0], 0.10: [loss.attention.weight=0.1], 1e-3: [seed=2], off: [seed=3], true: []}"
    )
    file = tmp_path / "w.yaml"
    file.write_text(f"""
name: 2024
question: Are names text?
design: factorial
factors:
  w: {{reference: true, levels: {levels}}}
  v: {{reference: no, levels: {{no: [], on: {{overrides: [seed=4], when: {{w: [0.10, off]}}}}}}}}
exclusions: [{{w: 1e-3}}]
""")
    made = load_study(str(file))
    assert made.name == "2024"
    assert names(made) == ["reference", "w=0,v=no", "w=0.10,v=no", "w=0.10,v=on", "w=off,v=no", "w=off,v=on"]


def test_list_names_its_arms_and_puts_the_reference_first() -> None:
    made = study("list", arms={"x": ["seed=1"], "y": {"overrides": [], "label": "the why"}}, reference="y")
    assert [(arm.name, arm.label, arm.reference) for arm in arms_of(made)] == [
        ("y", "the why", True),
        ("x", "x", False),
    ]


def test_arms_beside_a_design_stand_below_it_and_have_no_levels() -> None:
    made = study("factorial", factors={"a": factor(2)}, arms={"spade": ["model=spade"]})
    *design, beside = arms_of(made)
    assert [arm.levels for arm in design] == [{"a": "l0"}, {"a": "l1"}]
    assert (beside.name, beside.levels, beside.overrides, beside.reference) == ("spade", {}, ("model=spade",), False)
    with pytest.raises(UserError, match="an arm beside the design is named 'a=l1'"):
        arms_of(study("factorial", factors={"a": factor(2)}, arms={"a=l1": ["model=spade"]}))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"design": "one_at_a_time", "factors": {"a": {"reference": "zz", "levels": {"l0": [], "l1": []}}}},
            "not a level",
        ),
        ({"design": "one_at_a_time", "factors": {"a": factor(1)}}, "at least two levels"),
        ({"design": "one_at_a_time"}, "takes factors"),
        ({"design": "leave_one_out", "factors": {"a": factor(3)}}, "exactly two levels"),
        ({"design": "list", "arms": {"x": []}, "reference": "z"}, "not an arm"),
        ({"design": "list", "arms": {"x": []}, "reference": "x", "factors": {"a": factor(2)}}, "no factors"),
        ({"design": "sideways", "factors": {"a": factor(2)}}, "design"),
        ({"design": "factorial", "factors": {"a": factor(2)}, "seeds": [0, 1, 0]}, "duplicates"),
        ({"design": "factorial", "factors": {"a": factor(2)}, "seeds": [-1]}, "seeds"),
        ({"design": "factorial", "factors": {"a": factor(2)}, "seeds": []}, "seeds"),
        ({"design": "factorial", "factors": {"a": factor(2)}, "sedes": [0]}, "did you mean seeds"),
        ({"design": "factorial", "factors": {"abc": factor(2)}, "exclusions": [{"abd": "l1"}]}, "did you mean abc"),
        ({"design": "factorial", "factors": {"a": factor(2)}, "exclusions": [{"a": "l7"}]}, "no level 'l7'"),
        (
            {"design": "one_at_a_time", "factors": {"a": factor(2)}, "fraction": {"a": ["a"]}},
            "belongs to design factorial",
        ),
        ({"design": "factorial", "factors": {"a": factor(2)}, "budget": {"rule": "declared"}}, "needs a reason"),
        ({"design": "factorial", "factors": {"a": factor(2)}, "metrics": {"primary": {}}}, "exactly one metric"),
        ({"design": "factorial", "factors": {"a": factor(2)}, "name": "../x"}, "names a folder"),
        (
            {"design": "factorial", "factors": {"a": factor(2)}, "metrics": {"primary": {"psnr": "up"}}},
            "metrics.primary: psnr: up contradicts",
        ),
    ],
)
def test_wrong_files_are_refused_with_one_line(content: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        parse_study({"name": "s", "question": "?", **content}, "file.yaml")
    assert "\n" not in str(caught.value) and str(caught.value).startswith("file.yaml: ")


def test_reference_must_survive_exclusions() -> None:
    made = study("factorial", factors={"a": factor(2)}, exclusions=[{"a": "l0"}])
    with pytest.raises(UserError, match="reference arm a=l0 is excluded"):
        arms_of(made)
    made = study("factorial", factors={"a": factor(2)}, exclusions=[{"a": "l1"}])
    with pytest.raises(UserError, match="leave only the reference arm"):
        arms_of(made)


def test_unknown_study_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean demo"):
        load_study("dmeo")


@pytest.mark.parametrize("name", shipped())
def test_shipped_studies_say_what_they_ask(name: str) -> None:
    made = load_study(name)
    assert made.name == name and made.question.strip().endswith("?")
    assert sum(arm.reference for arm in arms_of(made)) == 1
    labels = [arm.label for arm in arms_of(made)]
    assert len(set(labels)) == len(labels), "tables need different labels"

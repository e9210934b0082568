"""What is refused before the first trial."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import UserError
from sweeps.sweep import check, load_sweep, shipped
from tests.pipeline.data.samples import write_folder
from tests.sweeps.fakes import WEIGHT, sweep

COST_GROUPS = "protocol.groups=[reconstruction,cost]"


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_sweep_passes(name: str) -> None:
    check(load_sweep(name))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"protocol": "standard"}, "protocol standard looks at split test; tuning sees the validation split alone"),
        ({"base": ["preset=tiny", "protocol.split=test"]}, "looks at split test"),
        ({"base": ["preset=tiny", "seed=3"]}, "base: seed is the sweep's own field, not an override; write seed: "),
        ({"base": ["preset=tiny", "protocol=standard"]}, "base: protocol is the sweep's own field"),
        ({"protocol": "quik"}, "unknown protocol 'quik'.*quick"),
        ({"base": ["preset=tiny", "train.batch_sise=4"]}, "unknown key train.batch_sise.*train.batch_size"),
        ({"space": {"loss.attention.wait": WEIGHT["loss.attention.weight"]}}, "unknown key loss.attention.wait"),
        (
            {"space": {"seed": {"kind": "int", "low": 0, "high": 9}}},
            "space: seed is not for searching: .*the luckiest seed",
        ),
        (
            {"space": {**WEIGHT, "+protocol.images": {"kind": "int", "low": 8, "high": 64}}},
            r"space: \+protocol.images is not for searching: it changes how trials are measured",
        ),
        (
            {"space": {"protocol": {"kind": "categorical", "choices": ["quick", "standard"]}}},
            "space: protocol is not for searching",
        ),
        ({"objectives": {"pnsr": "max"}}, "unknown metric 'pnsr'.*psnr"),
        ({"constraints": {"parms": 1.0}}, "unknown metric 'parms'.*params"),
        ({"objectives": {"rmse": "min"}, "pruner": {"kind": "median"}}, "rmse is not among what validations report"),
    ],
)
def test_what_would_fail_in_every_trial_is_refused(more: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        check(sweep(**more))
    assert "\n" not in str(caught.value)


def test_validation_photos_that_are_the_test_photos_are_refused(tmp_path: Path) -> None:
    """ADE20K, COCO-Stuff, Cityscapes and the paper's split of CelebAMask-HQ have one part beside the training part."""
    root = write_folder(tmp_path / "photos", 10)
    for kind in ("images", "labels"):
        for part, numbers in (("train", range(6)), ("val", range(6, 10))):
            (root / kind / part).mkdir()
            for number in numbers:
                (root / kind / f"face{number}.png").rename(root / kind / part / f"face{number}.png")
    base = ["preset=tiny", "data=folder", f"data.root={root}"]
    with pytest.raises(UserError, match="validation and test photos of .* are the same ones.*data.split=holdout"):
        check(sweep(base=base))
    check(sweep(base=[*base, "data.split=holdout"]))


@pytest.mark.parametrize(
    ("key", "parameter", "bad"),
    [
        ("loss.attention.kind", {"kind": "categorical", "choices": ["bce", "ce", "nonsense"]}, "nonsense"),
        ("train.batch_size", {"kind": "int", "low": 0, "high": 4}, "0"),
        ("train.ema_decay", {"kind": "float", "low": 0.5, "high": 1.5}, "1.5"),
    ],
)
def test_every_choice_and_both_ends_are_tried(key: str, parameter: dict[str, Any], bad: str) -> None:
    with pytest.raises(UserError, match=f"sweep w, {key}={bad}: "):
        check(sweep(space={key: parameter}))


def test_a_conditional_value_is_tried_under_its_parents() -> None:
    space = {
        "loss.attention.kind": {"kind": "categorical", "choices": ["bce", "ce"]},
        "loss.attention.levels": {
            "kind": "categorical",
            "choices": ["all", [0]],
            "when": {"loss.attention.kind": "ce"},
        },
        "train.batch_size": {"kind": "int", "low": 0, "high": 2, "when": {"loss.attention.levels": [[0]]}},
    }
    chain = r"loss.attention.kind=ce loss.attention.levels=\[0\] train.batch_size=0: "
    with pytest.raises(UserError, match=chain):
        check(sweep(space=space))


@pytest.mark.parametrize(
    "more",
    [
        {"objectives": {"psnr": "max", "flops_per_image": "min"}},
        {"constraints": {"params": 4e6}},
        {"constraints": {"peak_mem_gib": 2.0}},
    ],
)
def test_costs_that_the_protocol_does_not_measure(more: dict[str, Any]) -> None:
    name = next(item for item in (*more.get("constraints", {}), "flops_per_image"))
    wanted = (
        f"no trial would have a value of {name}: protocol quick does not measure the group cost; "
        r"add protocol.groups=\[reconstruction,attention,cost\] to base"
    )
    with pytest.raises(UserError, match=wanted):
        check(sweep(**more))
    check(sweep(**more, base=["preset=tiny", COST_GROUPS]))

"""What plans say of an evaluation before it runs is what the evaluation then gives."""

from __future__ import annotations

from typing import get_args

import pytest
import torch

from pipeline.config import compose, load_protocol
from pipeline.editing.tasks import TASKS
from pipeline.evaluation.evaluator import evaluate
from pipeline.records.metric_specs import SPECS
from pipeline.schema.evaluation import EditTask, MetricGroup, NoiseKind
from pipeline.schema.measures import BY_TRAINING, MEASURED, OF_NO_SPLIT, left_out, measured_under, why_not
from tests.pipeline.metrics.doubles import faces, painter, protocol

GROUPS: tuple[MetricGroup, ...] = ("reconstruction", "attention", "cost", "editing", "robustness", "diversity")


def candidates() -> list[str]:
    """Every name a row could have, with the suffixes of tasks, kinds and levels."""
    names = [name for group in GROUPS for name in MEASURED[group] if not name.startswith(("edit_", "robust_"))]
    names += [f"{name}_{task}" for name in MEASURED["editing"] for task in get_args(EditTask)]
    for name in ("robust_psnr", "robust_ssim"):
        names += [f"{name}_area", *(f"{name}_area_{kind}" for kind in get_args(NoiseKind))]
        names += [f"{name}_{kind}_{level}" for kind in get_args(NoiseKind) for level in ("0", "0.5", "1", "0.25")]
    return names


def test_an_evaluation_gives_what_was_foretold() -> None:
    tasks: tuple[EditTask, ...] = (
        "reconstruct",
        "style_transfer",
        "shape_transfer",
        "style_interpolation",
        "absent_style",
    )
    asked = protocol(
        *GROUPS, editing__tasks=tasks, editing__pairs=4, robustness__images=4, robustness__kinds=("jitter", "dropped")
    )
    rows = evaluate(painter(), faces(8), asked, device=torch.device("cpu")).rows
    measured = {row.name for row in rows if row.status == "ok"}
    config = compose(["model=painter"]).model_copy(update={"protocol": asked})
    foretold = {name for name in candidates() if not why_not(name, config, "test")}
    needs_weights = {name for name in foretold if "lpips" in name}
    assert foretold - needs_weights == measured & set(candidates()), "no row too many, none too few"
    assert "edit_smoothness_style_interpolation" in foretold and "attention_miou" not in foretold


def test_edit_metrics_say_something_of_the_tasks_that_the_table_of_tasks_says() -> None:
    paper = load_protocol("paper")
    says = {
        "psnr": lambda task: task.right,
        "lpips_alex": lambda task: task.right,
        "light_consistency": lambda task: task.moves_class,
        "outside_change": lambda task: not task.whole,
        "style_distance": lambda task: task.right,
        "smoothness": lambda task: task.steps,
        "mask_agreement": lambda task: True,
    }
    for metric, rule in says.items():
        for name, task in TASKS.items():
            assert (left_out(f"edit_{metric}_{name}", paper, "test") == "") == rule(task), (metric, name)
            assert (metric in task.metrics) == rule(task), (metric, name)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("fid", "does not measure the group distribution"),
        ("psnr", "measures split val, not test"),
        ("params", "does not measure the group cost"),
    ],
)
def test_a_protocol_is_asked_group_by_group(name: str, reason: str) -> None:
    assert reason in left_out(name, load_protocol("quick"), "test")


def test_settings_inside_a_group_count() -> None:
    standard = load_protocol("standard")
    less = standard.distribution.model_copy(update={"features": ("segmenter",), "bootstrap": 0, "floor": False})
    plain = standard.model_copy(update={"distribution": less})
    names = ("fd_seg", "fid", "fd_seg_floor", "fd_seg_low")
    assert [bool(left_out(name, plain, "test")) for name in names] == [False, True, True, True]
    assert not any(left_out(name, standard, "test") for name in names)
    assert left_out("ssim_range2", standard, "test") and not left_out(
        "ssim_range2", load_protocol("sean_compat"), "test"
    )
    assert left_out("nobody_knows_it", standard, "test") == "", "refused elsewhere"


def test_costs_belong_to_no_split_and_a_rule_is_not_trained() -> None:
    config = compose(["model=painter", "protocol=standard"])
    assert all(
        why_not(name, config, "train") == "" for name in OF_NO_SPLIT if not name.startswith(("train_", "inversion_"))
    )
    assert why_not("train_device_hours", config, "test") == "painter is a rule: nothing is trained"
    assert why_not("train_device_hours", compose([]), "test") == ""
    assert measured_under(["fd_seg"], config, "test") == ["paper", "standard", "standard_64"]


def test_every_metric_there_is_has_one_group_or_is_the_training_s_own() -> None:
    measured = [name for names in MEASURED.values() for name in names]
    assert sorted([*measured, *BY_TRAINING]) == sorted(SPECS)


def test_what_belongs_to_inversion_is_known_before_anything_runs() -> None:
    def asked(family: str, name: str) -> str:
        return why_not(name, compose([f"model={family}", "protocol=standard"]), "test")

    for name in ("inversion_s_per_image", "layout_miou"):
        assert asked("semanticstylegan", name) == ""
        assert "takes no photo in by inversion" in asked("spade", name)
    assert asked("spade", "robust_psnr_loss_jitter") == ""
    assert "measures mask noise of" in asked("spade", "robust_psnr_loss_ds")

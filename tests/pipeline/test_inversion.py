"""Inversion: what its loss is made of, its schedule, what it keeps, what it costs and what its numbers say of themselves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.config import load_protocol
from pipeline.data import build_dataset
from pipeline.editing.tasks import refusal
from pipeline.errors import UserError
from pipeline.evaluation.context import Context
from pipeline.evaluation.evaluator import evaluate
from pipeline.evaluation.inversion import Inverted, find_codes, inverting, rate_factor
from pipeline.evaluation.resume import Resume
from pipeline.models.contract import ComposingGenerator
from pipeline.schema.evaluation import InversionConfig, ProtocolConfig
from tests.pipeline.models.small_models import random_inputs, small_generator
from tests.pipeline.tiny import TINY

CPU = torch.device("cpu")
FREE = InversionConfig(
    start="mean", steps=40, lr=0.1, warm_up=0.05, cool_down=0.25, perceptual=0.0, pixel_scales=3, mse=1.0, code=0.0, mask=0.0,
    damaged_mask=1.0,
)  # fmt: skip


def family(**changes: Any) -> ComposingGenerator:
    made = small_generator("semanticstylegan", **changes)
    assert isinstance(made, ComposingGenerator)
    return made.eval()


def no_distance(image: Tensor, photo: Tensor) -> Tensor:
    return image.new_zeros(image.shape[0])


def found(generator: ComposingGenerator, image: Tensor, given: Tensor, **changes: Any) -> Tensor:
    return find_codes(generator, image, given, FREE.model_copy(update=changes), no_distance)


def error(generator: ComposingGenerator, codes: Tensor, image: Tensor) -> float:
    return (generator.render(codes).image - image).square().mean().item()


def test_the_codes_of_a_picture_the_network_drew_are_found_again() -> None:
    generator = family()
    _, mask = random_inputs()
    photo = generator.render(generator.mean_codes(2) + 0.5 * torch.randn(2, 12, 8)).image.detach()
    start = error(generator, generator.mean_codes(2), photo)
    assert error(generator, found(generator, photo, mask, steps=150), photo) < 0.05 * start


def test_without_steps_the_start_is_the_answer() -> None:
    generator = family()
    image, mask = random_inputs()
    assert torch.equal(found(generator, image, mask, steps=0), generator.mean_codes(2))


def test_a_heavy_pull_to_the_mean_code_leaves_it_there() -> None:
    generator = family()
    image, mask = random_inputs()
    held, loose = (found(generator, image, mask, code=weight) - generator.mean_codes(2) for weight in (1e4, 0.0))
    assert held.abs().mean() < 0.2 * loose.abs().mean()


def test_the_mask_term_brings_the_layout_to_the_given_one_and_nothing_else_looks_at_the_mask() -> None:
    generator = family()
    image, mask = random_inputs()
    blind, other = (found(generator, image, given) for given in (mask, mask.flip(1)))
    assert torch.equal(blind, other)

    def agreement(codes: Tensor) -> float:
        layout = generator.render(codes).layout
        assert layout is not None
        return (layout.argmax(dim=1) == mask.argmax(dim=1)).float().mean().item()

    assert agreement(found(generator, image, mask, mask=10.0, mse=0.0)) > agreement(blind) + 0.05


def test_photos_do_not_touch_each_other() -> None:
    generator = family()
    image, mask = random_inputs(batch=3)
    together = found(generator, image, mask, steps=5)
    alone = torch.cat([found(generator, image[i : i + 1], mask[i : i + 1], steps=5) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-4)


def test_no_weight_is_changed_or_given_a_gradient() -> None:
    generator = family()
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    image, mask = random_inputs()
    with torch.no_grad():  # as an evaluation calls it
        found(generator, image, mask, steps=3)
    assert all(torch.equal(value, before[name]) for name, value in generator.state_dict().items())
    assert all(part.grad is None for part in generator.parameters())


def test_the_rate_rises_over_the_first_twentieth_and_falls_by_a_cosine_over_the_last_quarter() -> None:
    """As released: 400 steps, 20 of them rising, 100 falling."""
    factors = [rate_factor(step / 400, 0.05, 0.25) for step in range(401)]
    assert factors[0] == 0.0 and factors[10] == pytest.approx(0.5) and factors[20:301] == [1.0] * 281
    assert factors[350] == pytest.approx(0.5) and factors[400] == pytest.approx(0.0)
    assert rate_factor(0.0, 0.0, 0.0) == 1.0


def protocol(**changes: Any) -> ProtocolConfig:
    quick = load_protocol("quick")
    assert quick.inversion is not None
    inversion = quick.inversion.model_copy(update={"steps": 2, **changes})
    segmenter = quick.segmenter.model_copy(update={"iterations": 2})
    return quick.model_copy(update={"inversion": inversion, "images": 4, "batch_size": 2, "segmenter": segmenter})


def faces() -> Any:
    from pipeline.config import compose

    return build_dataset(compose([*TINY]).data, "val")


def test_what_is_inverted_once_serves_the_stream_and_the_edits() -> None:
    inverted = inverting(family(num_classes=19), protocol(), CPU)
    assert isinstance(inverted, Inverted)
    image, mask = random_inputs(19)
    first = inverted.encode_style(image, mask)
    inverted.family.mapping.requires_grad_(False)  # type: ignore[union-attr]
    inverted.family.mean_w.add_(1.0)  # type: ignore[operator, union-attr]
    assert torch.equal(inverted.encode_style(image.flip(0), mask.flip(0)), first.flip(0)), "kept, not found anew"
    assert not torch.equal(inverted.encode_style(image + 0.1, mask), first)


def test_only_with_the_mask_term_a_damaged_mask_is_another_case() -> None:
    image, mask = random_inputs(19)
    plain = inverting(family(num_classes=19), protocol(), CPU)
    assert isinstance(plain, Inverted)
    assert torch.equal(plain.encode_style(image, mask), plain.encode_style(image, mask.flip(1)))
    damaged = plain.under_damage()
    assert damaged.budget.mask == plain.budget.damaged_mask > 0 and "mask term" in damaged.note
    assert not torch.equal(damaged.encode_style(image, mask), damaged.encode_style(image, mask.flip(1)))


def test_rows_say_that_the_layout_is_the_family_s_own_and_what_inversion_cost() -> None:
    groups = ("reconstruction", "semantic", "cost")
    done = evaluate(
        family(num_classes=19), faces(), protocol().model_copy(update={"groups": groups}), device=CPU,
        splits=lambda split: faces(),
    )  # fmt: skip
    rows = {row.name: row for row in done.rows}
    assert (
        "draws its own layout; codes by inversion: 2 steps from the encoder's codes, L1 at 3 scales"
        in rows["psnr"].reason
    )
    assert rows["seg_miou_real"].reason == "", "real images are nobody's inversion"
    assert rows["inversion_s_per_image"].status == "ok" and rows["inversion_s_per_image"].n == 4
    seconds = rows["inversion_s_per_image"].value
    speed = rows["eval_images_per_s"].value
    assert seconds is not None and speed is not None and speed < 1 / seconds
    for name in ("layout_miou", "seg_miou_own", "seg_miou"):
        assert rows[name].status == "ok" and 0 <= (rows[name].value or 0.0) <= 1


def test_other_families_say_why_they_have_no_such_numbers() -> None:
    groups = ("semantic", "cost")
    done = evaluate(
        small_generator("painter", 19), faces(), protocol().model_copy(update={"groups": groups}), device=CPU,
        splits=lambda split: faces(),
    )  # fmt: skip
    rows = {row.name: row for row in done.rows}
    for name in ("layout_miou", "seg_miou_own", "inversion_s_per_image"):
        assert rows[name].status == "not_applicable"


def test_own_layout_against_the_given_one_is_the_plain_iou() -> None:
    """A family that answers with the given mask scores 1; with two classes exchanged, those two score 0."""
    from pipeline.evaluation.parts.semantic import SemanticPart
    from pipeline.evaluation.rows import RowMaker
    from pipeline.evaluation.view import reconstruct
    from pipeline.metrics.accumulate import Totals

    generator = inverting(family(num_classes=19), protocol(steps=0), CPU)
    data = faces()
    context = Context(generator, data, protocol(steps=0), ("semantic",), 4, CPU, None, None, _quiet(), Resume(None))
    part = SemanticPart(context)
    view = reconstruct(generator, context.batch(0, 4), CPU)
    swapped = view.batch.mask.clone()
    swapped[:, [0, 1]] = view.batch.mask[:, [1, 0]]
    present = int((view.batch.mask.flatten(2).amax(dim=(0, 2)) > 0).sum())
    for layout, expected in ((view.batch.mask, 1.0), (swapped, (present - 2) / present)):
        totals = Totals()
        totals.add({**part.measure(replace(view, layout=layout)), "each/content": np.array(["x"] * 4)})
        row = next(
            row for row in part.rows(totals, RowMaker("quick", "val", "trained", {})) if row.name == "layout_miou"
        )
        assert row.value == pytest.approx(expected)


def test_a_killed_inversion_keeps_the_codes_it_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pipeline.evaluation.inversion as module

    calls: list[int] = []
    real = module.find_codes

    def counted(generator: ComposingGenerator, image: Tensor, *rest: Any) -> Tensor:
        if len(calls) == 1 and not (tmp_path / "again").exists():
            (tmp_path / "again").touch()
            raise KeyboardInterrupt
        calls.append(len(image))
        return real(generator, image, *rest)

    monkeypatch.setattr(module, "find_codes", counted)
    arguments = (family(num_classes=19), faces(), protocol())
    with pytest.raises(KeyboardInterrupt):
        evaluate(*arguments, device=CPU, cache=tmp_path)
    assert calls == [2]
    evaluate(*arguments, device=CPU, cache=tmp_path)
    assert calls == [2, 2], "the first two photos were not inverted again"


def test_a_protocol_without_a_budget_is_refused_and_other_families_never_read_it() -> None:
    bare = protocol().model_copy(update={"inversion": None})
    with pytest.raises(UserError, match="protocol quick has no section inversion"):
        inverting(family(), bare, CPU)
    assert (
        bare.digest
        == protocol().digest
        == load_protocol("quick").model_copy(update={"images": 4, "segmenter": bare.segmenter}).digest
    )
    assert bare.digest_for(inverts=True) != protocol().digest_for(inverts=True)
    assert protocol(steps=3).digest_for(inverts=True) != protocol().digest_for(inverts=True)


def test_the_published_protocol_inverts_as_released() -> None:
    budget = load_protocol("paper").inversion
    assert budget is not None
    assert (budget.start, budget.steps, budget.lr, budget.warm_up, budget.cool_down) == ("mean", 400, 0.1, 0.05, 0.25)
    assert (budget.perceptual, budget.mse, budget.code, budget.mask) == (1.0, 0.1, 1.0, 0.0)


def test_every_edit_task_is_one_this_family_can_do() -> None:
    from pipeline.editing.tasks import TASKS

    assert [task for task in TASKS if refusal(task, family().capabilities)] == []


def _quiet() -> Any:
    from pipeline.progress import Quiet

    return Quiet()

"""Edit tasks: exact layouts, the renderer as the perfect editor, the painter as one that is not, and what each number means."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.data.layouts import transplanted, without
from pipeline.editing.batches import load_case_batches
from pipeline.editing.cases import WHOLE, Case, choose_cases
from pipeline.editing.perform import perform
from pipeline.editing.tasks import TASKS, Task, refusal
from pipeline.editing.truth import renderer_of
from pipeline.evaluation.evaluator import evaluate
from pipeline.evaluation.stages.edit_scores import region_rmse, smoothness, style_distance
from pipeline.metrics.images import ImageBatch
from pipeline.models.contract import Capabilities, Generator
from pipeline.records.rows import MetricRow
from pipeline.schema.evaluation import EditTask
from tests.pipeline.metrics.doubles import Echo, RendererGenerator, faces, painter, protocol

CPU = torch.device("cpu")
TRUE_TASKS: tuple[EditTask, ...] = (
    "reconstruct", "style_transfer", "global_style_transfer", "shape_transfer", "style_and_shape_transfer", "absent_style",
)  # fmt: skip
DATA = faces(16, 48)


def edited(generator: Generator, tasks: tuple[EditTask, ...] = TRUE_TASKS, **changes: object) -> dict[str, MetricRow]:
    config = protocol(
        "editing", editing__tasks=tasks, editing__pairs=8, editing__regions=("hair", "skin", "mouth"), **changes
    )
    return {row.name: row for row in evaluate(generator, DATA, config, device=CPU).rows}


# -- the table -------------------------------------------------------------------------------------------------------------


def test_the_table_holds_the_tasks_a_protocol_may_name_in_their_order() -> None:
    """The order seeds the cases: a task that moves up would measure another one on other images."""
    assert tuple(TASKS) == get_args(EditTask)


def test_a_tenth_task_is_one_row(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The way to another image's whole style: cases, pictures, truth, metrics and refusals follow from the row."""
    monkeypatch.setitem(TASKS, "global_style_interpolation", Task("any", style_from="reference", steps=True))  # type: ignore[misc]
    name: EditTask = "global_style_interpolation"  # type: ignore[assignment]
    assert refusal(name, Capabilities(style="none")) == "the family takes no style from an image"
    rows = edited(RendererGenerator(DATA), (name,))
    assert rows[f"edit_psnr_{name}"].value == 100, "the last position is the whole edit"
    assert 0 <= float(rows[f"edit_smoothness_{name}"].value) <= 1  # type: ignore[arg-type]
    assert f"edit_outside_change_{name}" not in rows and f"edit_light_consistency_{name}" not in rows
    evaluate(painter(), DATA, protocol("editing", editing__tasks=(name,)), device=CPU, samples=tmp_path)
    (edit,) = json.loads((tmp_path / "index.json").read_text())["items"][0]["edits"]
    assert edit["task"] == name and {"reference", "truth"} <= set(edit)


# -- true edits, drawn once ------------------------------------------------------------------------------------------------


def test_arms_share_true_edits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second arm draws nothing and finds the same numbers; an unreadable file is drawn again."""
    from pipeline.editing import truth

    config = protocol("editing", editing__tasks=TRUE_TASKS, editing__pairs=6, editing__regions=("hair", "skin"))
    drawn: list[int] = []
    draw = truth.render_label
    monkeypatch.setattr(truth, "render_label", lambda *given: (drawn.append(1), draw(*given))[1])

    def numbers(cache: Path | None) -> dict[str, float | None]:
        drawn.clear()
        found = evaluate(painter(), DATA, config, device=CPU, cache=cache)
        return {row.name: row.value for row in found.rows}

    expected = numbers(None)
    assert len(drawn) > 30 and expected["edit_psnr_style_transfer"] is not None
    assert numbers(tmp_path) == expected and len(drawn) > 30
    assert numbers(tmp_path) == expected and len(drawn) == 0
    kept = sorted((tmp_path / "edits").iterdir())
    for broken in (b"cut off", b""):
        kept[0].write_bytes(broken)
        assert numbers(tmp_path) == expected and 0 < len(drawn) <= 6


def test_large_true_edits_are_not_kept(tmp_path: Path) -> None:
    renderer = renderer_of(faces(2, 136), tmp_path)
    assert renderer is not None
    case = Case(0, 1, "hair", (13,))
    label = renderer.faces[0].label
    assert renderer.truths("style_transfer", [case], label[None]).shape == (1, 136, 136, 3)  # type: ignore[union-attr]
    assert renderer.truths("sampling", [case], label[None]) is None
    assert list(tmp_path.iterdir()) == []


# -- layouts -------------------------------------------------------------------------------------------------------------


def test_a_class_taken_out_goes_to_its_nearest_neighbours() -> None:
    label = np.array([[1, 1, 0, 0, 2]], dtype=np.uint8)
    assert without(label, [0]).tolist() == [[1, 1, 1, 2, 2]]
    assert without(label, [7]).tolist() == label.tolist()
    with pytest.raises(ValueError, match="nothing is left"):
        without(np.zeros((2, 2), dtype=np.uint8), [0])


@given(st.integers(0, 2**16), st.sets(st.integers(0, 3), min_size=1, max_size=2))
def test_transplanted_classes_have_exactly_the_donors_shape(seed: int, classes: set[int]) -> None:
    rng = np.random.default_rng(seed)
    label, donor = rng.integers(0, 5, (2, 8, 9)).astype(np.uint8)
    result = transplanted(label, donor, sorted(classes))
    taken = np.isin(donor, list(classes))
    assert np.array_equal(result[taken], donor[taken]) and not np.isin(result[~taken], list(classes)).any()
    untouched = ~taken & ~np.isin(label, list(classes))
    assert np.array_equal(result[untouched], label[untouched])


# -- cases ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TRUE_TASKS)
def test_cases_are_a_function_of_protocol_and_data(task: EditTask) -> None:
    config = protocol().editing.model_copy(update={"pairs": 7, "regions": ("hair", "mouth")})
    cases = choose_cases(task, config, DATA, 16)
    assert len(cases) == 7 and cases == choose_cases(task, config, faces(16, 48), 16)
    assert cases != choose_cases(task, config.model_copy(update={"seed": 1}), DATA, 16)
    for case in cases:
        here, there = DATA[case.content].label, DATA[case.reference].label
        assert all((here == k).any() and (there == k).any() for k in case.classes)
        if task in ("reconstruct", "absent_style"):
            assert case.content == case.reference
        else:
            assert case.content != case.reference


def test_a_space_without_the_named_regions_gets_its_common_classes() -> None:
    config = protocol().editing.model_copy(update={"pairs": 6, "regions": ("wheels",), "absent": "wheels"})
    regions = {case.region for case in choose_cases("style_transfer", config, DATA, 16)}
    assert regions <= set(DATA.label_space.classes) and "background" in regions and len(regions) == 3
    assert choose_cases("absent_style", config, DATA, 16) == []


def test_cases_of_given_images_are_one_an_image_with_regions_in_turn() -> None:
    config = protocol().editing.model_copy(update={"pairs": 2, "regions": ("hair", "mouth", "nose")})
    contents = [5, 3, 8, 1]
    for task in TRUE_TASKS:
        cases = choose_cases(task, config, DATA, 16, contents=contents)
        eared = [3, 1]  # ears of the other two are under hair
        assert [case.content for case in cases] == (eared if task == "absent_style" else contents), task
    regions = [case.region for case in choose_cases("style_transfer", config, DATA, 16, contents=contents)]
    assert regions == ["hair", "mouth", "nose", "hair"]


def test_an_image_without_a_region_gets_the_next_one_and_no_case_comes_twice() -> None:
    config = protocol().editing.model_copy(update={"pairs": 1000, "regions": ("hat", "hair", "mouth", "nose")})
    cases = choose_cases("shape_transfer", config, DATA, 16)
    seen = {(case.content, case.region) for case in cases}
    assert len(seen) == len(cases) > 32, "three regions of most images"
    hats = [index for index in range(16) if (DATA[index].label == DATA.label_space.classes.index("hat")).any()]
    bare = next(index for index in range(16) if index not in hats)
    (case,) = choose_cases("shape_transfer", config, DATA, 16, contents=[bare])
    assert case.region == "hair"


# -- pictures ------------------------------------------------------------------------------------------------------------


def test_samples_hold_edits_with_reference_layout_and_truth(tmp_path: Path) -> None:
    config = protocol("editing", editing__tasks=TRUE_TASKS, editing__pairs=2, editing__regions=("hair", "mouth"))
    evaluate(RendererGenerator(DATA), DATA, config, device=CPU, samples=tmp_path)
    items = json.loads((tmp_path / "index.json").read_text())["items"]
    assert [len(item["edits"]) for item in items] == [6, 6, 5, 6, 0, 0, 0, 0], "hair hides the ears of one"
    for item in items[:4]:
        for edit in item["edits"]:
            picture, truth = (np.asarray(Image.open(tmp_path / edit[what])) for what in ("file", "truth"))
            assert np.array_equal(picture, truth), "the renderer is the perfect editor"
            changed = not np.array_equal(picture, DATA[item["index"]].image)
            assert changed == (edit["task"] not in ("reconstruct", "absent_style")), edit
            assert ("reference" in edit) == (edit["task"] != "reconstruct")
            moved = not np.array_equal(np.asarray(Image.open(tmp_path / edit["layout"])), DATA[item["index"]].label)
            assert moved == (edit["task"] in ("shape_transfer", "style_and_shape_transfer"))


def test_without_a_renderer_the_ground_truth_is_said_to_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.evaluation.stages.edit_scores.renderer_of", lambda *_: None)
    rows = edited(painter(), ("style_transfer",))
    missing = {name for name, row in rows.items() if row.status == "not_applicable"}
    true = ("psnr", "ssim", "lpips_alex", "region_error", "light_consistency")
    assert missing == {f"edit_{name}_style_transfer" for name in true}
    assert "no ground truth" in rows["edit_psnr_style_transfer"].reason
    assert rows["edit_outside_change_style_transfer"].status == "ok"


def test_refused_tasks_leave_pictures_out(tmp_path: Path) -> None:
    evaluate(Echo(), DATA, protocol("editing", editing__tasks=TRUE_TASKS), device=CPU, samples=tmp_path)
    items = json.loads((tmp_path / "index.json").read_text())["items"]
    tasks = [edit["task"] for edit in items[0]["edits"]]
    assert tasks == ["reconstruct", "global_style_transfer", "shape_transfer", "absent_style"]


# -- the perfect editor and one that is not ----------------------------------------------------------------------------------


def test_the_renderer_is_a_perfect_editor_and_the_painter_is_not() -> None:
    perfect, rule = edited(RendererGenerator(DATA)), edited(painter())
    for task in TRUE_TASKS:
        assert perfect[f"edit_psnr_{task}"].value == 100, task
        assert perfect[f"edit_ssim_{task}"].value == pytest.approx(1)
        assert perfect[f"edit_region_error_{task}"].value == pytest.approx(0, abs=1e-6)
        assert float(rule[f"edit_psnr_{task}"].value) < 30  # type: ignore[arg-type]
        assert float(rule[f"edit_region_error_{task}"].value) > 0.02  # type: ignore[arg-type]
    for task in ("style_transfer", "style_and_shape_transfer"):
        light = f"edit_light_consistency_{task}"
        assert perfect[light].value == pytest.approx(1)
        assert float(rule[light].value) < 0.7  # type: ignore[arg-type]


def test_an_editor_that_ignores_the_reference_is_found_out() -> None:
    class Deaf(RendererGenerator):
        """Never takes over a style."""

        def synthesize(self, mask, style, *, attention=True):  # type: ignore[no-untyped-def]
            own = style[:, :, 1].mode(dim=1).values.view(-1, 1, 1).expand_as(style)
            return super().synthesize(mask, own, attention=attention)

    deaf, perfect = edited(Deaf(DATA), ("style_transfer",)), edited(RendererGenerator(DATA), ("style_transfer",))
    for name in ("region_error", "style_distance"):
        row = f"edit_{name}_style_transfer"
        assert float(deaf[row].value) > float(perfect[row].value) + 0.02  # type: ignore[arg-type]
    assert deaf["edit_outside_change_style_transfer"].value == 0


def test_pasting_the_references_light_is_found_out() -> None:
    class Paster(RendererGenerator):
        """Draws edited pictures under the light of the least common code: the reference's."""

        def synthesize(self, mask, style, *, attention=True):  # type: ignore[no-untyped-def]
            codes = style.clone()
            for one in codes:
                lights, counts = one[:, 1].unique(return_counts=True)
                one[:, 1] = lights[counts.argmin()]
            return super().synthesize(mask, codes, attention=attention)

    paster = edited(Paster(DATA), ("style_transfer",))
    assert paster["edit_light_consistency_style_transfer"].value == pytest.approx(0, abs=1e-6)
    assert float(paster["edit_outside_change_style_transfer"].value) > 0.02  # type: ignore[arg-type]


def test_per_case_values_come_with_keys_that_pair_arms() -> None:
    config = protocol("editing", editing__tasks=("style_transfer",), editing__pairs=4)
    one, two = (evaluate(g, DATA, config, device=CPU) for g in (painter(), RendererGenerator(DATA)))
    name = "edit_region_error_style_transfer"
    frames = [found.per_image[found.per_image["metric"] == name] for found in (one, two)]
    assert list(frames[0]["key"]) == list(frames[1]["key"]) and len(frames[0]) == 4
    row = next(row for row in one.rows if row.name == name)
    assert row.value == pytest.approx(frames[0]["value"].mean()) and row.n == 4
    assert frames[0]["fingerprint"].unique().tolist() == frames[1]["fingerprint"].unique().tolist() == [row.fingerprint]


# -- single numbers ----------------------------------------------------------------------------------------------------------


def test_region_error_looks_at_the_region_alone() -> None:
    a, b = torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)
    b[0, :, 0, :2] = 0.5
    region = np.zeros((2, 4, 4), dtype=bool)
    region[0, 0, :] = True
    found = region_rmse(ImageBatch(a, "unit"), ImageBatch(b, "unit"), region)
    assert found[0] == pytest.approx(0.5 / math.sqrt(2)) and math.isnan(found[1])
    assert region_rmse(ImageBatch(a, "unit"), ImageBatch(b, "unit"), ~region)[0] == 0


def test_style_distance_compares_class_by_class() -> None:
    label = torch.tensor([[0, 0, 1, 1]])
    image = torch.tensor([0.2, 0.4, 0.9, 0.9]).expand(3, 1, 4)
    mirrored = torch.tensor([[1, 1, 0, 0]])
    assert style_distance(image, label, image.flip(-1), mirrored, ()) == pytest.approx(0)
    brighter = image + 0.1
    # Means differ by 0.1, deviations do not: RMS over six numbers, three of them 0.1.
    assert style_distance(brighter, label, image, label, (0,)) == pytest.approx(0.1 / math.sqrt(2), rel=1e-5)
    assert math.isnan(style_distance(image, label, image, label, (5,)))


def test_smoothness_is_one_for_even_steps_and_zero_for_a_jump() -> None:
    def steps(*levels: float) -> list[ImageBatch]:
        return [ImageBatch(torch.full((1, 3, 2, 2), float(level)), "unit") for level in levels]

    assert smoothness(steps(0, 0.25, 0.5, 0.75, 1)).tolist() == pytest.approx([1])
    assert smoothness(steps(0, 0, 0, 1)).tolist() == [0]
    assert smoothness(steps(0.5, 0.5)).tolist() == [0]
    assert smoothness(steps(0, 0.1, 0.4)).tolist() == pytest.approx([1 / 3])


def test_interpolation_starts_at_the_content_and_ends_at_the_edit() -> None:
    config = protocol().editing.model_copy(update={"pairs": 3})
    cases = choose_cases("style_interpolation", config, DATA, 16)
    content, reference = load_case_batches("style_interpolation", DATA, cases, renderer_of(DATA), CPU)
    found = perform("style_interpolation", painter(), content, reference, cases, steps=4, seed=0)
    swapped = perform("style_transfer", painter(), content, reference, cases, steps=4, seed=0)
    assert len(found.steps) == 4
    assert torch.allclose(found.steps[0], found.reconstruction) and torch.allclose(found.steps[-1], swapped.image)
    # The painter is linear in its styles, so its steps are even.
    assert smoothness([ImageBatch(step, "signed") for step in found.steps]).tolist() == pytest.approx(
        [1, 1, 1], rel=1e-3
    )


def test_without_a_renderer_the_absent_class_takes_its_neighbours_colours() -> None:
    ears = DATA.label_space.members("ears")
    index = next(i for i in range(16) if np.isin(DATA[i].label, ears).any())
    present = tuple(k for k in ears if (DATA[index].label == k).any())
    _, reference = load_case_batches("absent_style", DATA, [Case(index, index, "ears", present)], None, CPU)
    assert not np.isin(reference.label.numpy(), present).any()
    kept = ~np.isin(DATA[index].label, present)
    assert np.array_equal(ImageBatch(reference.image, "signed").uint8()[0][kept], DATA[index].image[kept])


def test_families_refuse_what_they_cannot_do() -> None:
    none, one, many = Capabilities(style="none"), Capabilities(style="global"), Capabilities(style="per_class")
    assert "no style per class" in refusal("style_transfer", one) and refusal("style_transfer", many) == ""
    assert "takes no style" in refusal("global_style_transfer", none) and refusal("global_style_transfer", one) == ""
    assert "no shape embedding" in refusal("shape_interpolation", many)
    assert "does not sample" in refusal("sampling", many)
    assert refusal("shape_transfer", none) == ""
    rows = edited(Echo(), ("style_transfer", "reconstruct"))
    assert rows["edit_psnr_reconstruct"].value == 100
    refused = {name for name, row in rows.items() if row.status == "not_applicable"} - {
        "edit_mask_agreement_reconstruct"
    }
    can = edited(painter(), ("style_transfer",))
    assert refused == {*can, "edit_mask_agreement_style_transfer"}, (
        "a row for each of those its neighbours are measured by"
    )


def test_shape_interpolation_and_sampling_on_a_real_family() -> None:
    from pipeline.config import compose
    from pipeline.models.build import build_generator

    torch.manual_seed(0)
    generator = build_generator(compose([]).model, 19, (32, 32))
    data = faces(6)
    config = protocol("editing", editing__tasks=("shape_interpolation", "sampling"), editing__pairs=3, editing__steps=3)
    rows = {row.name: row for row in evaluate(generator, data, config, device=CPU).rows}
    assert 0 <= float(rows["edit_smoothness_shape_interpolation"].value) <= 1  # type: ignore[arg-type]
    assert rows["edit_mask_agreement_sampling"].status == "not_applicable"
    assert choose_cases("shape_interpolation", config.editing, data, 6)[0].region == WHOLE

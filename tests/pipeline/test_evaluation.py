"""The evaluator: invariances, degradation, batches that memory holds, honest rows, pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from pipeline.__main__ import main
from pipeline.config import choices, load_protocol
from pipeline.errors import RunFailed
from pipeline.evaluation.evaluator import evaluate
from pipeline.evaluation.validation import quick_validation
from pipeline.metrics.images import ImageBatch
from pipeline.metrics.reconstruction import rmse
from pipeline.models.contract import Synthesis
from pipeline.records.metric_specs import spec_of
from pipeline.schema.evaluation import REVISED, ProtocolConfig
from tests.pipeline.metrics.doubles import (
    CLASSES,
    CPU,
    SPLITS,
    Echo,
    faces,
    numbers,
    painter,
    protocol,
    rows_of,
    small_ca2sis,
)
from tests.pipeline.models.small_models import small_generator


def test_rows_and_per_image_values_agree() -> None:
    found = evaluate(Echo(0.3), faces(), protocol("reconstruction"), device=CPU)
    rows = rows_of(found)
    assert set(rows) == {"psnr", "ssim", "rmse"}
    for name, row in rows.items():
        values = found.per_image[found.per_image["metric"] == name]
        assert row.n == len(values) == 12 and row.split == "test" and row.protocol == "quick"
        assert row.value == pytest.approx(values["value"].mean())
        assert set(values["fingerprint"]) == {row.fingerprint}
        assert list(values["key"]) == list(faces().keys)


def test_batch_size_changes_no_number_and_no_fingerprint() -> None:
    groups = ("reconstruction", "attention", "semantic", "distribution", "editing", "robustness")
    config = protocol(
        *groups, segmenter__iterations=3, editing__pairs=3, robustness__images=3, distribution__bootstrap=5
    )
    generator = small_ca2sis()
    found = [
        numbers(evaluate(generator, faces(), config.model_copy(update=changes), device=CPU, splits=SPLITS))
        for changes in ({"batch_size": 64}, {"batch_size": 1, "name": "single"}, {"batch_size": 7, "name": "seven"})
    ]
    first, *others = found
    assert all(other.keys() == first.keys() for other in others) and len(first) > 40
    for name, (value, fingerprint) in first.items():
        wanted = None if value is None else pytest.approx(value, rel=1e-6, abs=1e-6)
        assert [other[name] for other in others] == [(wanted, fingerprint)] * 2, name


def test_the_fingerprint_follows_data_and_count_and_metric_not_the_model() -> None:
    base = rows_of(evaluate(Echo(0.3), faces(), protocol("reconstruction"), device=CPU))
    other_model = rows_of(evaluate(painter(), faces(), protocol("reconstruction"), device=CPU))
    fewer = rows_of(evaluate(Echo(0.3), faces(), protocol("reconstruction", images=6), device=CPU))
    other_data = rows_of(evaluate(Echo(0.3), faces(split="val"), protocol("reconstruction"), device=CPU))
    assert base["psnr"].fingerprint == other_model["psnr"].fingerprint
    prints = {rows["psnr"].fingerprint for rows in (base, fewer, other_data)} | {base["ssim"].fingerprint}
    assert len(prints) == 4


def test_a_segmenter_that_no_group_uses_is_no_part_of_what_a_protocol_measures() -> None:
    for groups, counts in ((("reconstruction", "editing"), False), (("semantic",), True), (("distribution",), True)):
        digests = {protocol(*groups, segmenter__iterations=iterations).digest for iterations in (1, 2)}
        assert (len(digests) == 2) == counts, groups


def test_every_metric_worsens_with_the_picture(tmp_path: Path) -> None:
    config = protocol(
        "reconstruction",
        "perceptual",
        "semantic",
        "distribution",
        segmenter__iterations=150,
        segmenter__train_images=12,
    )
    levels = [
        rows_of(evaluate(Echo(noise), faces(), config, device=CPU, cache=tmp_path, splits=SPLITS))
        for noise in (0.0, 0.4, 1.2)
    ]
    for name in ("psnr", "ssim", "rmse", "haarpsi", "seg_miou", "seg_accuracy", "fd_seg", "kd_seg_x1000"):
        values = [float(rows[name].value) for rows in levels]  # type: ignore[arg-type]
        ordered = sorted(values, reverse=levels[0][name].direction == "max")
        assert values == ordered and len(set(values)) == 3, (name, values)
    perfect = levels[0]
    assert perfect["psnr"].value == 100 and perfect["ssim"].value == pytest.approx(1)
    assert perfect["haarpsi"].value == pytest.approx(1)
    assert perfect["seg_miou"].value == pytest.approx(perfect["seg_miou_real"].value)
    real, floor = (perfect[f"seg_miou_{name}"].value for name in ("real", "floor"))
    pixels = np.bincount(np.concatenate([faces()[i].label.reshape(-1) for i in range(12)]))
    assert floor == pytest.approx(pixels.max() / pixels.sum() / (pixels > 0).sum())
    assert perfect["seg_accuracy_floor"].value == pytest.approx(pixels.max() / pixels.sum())
    assert perfect["seg_skill"].value == pytest.approx((real - floor) / (1 - floor))  # type: ignore[operator]
    assert perfect["seg_skill_low"].value < perfect["seg_skill"].value  # type: ignore[operator]
    for name in ("seg_miou_floor", "seg_skill_low"):
        assert len({rows[name].value for rows in levels}) == 1, "of the real images, whatever is generated"


def test_what_cannot_be_measured_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    config = protocol("reconstruction", "perceptual", "attention", "semantic", "distribution", "diversity", "editing")
    config = config.model_copy(
        update={"distribution": config.distribution.model_copy(update={"features": ("inception", "segmenter")})}
    )
    rows = rows_of(evaluate(Echo(), faces(4, 32), config, device=CPU))
    assert rows["haarpsi"].status == "ok", "it needs no weights"
    assert rows["lpips_recon_alex"].status == "unavailable" and "weights fetch" in rows["lpips_recon_alex"].reason
    assert {rows[name].status for name in ("fid", "kid_x1000", "fd_seg", "seg_miou")} == {"unavailable"}
    assert "train split" in rows["seg_miou"].reason
    assert rows["attention_miou"].status == rows["pixel_div"].status == "not_applicable"
    assert rows["edit_psnr_style_transfer"].reason == "the family has no style per class"
    small = rows_of(evaluate(Echo(), faces(2, 8), protocol("reconstruction", "perceptual"), device=CPU))
    assert small["ssim"].status == "not_applicable" and small["psnr"].status == "ok"
    assert small["haarpsi"].status == "not_applicable" and "smaller than 16 pixels" in small["haarpsi"].reason


def test_rank_deficiency_is_marked() -> None:
    rows = rows_of(
        evaluate(Echo(0.1), faces(), protocol("distribution", segmenter__iterations=2), device=CPU, splits=SPLITS)
    )
    assert rows["fd_seg"].status == "ok" and "rank-deficient: 12 images for 64 features" in rows["fd_seg"].reason


def test_lpips_is_loaded_once_for_all_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []

    class Light:
        """Stands in for LPIPS, whose weights are a quarter of a gigabyte to read, hash and test."""

        weights_digest = "d"

        def __init__(self, net: str, *_: object) -> None:
            loaded.append(net)

        def distance(self, a: ImageBatch, b: ImageBatch) -> Tensor:
            return rmse(a, b)

    monkeypatch.setattr("pipeline.evaluation.context.Lpips", Light)
    config = protocol("perceptual", "diversity", "editing", diversity__images=2)
    rows = rows_of(evaluate(small_generator("inade", CLASSES, (32, 32)), faces(4), config, device=CPU))
    for name in ("lpips_recon_alex", "lpips_div_alex", "edit_lpips_alex_style_transfer"):
        assert rows[name].status == "ok", name
    assert loaded == ["alex"]
    loaded.clear()
    rows = rows_of(evaluate(small_generator("inade", CLASSES), faces(4, 16), config, device=CPU))
    assert rows["lpips_recon_alex"].status == rows["dists"].status == "not_applicable"
    assert {rows[name].reason for name in ("lpips_recon_alex", "lpips_div_alex", "edit_lpips_alex_style_transfer")} == {
        "images are smaller than 32 pixels"
    }
    assert loaded == [], "nobody is asked for weights that could measure nothing"


def test_an_untrained_state_is_measured_cheaply() -> None:
    config = protocol("reconstruction", "attention", "cost", "editing", "semantic")
    found = evaluate(small_ca2sis(), faces(4), config, device=CPU, state="untrained")
    assert {row.state for row in found.rows} == {"untrained"}
    assert {row.name.split("_")[0] for row in found.rows} == {"psnr", "ssim", "rmse", "attention"}


def test_output_that_is_not_finite_is_a_failed_run() -> None:
    class Broken(Echo):
        def synthesize(self, mask: Tensor, style: Tensor, *, attention: bool = True) -> Synthesis:
            return Synthesis(torch.full((mask.shape[0], 3, *mask.shape[-2:]), float("nan")))

    with pytest.raises(RunFailed, match="not finite"):
        evaluate(Broken(), faces(2), protocol("reconstruction"), device=CPU)


def test_cost_rows_count_what_the_model_is() -> None:
    generator = small_ca2sis()
    rows = rows_of(evaluate(generator, faces(4), protocol("cost"), device=CPU))
    assert rows["params"].value == sum(p.numel() for p in generator.parameters())
    assert {row.split for row in rows.values()} == {""}
    assert all(
        float(rows[name].value) > 0 for name in ("flops_per_image", "latency_ms", "eval_images_per_s", "peak_mem_gib")
    )  # type: ignore[arg-type]
    rule = rows_of(evaluate(painter(), faces(4), protocol("cost"), device=CPU))
    # Two products of K x 3 x pixels, two operations a multiply-add: the means and the painting.
    assert rule["params"].value == 0 and rule["flops_per_image"].value == 2 * 2 * CLASSES * 3 * 32 * 32


def test_a_convolution_counts_its_flops() -> None:
    from pipeline.metrics.cost import flops_per_image

    class Conv(Echo):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 8, 3, padding=1)

        def synthesize(self, mask: Tensor, style: Tensor, *, attention: bool = True) -> Synthesis:
            return Synthesis(self.conv(style.view(-1, 3, 16, 16))[:, :3])

    found = flops_per_image(Conv(), torch.zeros(2, 3, 16, 16), torch.zeros(2, CLASSES, 16, 16))
    assert found == 2 * 16 * 16 * 3 * 8 * 9


def test_pictures_and_their_index(tmp_path: Path) -> None:
    generator = small_ca2sis()
    evaluate(generator, faces(10), protocol("reconstruction"), device=CPU, samples=tmp_path)
    items = json.loads((tmp_path / "index.json").read_text())["items"]
    assert [item["index"] for item in items] == list(range(8)) and [item["key"] for item in items] == list(
        faces().keys[:8]
    )
    files = items[3]["files"]
    assert len(files["attention"]) == 3
    for name in ("style", "mask", "target", "output"):
        assert Image.open(tmp_path / files[name]).size == (32, 32)
    sample = faces(10)[3]
    assert np.array_equal(np.asarray(Image.open(tmp_path / files["target"])), sample.image)
    mask = np.asarray(Image.open(tmp_path / files["mask"]).convert("RGB"))
    assert np.array_equal(mask, faces().label_space.colours(sample.label))


def test_quick_validation_is_the_start_of_the_evaluation() -> None:
    generator = small_ca2sis()
    quick = quick_validation(generator, faces(), 5, 2, CPU)
    rows = rows_of(evaluate(generator, faces(), protocol("reconstruction", "attention", images=5), device=CPU))
    for name, value in quick.items():
        assert value == pytest.approx(float(rows[name].value), rel=1e-5)  # type: ignore[arg-type]
    assert set(quick) == {"psnr", "ssim", "attention_miou"}


def test_protocols_load_and_differ() -> None:
    assert choices("protocol") == ["paper", "quick", "sean_compat", "standard", "standard_64"]
    digests = {load_protocol(name).digest for name in choices("protocol")}
    assert len(digests) == 5
    standard, larger = load_protocol("standard"), load_protocol("standard_64")
    assert larger.model_copy(update={"segmenter": standard.segmenter}).digest == standard.digest, (
        "the judge alone differs"
    )
    assert standard.model_copy(update={"batch_size": 3, "name": "x"}).digest == standard.digest
    compat = load_protocol("sean_compat")
    assert (
        compat.distribution.reference_split == "train" and load_protocol("paper").distribution.reference_split == "test"
    )
    with pytest.raises(ValueError, match="inflates SSIM"):
        ProtocolConfig.model_validate({**standard.model_dump(), "ssim_range2": True})


def test_a_metric_whose_arithmetic_changed_is_measured_again_where_it_is_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And nothing else is: protocols that do not measure it keep their digest."""
    assert {name: spec_of(name).version for name in REVISED} == REVISED
    before = {name: load_protocol(name).digest for name in choices("protocol")}
    monkeypatch.setitem(REVISED, "fd_seg", 3)
    after = {name: load_protocol(name).digest for name in before}
    assert [name for name in before if before[name] != after[name]] == ["paper", "standard", "standard_64"]


def test_the_commands_evaluate_and_edit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    counts = [f"data.{split}_images=6" for split in ("train", "val", "test")]
    out = ["--out", str(tmp_path)]
    assert main(["train", "model=painter", "size=16", "protocol=quick", *counts, *out]) == 0
    run = next((tmp_path / "runs").iterdir())
    before = json.loads((run / "metrics.json").read_text())["rows"]
    assert main(["evaluate", run.name[:6], "--protocol", "sean_compat", "--batch-size", "4", *out]) == 0
    after = json.loads((run / "metrics.json").read_text())["rows"]
    assert all(row in after for row in before), "rows of the first protocol are untouched"
    added = {row["name"] for row in after if row["protocol"] == "sean_compat"}
    assert {"ssim_range2", "psnr", "fid"} <= added and {row["split"] for row in after if row["name"] == "psnr"} == {
        "val",
        "test",
    }
    assert main(["edit", run.name[:6], "--task", "style_transfer", "--region", "hair", "--images", "2", *out]) == 0
    grid = Image.open(tmp_path / "edits" / run.name[:10] / "style_transfer.png")
    assert grid.size == (6 * 132 + 4, 18 + 2 * 146)  # content, reference, layout, reconstruction, edit, ground truth
    capsys.readouterr()
    for arguments, message in (
        (["evaluate", "zz", *out], "no run in"),
        (["evaluate", run.name, "--protocol", "nope", *out], "unknown protocol 'nope'"),
        (["evaluate", run.name, "--weights-dir", str(tmp_path / "none"), *out], "no such folder"),
        (["edit", run.name, "--region", "hare", *out], "no class or group 'hare'"),
        (["edit", run.name, "--task", "sampling", *out], "does not sample styles"),
        (["edit", run.name, "--images", "0", *out], "--images must be at least 1"),
    ):
        assert main(arguments) == 2, arguments
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("error: ") and message in error

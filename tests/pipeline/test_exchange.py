"""Pictures out and in again: what export writes, what import-images reads, refuses and measures."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.__main__ import main, parser
from pipeline.data import build_dataset
from pipeline.data.batch import collate
from pipeline.evaluation.context import batch_seed
from pipeline.evaluation.view import reconstruct
from pipeline.records import MetricRow, RunRecord, RunStore
from pipeline.runs import checkpoint
from tests.pipeline.tiny import command, run, the_line

# Test split, every group that a network's pictures can answer; small enough for seconds.
PROTOCOL = (
    "protocol=standard",
    "protocol.groups=[reconstruction,perceptual,attention,cost,semantic,distribution,diversity,editing,robustness]",
    "protocol.segmenter.iterations=5", "protocol.distribution.reference_images=8", "protocol.distribution.bootstrap=4",
    "protocol.editing.tasks=[style_transfer,shape_transfer]", "protocol.robustness.images=2",
    "protocol.diversity.images=2", "data.test_images=6", "threads=1",
)  # fmt: skip
DATA = ("size=16", "data.train_images=12", "data.val_images=4", "tracking.mode=disabled", *PROTOCOL)
KEYS = [f"test{number:06d}" for number in range(6)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunRecord]:
    """An output folder with one tiny SEAN (styles per class: it can do the edits), measured under the test's protocol."""
    out = tmp_path_factory.mktemp("made") / "out"
    return out, run(out, "model=sean", *PROTOCOL)


@pytest.fixture(scope="module")
def exported(made: tuple[Path, RunRecord]) -> Path:
    """What the real command exports of it."""
    out, record = made
    folder = out.parent / "exported"
    done = command(
        "pipeline", "export", record.id[:10], "--to", str(folder), "--what", "reconstruction", "--out", str(out)
    )
    assert done.returncode == 0, done.stderr
    return folder


def trained(record: RunRecord) -> dict[str, MetricRow]:
    return {row.name: row for row in record.metrics if row.state == "trained"}


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def imported(out: Path, *words: str) -> RunRecord:
    """The record of the only seed of an import through the command."""
    before = set(RunStore(out / "runs").ids())
    assert main(["import-images", *words, *DATA, "--out", str(out)]) == 0
    (new,) = set(RunStore(out / "runs").ids()) - before
    return RunStore(out / "runs").record(new)


# -- export ------------------------------------------------------------------------------------------------------------


def test_an_export_holds_the_pictures_that_are_measured(made: tuple[Path, RunRecord], exported: Path) -> None:
    _, record = made
    generator, config = checkpoint.load_generator(record, torch.device("cpu"))
    data = build_dataset(config.data, "test")
    batch = collate([data[i] for i in range(6)], data.label_space.num_classes)
    torch.manual_seed(batch_seed("stream", 0))  # SEAN draws noise: that of an evaluation's first batch
    with torch.no_grad():
        pictures = reconstruct(generator, batch, torch.device("cpu")).output.uint8()
    for i, key in enumerate(KEYS):
        assert np.array_equal(np.asarray(Image.open(exported / "reconstruction" / f"{key}.png")), pictures[i])
        assert np.array_equal(
            np.asarray(Image.open(exported / "references" / "reconstruction" / f"{key}.png")), data[i].image
        )
        mask = Image.open(exported / "masks" / "reconstruction" / f"{key}.png")
        assert mask.mode == "P" and np.array_equal(np.asarray(mask), data[i].label)
    manifest = json.loads((exported / "manifest.json").read_text())
    assert manifest["run"] == record.id and manifest["split"] == "test" and manifest["size"] == [16, 16]
    assert [item["name"] for item in manifest["pictures"]["reconstruction"]["items"]] == KEYS


def test_an_interrupted_export_goes_on_and_gives_the_same_bytes(
    made: tuple[Path, RunRecord], exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, record = made
    folder = out.parent / "again"
    shutil.copytree(exported, folder)
    (folder / "reconstruction" / f"{KEYS[2]}.png").unlink()
    (folder / "masks" / "reconstruction" / f"{KEYS[4]}.png").unlink()
    kept = folder / "reconstruction" / f"{KEYS[0]}.png"
    assert main(["export", record.id, "--to", str(folder), "--out", str(out)]) == 0
    assert files(folder) == files(exported)
    before = kept.stat().st_mtime_ns
    assert main(["export", record.id, "--to", str(folder), "--out", str(out)]) == 0
    assert kept.stat().st_mtime_ns == before and files(folder) == files(exported)


def test_edits_are_exported_with_layouts_references_and_classes(made: tuple[Path, RunRecord]) -> None:
    out, record = made
    folder = out.parent / "edits"
    kinds = "shape_transfer,style_interpolation,absent_style"
    assert main(["export", record.id, "--to", str(folder), "--what", kinds, "--out", str(out)]) == 0
    items = json.loads((folder / "manifest.json").read_text())["pictures"]
    for item in items["shape_transfer"]["items"]:
        assert item["name"] == f"{item['content']}__{item['reference']}__{item['region']}" and item["classes"]
        layout = np.asarray(Image.open(folder / "masks" / "shape_transfer" / f"{item['name']}.png"))
        photo = np.asarray(Image.open(folder / "references" / "shape_transfer" / f"{item['name']}.png"))
        data = build_dataset(checkpoint.load_generator(record, torch.device("cpu"))[1].data, "test")
        keys = list(data.keys)
        assert np.array_equal(photo, data[keys.index(item["reference"])].image)
        assert not np.array_equal(layout, data[keys.index(item["content"])].label)
    name = items["style_interpolation"]["items"][0]["name"]
    steps = [folder / "style_interpolation" / f"{name}__{number}of5.png" for number in range(1, 6)]
    assert all(path.exists() for path in steps)
    assert all(
        "__" not in item["name"] or item["reference"] == item["content"] for item in items["absent_style"]["items"]
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--what", "reconstructoin"], ["reconstructoin", "did you mean reconstruction"]),
        (["--what", "sampling"], ["sampling", "does not sample"]),
        (["--split", "val"], ["another split", "choose another folder"]),
        (["--protocol", "standrad"], ["standrad", "standard"]),
    ],
)
def test_an_export_that_cannot_be_is_one_line(
    made: tuple[Path, RunRecord], exported: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: list[str]
) -> None:
    out, record = made
    before = files(exported)
    assert main(["export", record.id, "--to", str(exported), *words, "--out", str(out)]) == 2
    line = capsys.readouterr().err
    assert all(part in line for part in said) and line.count("\n") == 1
    assert files(exported) == before


def test_a_folder_of_something_else_is_not_touched(
    made: tuple[Path, RunRecord], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, record = made
    (tmp_path / "thesis.tex").write_text("mine")
    assert main(["export", record.id, "--to", str(tmp_path), "--out", str(out)]) == 2
    assert "not empty" in capsys.readouterr().err and [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    manifest = tmp_path / "manifest.json"  # as a prepared data set has one
    manifest.write_text('{"format": 1}')
    assert main(["export", record.id, "--to", str(tmp_path), "--out", str(out)]) == 2
    assert "manifest.json of something else" in capsys.readouterr().err and manifest.read_text() == '{"format": 1}'


# -- import ------------------------------------------------------------------------------------------------------------


def test_exported_pictures_score_the_same_when_they_are_imported(made: tuple[Path, RunRecord], exported: Path) -> None:
    """8-bit metrics to the last digit and under the same fingerprint; the others by at most what rounding moves a pixel."""
    out, record = made
    external = imported(out, "theirs", "--images", str(exported / "reconstruction"))
    assert (external.state, external.status["kind"]) == ("finished", "external")
    ours, theirs = trained(record), trained(external)
    on_grid = [name for name in ours if name.startswith(("fd_seg", "kd_seg", "seg_")) and ours[name].status == "ok"]
    assert {"fd_seg", "kd_seg_x1000", "seg_miou", "seg_accuracy", "fd_seg_low"} <= set(on_grid)
    for name in on_grid:
        assert (theirs[name].value, theirs[name].fingerprint) == (ours[name].value, ours[name].fingerprint), name
    assert abs(theirs["rmse"].value - ours["rmse"].value) <= 0.5 / 255  # type: ignore[operator]
    data = build_dataset(checkpoint.load_generator(record, torch.device("cpu"))[1].data, "test")
    errors = []
    for i, key in enumerate(KEYS):
        picture = np.asarray(Image.open(exported / "reconstruction" / f"{key}.png"), dtype=np.float64)
        errors.append(np.sqrt(((picture - data[i].image) ** 2).mean()) / 255)
    assert theirs["rmse"].value == pytest.approx(np.mean(errors), rel=1e-6)
    assert theirs["psnr"].value == pytest.approx(np.mean([-20 * np.log10(error) for error in errors]), rel=1e-6)
    assert theirs["psnr"].value == pytest.approx(ours["psnr"].value, abs=0.02)
    for name in ("psnr", "ssim", "rmse"):
        assert theirs[name].fingerprint == ours[name].fingerprint
    assert len(external.per_image()) >= 6 * 2


def test_what_needs_the_network_is_not_applicable(made: tuple[Path, RunRecord], exported: Path) -> None:
    out, _ = made
    external = imported(out, "no-network", "--images", str(exported / "reconstruction"))
    rows = trained(external)
    for name in ("attention_miou", "params", "flops_per_image", "latency_ms", "lpips_div_alex", "robust_psnr_area",
                 "robust_ssim_loss_dropped", "robust_psnr_jitter_0.5"):  # fmt: skip
        assert (rows[name].status, rows[name].value) == ("not_applicable", None), name
        assert rows[name].reason == "made by other code: only its pictures are here"
    assert rows["edit_psnr_style_transfer"].status == "not_applicable"
    assert "no picture of" in rows["edit_psnr_style_transfer"].reason


def test_imported_edits_score_as_the_edits_of_the_run(made: tuple[Path, RunRecord], tmp_path: Path) -> None:
    out, record = made
    folder = tmp_path / "exported"
    kinds = "reconstruction,style_transfer,shape_transfer"
    assert main(["export", record.id, "--to", str(folder), "--what", kinds, "--out", str(out)]) == 0
    words = ["edits", "--images", str(folder / "reconstruction"), "--edited", str(folder / "style_transfer")]
    words += [f"shape_transfer={folder / 'shape_transfer'}"]
    external = imported(out, *words)
    ours, theirs = trained(record), trained(external)
    for task in ("style_transfer", "shape_transfer"):
        for metric in ("psnr", "region_error", "style_distance", "outside_change", "mask_agreement"):
            mine, other = (rows[f"edit_{metric}_{task}"] for rows in (ours, theirs))
            assert other.fingerprint == mine.fingerprint and other.n == mine.n, (metric, task)
            assert other.value == pytest.approx(mine.value, abs=0.05 if metric == "psnr" else 2 / 255), (metric, task)
        name = f"edit_mask_agreement_{task}"
        assert theirs[name].value == ours[name].value


def spoilt(exported: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "spoilt"
    shutil.copytree(exported / "reconstruction", folder)
    return folder


def test_a_wrong_folder_is_refused_by_name_and_nothing_is_written(tmp_path: Path, exported: Path) -> None:
    folder = spoilt(exported, tmp_path)
    (folder / f"{KEYS[0]}.png").unlink()
    (folder / f"{KEYS[1]}.png").write_bytes(b"no picture")
    Image.new("L", (16, 16)).save(folder / f"{KEYS[2]}.png")
    Image.new("RGB", (32, 32)).save(folder / f"{KEYS[3]}.png")
    Image.new("RGB", (16, 24)).save(folder / f"{KEYS[4]}.png")
    Image.new("RGB", (16, 16)).save(folder / "cat.png")
    out = tmp_path / "out"
    line = the_line(command("pipeline", "import-images", "theirs", "--images", str(folder), *DATA, "--out", str(out)))
    for said in (
        str(folder), f"no picture of 1 of the 6 samples of the split test of procfaces: {KEYS[0]}", "cat.png",
        f"1 picture cannot be read as pictures: {KEYS[1]}.png", f"1 picture not 8-bit RGB: {KEYS[2]}.png (L)",
        f"1 picture not 16x16 (--resize bicubic brings them to size, and says so): {KEYS[3]}.png (32x32)",
        f"1 picture not of the shape 16x16: {KEYS[4]}.png (16x24)",
    ):  # fmt: skip
        assert said in line
    assert not (out / "runs").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["bad name", "--images", "reconstruction"], ["bad name"]),
        (["theirs", "--images", "nowhere"], ["nowhere", "no such folder"]),
        (["theirs", "--images", "reconstruction", "model=spade"], ["model=spade", "not known here"]),
        (["theirs", "--images", "reconstruction", "data.test_imges=3"], ["data.test_imges", "data.test_images"]),
        (["theirs", "--images", "reconstruction", "--edited", "masks"], ["masks", "TASK=DIR", "style_transfer"]),
        (["theirs", "--images", "reconstruction", "--edited", "a/style_transfer", "b/style_transfer"], ["one a seed"]),
        (["theirs", "--images", "reconstruction", "protocol.split=val"], ["split val", "val000000"]),
    ],
)
def test_an_import_that_cannot_be_is_one_line(
    tmp_path: Path, exported: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str],
    said: list[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(exported)
    assert (
        main(["import-images", *words, *DATA, *(word for word in words if "=" in word), "--out", str(tmp_path / "out")])
        == 2
    )
    line = capsys.readouterr().err
    assert all(part in line for part in said) and line.count("\n") == 1
    assert not (tmp_path / "out" / "runs").exists()


def test_resized_and_jpeg_pictures_say_so(tmp_path: Path, exported: Path, made: tuple[Path, RunRecord]) -> None:
    out, record = made
    folder = tmp_path / "large"
    folder.mkdir()
    for key in KEYS:
        picture = Image.open(exported / "reconstruction" / f"{key}.png").resize((32, 32), Image.Resampling.BICUBIC)
        picture.save(folder / f"{key}.jpg")
    external = imported(out, "large", "--images", str(folder), "--resize", "bicubic")
    ours, theirs = trained(record), trained(external)
    for name in ("psnr", "fd_seg", "seg_miou"):
        assert theirs[name].value is not None and theirs[name].fingerprint != ours[name].fingerprint
        assert (
            "pictures resized from 32x32 by bicubic; 6 pictures are JPEG files, which moves FID" in theirs[name].reason
        )
    other = imported(out, "large", "--images", str(folder), "--resize", "box")
    assert trained(other)["psnr"].fingerprint not in (theirs["psnr"].fingerprint, ours["psnr"].fingerprint)


def test_several_folders_are_several_seeds_and_an_import_is_made_once(tmp_path: Path, exported: Path) -> None:
    second = spoilt(exported, tmp_path)
    Image.new("RGB", (16, 16), (90, 80, 70)).save(second / f"{KEYS[0]}.png")
    out = tmp_path / "out"
    words = [
        "import-images",
        "theirs",
        "--images",
        str(exported / "reconstruction"),
        str(second),
        *DATA,
        "--out",
        str(out),
    ]
    assert main(words) == 0
    store = RunStore(out / "runs")
    records = {store.record(run_id).identity["config"]["seed"]: store.record(run_id) for run_id in store.ids()}
    assert set(records) == {0, 1}
    assert trained(records[0])["psnr"].value != trained(records[1])["psnr"].value
    before = {run_id: (store.record(run_id).path / "metrics.json").stat().st_mtime_ns for run_id in store.ids()}
    assert main(words) == 0
    assert before == {run_id: (store.record(run_id).path / "metrics.json").stat().st_mtime_ns for run_id in store.ids()}


def test_an_interrupted_import_goes_on(tmp_path: Path, exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.runs import external

    words = ["import-images", "theirs", "--images", str(exported / "reconstruction"), *DATA, "--out", str(tmp_path)]
    with monkeypatch.context() as patched:
        patched.setattr(external, "evaluate_record", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        assert main(words) == 130
    (run_id,) = RunStore(tmp_path / "runs").ids()
    record = RunStore(tmp_path / "runs").record(run_id)
    assert record.state == "failed"
    assert main(words) == 0
    assert record.state == "finished" and trained(record)["psnr"].value


def test_an_external_record_evaluates_within_its_split_and_notices_damage(
    tmp_path: Path, exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = imported(tmp_path, "theirs", "--images", str(exported / "reconstruction"))
    capsys.readouterr()
    assert main(["evaluate", record.id, "--protocol", "quick", "--out", str(tmp_path)]) == 2
    assert "no picture of 4 of the 4 images that protocol quick measures on split val" in capsys.readouterr().err
    assert main(["edit", record.id, "--out", str(tmp_path), "--task", "reconstruct"]) == 0
    assert main(["edit", record.id, "--out", str(tmp_path), "--task", "shape_transfer"]) == 2
    assert "only its pictures are here" in capsys.readouterr().err
    Image.new("RGB", (16, 16)).save(record.path / "pictures" / "reconstruction" / f"{KEYS[1]}.png")
    assert main(["edit", record.id, "--out", str(tmp_path), "--task", "reconstruct"]) == 2
    assert f"{KEYS[1]}.png is damaged" in capsys.readouterr().err
    assert main(["export", record.id, "--to", str(tmp_path / "x"), "--out", str(tmp_path)]) == 2
    assert "made by other code" in capsys.readouterr().err


def test_the_commands_of_the_page_are_commands() -> None:
    page = (Path(__file__).parents[2] / "docs" / "exchange.md").read_text()
    lines = [
        line
        for block in re.findall(r"^```sh\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
        for line in block.splitlines()
    ]
    own = [shlex.split(line, comments=True)[3:] for line in lines if line.startswith("python -m pipeline")]
    assert [parser().parse_args(words).func.__module__ for words in own] == [
        "pipeline.commands.export", "pipeline.commands.import_images", *["pipeline.commands.share"] * 4,
    ]  # fmt: skip
    others = [line for line in lines if line and not line.startswith("python -m pipeline")]
    assert all(line.startswith(("python -m ablations run STUDY", "python -m analysis table STUDY")) for line in others)

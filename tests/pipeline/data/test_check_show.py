"""The doctor finds what is wrong and says where; contact sheets; the commands and their exit statuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.__main__ import main
from pipeline.data import build_dataset
from pipeline.data.check import Report, check
from pipeline.data.prepare import prepare
from pipeline.data.show import contact_sheet
from pipeline.data.transforms import mirror
from pipeline.data.types import Sample
from tests.pipeline.data.samples import data_config, face, realdata, write_folder, write_g_mask, write_merged


def kinds(report: Report) -> dict[str, str]:
    return {finding.kind: finding.severity for finding in report.findings}


def test_a_sound_set_is_healthy(tmp_path: Path) -> None:
    report = check(write_folder(tmp_path / "set", 4))
    assert report.healthy and report.samples == 4
    assert set(kinds(report).values()) <= {"note"}
    assert report.classes["hair"]["pixels"] == sum(int((face(i, 48)[1] == 13).sum()) for i in range(4))


def test_every_illness_is_found_and_names_its_files(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "set", 12)
    images, labels = root / "images", root / "labels"
    (labels / "face0.png").unlink()
    (images / "face1.png").unlink()
    (images / "face2.png").write_bytes((images / "face2.png").read_bytes()[:-600])
    (labels / "face3.png").write_text("no image")
    Image.fromarray(np.full((48, 48), 99, dtype=np.uint8)).save(labels / "face4.png")
    Image.fromarray(np.full((48, 48), 1, dtype=np.uint8)).save(labels / "face5.png")
    Image.fromarray(np.zeros((48, 96), dtype=np.uint8)).save(labels / "face6.png")
    _, label = face(7, 48)
    Image.fromarray(label[:, ::-1]).save(labels / "face7.png")  # mirrored without exchanging the sides
    Image.fromarray(face(8, 48)[0]).save(images / "face8.png", format="JPEG")
    Image.fromarray(face(9, 48)[0]).convert("L").save(images / "face9.png")
    (images / "face11.png").write_bytes((images / "face10.png").read_bytes())
    report = check(root, workers=2)
    found = kinds(report)
    assert not report.healthy
    expected = {
        "unpaired": "error", "unreadable": "error", "ids_out_of_range": "error", "single_class": "warning",
        "shape_mismatch": "error", "sides_swapped": "warning", "wrong_extension": "warning", "converted": "note",
        "duplicates": "note",
    }  # fmt: skip
    assert {kind: found.get(kind) for kind in expected} == expected
    files = {f.kind: " ".join(Path(name).name for name in f.files) for f in report.findings if f.kind != "unpaired"}
    assert files["unreadable"] == "face2.png face3.png"
    assert (files["ids_out_of_range"], files["shape_mismatch"]) == ("face4.png", "face6.png")
    assert files["single_class"] == "face5.png face6.png"
    assert (files["sides_swapped"], files["wrong_extension"]) == ("face7.png", "face8.png")
    assert files["duplicates"] == "face10.png face11.png"
    unpaired = {Path(n).name for f in report.findings if f.kind == "unpaired" for n in f.files}
    assert unpaired == {"face0.png", "face1.png"}
    assert all(finding.advice for finding in report.findings)
    severities = [finding.severity for finding in report.findings]
    assert severities == sorted(severities, key=["error", "warning", "note"].index)


def test_duplicates_across_the_roots_own_split_are_an_error(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "set", 4)
    for part, numbers in (("train", (0, 1)), ("val", (2, 3))):
        for kind in ("images", "labels"):
            (root / kind / part).mkdir()
            for number in numbers:
                (root / kind / f"face{number}.png").rename(root / kind / part / f"face{number}.png")
    assert "duplicates_across_splits" not in kinds(check(root))
    (root / "images" / "train" / "face0.png").write_bytes((root / "images" / "val" / "face2.png").read_bytes())
    assert kinds(check(root))["duplicates_across_splits"] == "error"


def test_files_of_one_name_in_two_parts_are_all_looked_at(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "set", 4)
    for part in ("train", "val"):
        for kind in ("images", "labels"):
            (root / kind / part).mkdir()
            for number, file in enumerate(sorted((root / kind).glob("*.png"))[:2]):
                file.rename(root / kind / part / f"{number}.png")
    assert check(root).samples == 4 and check(root).healthy
    dataset = build_dataset(data_config("folder", root=str(root), split="holdout"), "train")
    assert len(set(dataset.keys)) == len(dataset.keys) and dataset.keys[0].partition("_")[0] in ("train", "val")
    shutil.copy(root / "images" / "train" / "0.png", root / "images" / "val" / "0.png")
    assert kinds(check(root))["duplicates_across_splits"] == "error"
    Image.fromarray(np.full((48, 48), 77, dtype=np.uint8)).save(root / "labels" / "train" / "1.png")
    (finding,) = [found for found in check(root).findings if found.kind == "ids_out_of_range"]
    assert [Path(name).parts[-2:] for name in finding.files] == [("train", "1.png")]


def test_other_label_order_is_a_finding(tmp_path: Path) -> None:
    root = write_g_mask(tmp_path / "set", [0, 1, 2])
    report = check(root)
    assert kinds(report)["label_order"] == "error" and report.data == "celebamask_hq"
    assert "label_order" not in kinds(check(root, space_name="celebamask_hq_g_mask"))


def test_prepared_files_that_changed(tmp_path: Path) -> None:
    prepare("folder", write_folder(tmp_path / "raw", 3), tmp_path / "root", space_name="classes_file", workers=1)
    assert check(tmp_path / "root").healthy
    Image.fromarray(np.ones((48, 48), dtype=np.uint8)).save(tmp_path / "root" / "labels" / "face1.png")
    report = check(tmp_path / "root")
    (finding,) = [f for f in report.findings if f.kind == "changed_since_prepared"]
    assert [Path(name).name for name in finding.files] == ["face1.png"]


@pytest.mark.parametrize("name", ["celebamask_hq", "coco_stuff", "cityscapes", "deepfashion"])
def test_real_samples_are_healthy(name: str) -> None:
    report = check(realdata(name))
    assert report.healthy and report.data == name and "sides_swapped" not in kinds(report)


def test_contact_sheet_shows_photo_map_and_overlay() -> None:
    from pipeline.data.label_spaces import label_space

    space = label_space("celebamask_hq")
    image, label = face(0, 64)
    sample = Sample(image, label, "zero", None)
    sheet = np.asarray(contact_sheet([sample, mirror(sample, space)], space))
    top, left = 8 + 16, 8
    assert np.array_equal(sheet[top : top + 64, left : left + 64], image)
    assert np.array_equal(sheet[top : top + 64, left + 72 : left + 136], space.colours(label))
    legend = sheet[top + 2 * 88 - 16 :].reshape(-1, 3)
    assert all((legend == space.palette[int(k)]).all(1).any() for k in np.unique(label))


# -------------------------------------------------------------------------------------------------------- commands


def test_prepare_check_show_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw, root = write_merged(tmp_path / "raw", [0, 1, 2, 3]), tmp_path / "root"
    assert main(["data", "prepare", "celebamask_hq", "--from", str(raw), "--to", str(root)]) == 0
    out = capsys.readouterr().out
    assert (
        "4 samples (4 prepared now, 0 ready before)" in out and "split holdout (default): 3 train, 1 val, 1 test" in out
    )
    assert main(["data", "check", str(root), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["data"], report["samples"], report["healthy"]) == ("celebamask_hq", 4, True)
    sheet = tmp_path / "sheet.png"
    assert main(["data", "show", str(root), "--count", "2", "--size", "64", "--to", str(sheet)]) == 0
    assert "2 samples of celebamask_hq, split train" in capsys.readouterr().out
    assert Image.open(sheet).size[0] >= 3 * 64
    assert main(["data", "show", "procfaces", "--size", "32", "--to", str(sheet)]) == 0


def test_speed_command_measures_every_cache(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = str(write_folder(tmp_path / "set", 6))
    options = ["--size", "16", "--images", "4", "--batch-size", "2", "--seconds", "1"]
    assert main(["data", "speed", root, *options]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [row[0] for row in rows] == ["cache", "none", "memory", "mapped"]
    speeds = {row[0]: float(row[1]) for row in rows[1:]}
    assert speeds["memory"] > speeds["none"] > 0


def test_check_exits_1_on_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_folder(tmp_path / "set", 3)
    (root / "labels" / "face1.png").unlink()
    assert main(["data", "check", str(root)]) == 1
    out = capsys.readouterr().out
    assert "ERROR" in out and "face1.png" in out and out.endswith("errors were found\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "nowhere"], "nowhere: no such folder"),
        (["show", "nowhere"], "nowhere: no such folder"),
        (["prepare", "celebamask", "--from", "a", "--to", "b"], "did you mean celebamask_hq"),
        (["prepare", "coco_stuff", "--from", "nowhere", "--to", "b"], "--from nowhere: no such folder"),
        (
            ["prepare", "coco_stuff", "--from", "nowhere", "--to", "b", "--workers", "0"],
            "'0' is not a number of at least 1",
        ),
        (["show", "procfaces", "--count", "x"], "'x' is not a number"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["data", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error
    assert not list(tmp_path.iterdir())

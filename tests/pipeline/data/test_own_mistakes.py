"""Your own photos: mistakes are one line that names the file, and nothing is guessed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from pipeline.__main__ import main
from pipeline.data.adapters.photos import classes_file_space
from pipeline.errors import UserError
from tests.pipeline.data.own_files import (
    run,
    write_coco,
    write_coloured,
    write_labelme,
    write_matlab,
)


def test_matlab_files_without_a_key_are_recognised(tmp_path: Path) -> None:
    raw = write_matlab(tmp_path / "raw", 3)
    with pytest.raises(UserError, match=r"annotations: holds MATLAB files; say .* with --mat-key NAME"):
        run(raw, tmp_path / "root", images="photos", labels="annotations")


def test_what_is_missing_is_said_by_what_lies_there(tmp_path: Path) -> None:
    raw = write_labelme(tmp_path / "raw", 2)
    with pytest.raises(UserError, match=r"labels: no such .*; images/ holds LabelMe files: --labels images$"):
        run(raw, tmp_path / "root")
    (raw / "images").rename(raw / "labels")
    with pytest.raises(UserError, match=r"images: no such folder; give it with --images \(found: labels\)"):
        run(raw, tmp_path / "root")
    coco = write_coco(tmp_path / "coco")
    for part in ("train", "valid"):  # two files of one name must not hide what is missing
        (coco / "images" / part).mkdir()
        (coco / "images" / part / "all.json").write_bytes((coco / "instances.json").read_bytes())
    with pytest.raises(
        UserError, match=r"labels: no such .*; images/ holds a COCO file: --labels images/train/all\.json$"
    ):
        run(coco, tmp_path / "root")
    raw = write_coloured(tmp_path / "coloured", 2)
    with pytest.raises(UserError, match=r"nothing says what the ids mean; give --classes FILE, or --palette FILE"):
        run(raw, tmp_path / "root")
    (raw / "labels" / "notes.json").write_text("{}")
    with pytest.raises(UserError, match=r"labels: holds 2 label maps and 1 JSON files; move those away"):
        run(raw, tmp_path / "root")


def test_a_class_that_the_palette_lacks_is_not_taken_for_blur(tmp_path: Path) -> None:
    raw = write_coloured(tmp_path / "raw", 2)
    rows = (raw / "colours.csv").read_text().splitlines()
    (raw / "colours.csv").write_text("\n".join(rows[:-1]) + "\n")
    with pytest.raises(UserError, match=r"1 colour is not in the palette: .* pixels\); add it$"):
        run(raw, tmp_path / "root", palette=raw / "colours.csv")


def test_coco_photos_of_one_name_are_refused(tmp_path: Path) -> None:
    raw = write_coco(tmp_path / "raw")
    content = json.loads((raw / "instances.json").read_text())
    first = content["images"][0]
    content["images"].append({**first, "id": 999, "file_name": f"elsewhere/{first['file_name']}"})
    (raw / "instances.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"{first['file_name']} and elsewhere/{first['file_name']} are of one name"):
        run(raw, tmp_path / "root", labels="instances.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sky\n\nroad\n", "line 2: is empty"),
        ("sky\nroad\nsky\n", "line 3: 'sky' stands there twice"),
        ("\n", "no names"),
    ],
)
def test_classes_that_would_move_to_other_ids_are_refused(text: str, message: str, tmp_path: Path) -> None:
    """By both who read `classes.txt`: `data prepare` with options, and a folder that is used as it lies."""
    raw = write_matlab(tmp_path / "raw", 3)
    (raw / "classes.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        run(raw, tmp_path / "root", images="photos", labels="annotations", mat_key="groundtruth")
    with pytest.raises(UserError, match=message):
        classes_file_space(raw)


MISTAKES: list[tuple[list[str], str]] = [
    (["--palette", "{raw}/none.csv"], "--palette {raw}/none.csv: cannot be read (No such file or directory)"),
    (["--palette", "{raw}/names.csv"], "has no column name (did you mean nome?); its first line must be name,red,green,blue"),
    (["--palette", "{raw}/bad.csv"], "--palette {raw}/bad.csv, line 2, green: '300' is not a whole number from 0 to 255"),
    (["--palette", "{raw}/twice.csv"], "the colour (1, 2, 3) stands there twice"),
    (["--palette", "{raw}/colours.csv", "--merge", "{raw}/merge.csv"], "there is no class 'cars' (did you mean car?)"),
    (["--palette", "{raw}/colours.csv", "--mat-key", "x"], "--palette and --mat-key: label maps are colours or MATLAB files"),
    (["--images", "photos"], "photos: no such folder; give it with --images (found: bad.csv, colours.csv, images"),
    (["--labels", "maps"], "maps: no such folder or file; give it with --labels"),
    (["--labels", "colours.csv"], "colours.csv: cannot be read as a COCO file"),
    (["--classes", "{raw}/names.csv"], "has no column id"),
    (["--mat-key", "groundtruth"], "nothing says what the ids mean; give --classes FILE"),
    (["--merge", "{raw}/merge.csv"], "give --classes FILE, or --palette FILE for label maps in colours"),
    (["--palette", "{raw}/colours.csv", "--tolerance", "256"], "'256' is not a number from 0 to 255"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "message"), MISTAKES)
def test_mistakes_are_one_line_that_names_the_file(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = write_coloured(tmp_path / "raw", 2)
    (raw / "names.csv").write_text("nome,x\na,b\n")
    (raw / "bad.csv").write_text("name,red,green,blue\nsky,1,300,1\n")
    (raw / "twice.csv").write_text("name,red,green,blue\nsky,1,2,3\nroad,1,2,3\n")
    (raw / "merge.csv").write_text("from,to\ncars,vehicle\n")
    options = [option.format(raw=raw) for option in options]
    assert main(["data", "prepare", "folder", "--from", str(raw), "--to", str(tmp_path / "root"), *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message.format(raw=raw) in error
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"groundtruths": np.ones((32, 48))}, r"has no variable groundtruth \(did you mean groundtruths\?\)"),
        (
            {"groundtruth": np.full((32, 48), 0.5)},
            r"groundtruth is float64 \(32, 48\); it must be a matrix of class ids",
        ),
        ({"groundtruth": np.ones((32, 48, 3))}, r"it must be a matrix of class ids"),
        (None, r"cannot be read as a MATLAB file"),
    ],
)
def test_matlab_files_that_hold_no_ids_are_refused(content: Any, message: str, tmp_path: Path) -> None:
    raw = write_matlab(tmp_path / "raw", 2)
    path = raw / "annotations" / "street_0.mat"
    path.write_text("text") if content is None else savemat(path, content)
    layout = {"images": "photos", "labels": "annotations", "mat_key": "groundtruth", "classes": raw / "names.txt"}
    with pytest.raises(UserError, match=rf"1 of 2 samples cannot be prepared: .*street_0\.mat: .*{message}"):
        run(raw, tmp_path / "root", **layout)


def test_outlines_that_cover_nothing_and_classes_nobody_named_are_refused(tmp_path: Path) -> None:
    raw = write_labelme(tmp_path / "raw", 2)
    path = raw / "images" / "street_0.json"
    content = json.loads(path.read_text())
    content["shapes"].append({"label": "car", "points": [[3, 3]], "shape_type": "point"})
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"street_0\.json: a point of 1 points covers no area"):
        run(raw, tmp_path / "root", labels="images")
    (raw / "names.txt").write_text("sky\nroads\ncar\n")
    with pytest.raises(UserError, match=r"street_1\.json: 'road' is not one of the classes \(did you mean roads\?\)"):
        run(raw, tmp_path / "root", labels="images", classes=raw / "names.txt")


def test_options_of_folders_belong_to_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = write_coloured(tmp_path / "raw", 2)
    arguments = ["data", "prepare", "ade20k", "--from", str(raw), "--to", str(tmp_path / "root"), "--images", "photos"]
    assert main(arguments) == 2
    assert "belong to `data prepare folder`, not to ade20k" in capsys.readouterr().err

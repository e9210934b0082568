"""Your own photos: label maps as people have them, and the walk of docs/data.md carried out on small made files of each kind."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ablations.commands import build_parser as studies_parser
from analysis.__main__ import main as analysis_main
from pipeline.__main__ import main
from pipeline.cli import run_main
from pipeline.data.adapters.photos import classes_file_space
from pipeline.data.check import check
from pipeline.data.prepare import prepare
from pipeline.data.prepare.own import read_classes
from pipeline.errors import UserError
from tests.pipeline.data.own_files import (
    SHORT,
    run,
    scene,
    write_coco,
    write_coloured,
    write_labelme,
    write_matlab,
)
from tests.pipeline.data.samples import ROOT, write_folder


def labels(root: Path) -> dict[str, np.ndarray]:
    return {path.stem: np.asarray(Image.open(path)) for path in (root / "labels").iterdir()}


def classes(root: Path) -> list[str]:
    assert (root / "classes.txt").read_text().splitlines() == json.loads((root / "manifest.json").read_text())[
        "classes"
    ]
    return (root / "classes.txt").read_text().splitlines()


def test_colours_become_the_ids_of_the_palette(tmp_path: Path) -> None:
    raw = write_coloured(tmp_path / "raw", 4)
    root = run(raw, tmp_path / "root", palette=raw / "colours.csv").root
    assert classes(root) == ["sky", "road", "car"]
    found = labels(root)
    assert len(found) == 4 and all(np.array_equal(found[f"street_{n}"], scene(n)) for n in range(4))
    assert check(root).healthy


def test_colours_that_are_not_in_the_palette_are_named_and_can_be_tolerated(tmp_path: Path) -> None:
    raw = write_coloured(tmp_path / "raw", 3)
    path = raw / "labels" / "street_1.png"
    pixels = np.asarray(Image.open(path)).copy()
    pixels[0, :5] = (73, 128, 181)
    Image.fromarray(pixels).save(path)
    with pytest.raises(
        UserError,
        match=r"street_1\.png: 1 colour is not in the palette: \(73, 128, 181\) \(5 pixels\); add it, or allow --tolerance 3",
    ):
        run(raw, tmp_path / "root", palette=raw / "colours.csv")
    root = run(raw, tmp_path / "root", palette=raw / "colours.csv", tolerance=3).root
    assert np.array_equal(labels(root)["street_1"], scene(1))


def test_several_colours_of_one_class_are_one_class(tmp_path: Path) -> None:
    raw = write_coloured(tmp_path / "raw", 3)
    (raw / "colours.csv").write_text("name, red, green, blue\nground,128,64,128\nsky,70,130,180\nground,0,0,142\n")
    root = run(raw, tmp_path / "root", palette=raw / "colours.csv").root
    assert classes(root) == ["ground", "sky"]
    assert np.array_equal(labels(root)["street_0"], np.where(scene(0) == 0, 1, 0))


def test_matlab_maps_are_read_by_their_key_and_classes_merged(tmp_path: Path) -> None:
    raw = write_matlab(tmp_path / "raw")
    layout = {"images": "photos", "labels": "annotations", "mat_key": "groundtruth", "classes": raw / "names.txt"}
    plain = run(raw, tmp_path / "plain", **layout).root
    assert classes(plain) == ["nothing", "sky", "road", "car", "lorry"]
    assert np.array_equal(labels(plain)["street_0"], scene(0) + 1)
    merged = run(raw, tmp_path / "merged", **layout, merge=raw / "merge.csv").root
    assert classes(merged) == ["sky", "road", "vehicle"]
    assert all(np.array_equal(labels(merged)[f"street_{n}"], scene(n)) for n in range(6))


def test_ids_with_gaps_are_named_by_a_table(tmp_path: Path) -> None:
    raw = write_matlab(tmp_path / "raw", 3)
    (raw / "ids.csv").write_text("id,name\n3,car\n1,sky\n2,road\n")
    layout = {"images": "photos", "labels": "annotations", "mat_key": "groundtruth", "classes": raw / "ids.csv"}
    root = run(raw, tmp_path / "root", **layout).root
    assert classes(root) == ["sky", "road", "car"] and np.array_equal(labels(root)["street_2"], scene(2))
    (raw / "ids.csv").write_text("id,name\n1,sky\n2,road\n")
    with pytest.raises(UserError, match=r"street_0\.mat: label ids 3 are not ids of folder \(allowed: 1\.\.2\)"):
        run(raw, tmp_path / "less", **layout)


def test_labelme_shapes_are_painted_in_their_order(tmp_path: Path) -> None:
    raw = write_labelme(tmp_path / "raw")
    root = run(raw, tmp_path / "root", labels="images").root
    assert classes(root) == ["background", "car", "road", "sky"]
    expected = np.array([3, 2, 1])
    assert all(np.array_equal(labels(root)[f"street_{n}"], expected[scene(n)]) for n in range(6))


def test_outlines_in_the_usual_folder_name_their_own_classes(tmp_path: Path) -> None:
    raw = write_labelme(tmp_path / "raw", 2)
    (raw / "labels").mkdir()
    for outlines in (raw / "images").glob("*.json"):
        outlines.rename(raw / "labels" / outlines.name)
    assert classes(run(raw, tmp_path / "root").root) == ["background", "car", "road", "sky"]
    (raw / "classes.txt").write_text("sky\nroad\ncar\nbackground\n")
    assert classes(run(raw, tmp_path / "named").root) == ["sky", "road", "car", "background"], (
        "their order, where it is given"
    )


def test_a_circle_covers_its_area_and_the_rest_is_unknown_where_the_classes_say_so(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    (raw / "images").mkdir(parents=True)
    for number in range(2):
        Image.new("RGB", (64, 64)).save(raw / "images" / f"{number}.jpg")
        shapes = [{"label": "ball", "points": [[32, 32], [32, 12]], "shape_type": "circle"}]
        content = {"shapes": shapes, "imageHeight": 64, "imageWidth": 64}
        (raw / "images" / f"{number}.json").write_text(json.dumps(content))
    (raw / "names.txt").write_text("ball\nunknown\n")
    root = run(raw, tmp_path / "root", labels="images", classes=raw / "names.txt").root
    ball = labels(root)["0"] == 0
    assert classes(root) == ["ball", "unknown"] and abs(ball.sum() - np.pi * 400) < 30 and ball[32, 32]


def test_coco_objects_larger_first_whatever_their_order(tmp_path: Path) -> None:
    raw = write_coco(tmp_path / "raw")
    root = run(raw, tmp_path / "root", labels="instances.json").root
    assert classes(root) == ["background", "road", "car"]
    assert all(np.array_equal(labels(root)[f"{v}_{n}"], scene(n)) for v in ("north", "south") for n in range(4))


def test_a_mark_before_the_first_letter_is_no_part_of_the_first_class(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("unknown\ntree\n\n", encoding="utf-8-sig")  # as Notepad saves it
    space = classes_file_space(tmp_path)
    assert space.classes == ("unknown", "tree") and space.unknown == 0
    assert read_classes(tmp_path / "classes.txt") == {0: "unknown", 1: "tree"}


def test_a_palette_that_changed_is_read_again_and_the_same_one_is_not(tmp_path: Path) -> None:
    raw = write_coloured(tmp_path / "raw", 4)
    first = run(raw, tmp_path / "root", palette=raw / "colours.csv")
    again = run(raw, tmp_path / "root", palette=raw / "colours.csv")
    assert (again.reused, again.manifest_sha256) == (4, first.manifest_sha256)
    rows = (raw / "colours.csv").read_text().splitlines()
    (raw / "colours.csv").write_text("\n".join([rows[0], *reversed(rows[1:])]) + "\n")
    other = run(raw, tmp_path / "root", palette=raw / "colours.csv")
    assert other.reused == 0 and classes(other.root) == ["car", "road", "sky"]
    assert np.array_equal(labels(other.root)["street_0"], 2 - scene(0))


def test_without_options_a_folder_is_prepared_as_ever(tmp_path: Path) -> None:
    raw = write_folder(tmp_path / "raw", 4)
    plain = prepare("folder", raw, tmp_path / "plain", space_name="classes_file", workers=1)
    said = run(raw, tmp_path / "said")
    assert plain.manifest_sha256 == said.manifest_sha256
    merge = tmp_path / "merge.csv"
    merge.write_text("from,to\nl_eye,eyes\nr_eye,eyes\n")
    merged = run(raw, tmp_path / "merged", merge=merge)
    assert len(classes(merged.root)) == 18 and "eyes" in classes(merged.root)


# -------------------------------------------------------------------------------------------------------- the walk


def walk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands of the section, made files of every kind that they name, and their folder as the current one."""
    page = (ROOT / "docs" / "data.md").read_text()
    section = page.split("\n## Your own photos\n")[1].split("\n## ")[0]
    blocks = re.findall(r"^```sh\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line and not line.startswith("#")]
    monkeypatch.chdir(tmp_path)
    write_coloured(tmp_path / "coloured")
    write_matlab(tmp_path / "matlab")
    write_labelme(tmp_path / "labelme")
    write_coco(tmp_path / "coco")
    write_folder(tmp_path / "ids", 6)
    return [shlex.split(line)[2:] for line in lines]


def test_the_walk_prepares_every_kind_and_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands = [words for words in walk(tmp_path, monkeypatch) if words[0] == "pipeline"]
    kinds = [words[words.index("--from") + 1] for words in commands if words[2] == "prepare"]
    assert kinds == ["coloured", "matlab", "labelme", "coco", "ids"]
    for room, *words in commands:
        assert room == "pipeline"
        assert main(words + (list(SHORT) if words[0] == "train" else [])) == 0, (words, capsys.readouterr())
    for kind in kinds:
        assert check(tmp_path / "data" / kind).healthy
    assert classes(tmp_path / "data" / "matlab") == ["sky", "road", "vehicle"]
    assert json.loads((tmp_path / "data" / "coco" / "manifest.json").read_text())["default_split"] == "group"
    assert (tmp_path / "out" / "data" / "coloured.png").is_file()


@pytest.mark.slow
def test_the_walk_ends_at_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for room, *words in walk(tmp_path, monkeypatch):
        if room == "pipeline" and words[:2] == ["data", "prepare"] and "coloured" in words:
            assert main(words) == 0
        elif room == "ablations":
            assert (
                run_main(
                    studies_parser(), [*words, "--set", *(key for key in SHORT if not key.startswith("protocol="))]
                )
                == 0
            ), capsys.readouterr()
        elif room == "analysis":
            capsys.readouterr()
            assert analysis_main(words) == 0
    table = capsys.readouterr().out
    assert "PSNR" in table and "ca2sis" in table.lower()

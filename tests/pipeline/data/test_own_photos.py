"""Your own photos: label maps as people have them, and the walk of docs/data.md carried out on small made files of each kind."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from ablations.commands import build_parser as studies_parser
from analysis.__main__ import main as analysis_main
from pipeline.__main__ import main
from pipeline.cli import run_main
from pipeline.data.adapters.photos import classes_file_space
from pipeline.data.check import check
from pipeline.data.prepare import OwnLayout, Prepared, prepare
from pipeline.data.prepare.own import read_classes
from pipeline.errors import UserError
from tests.pipeline.data.samples import ROOT, write_folder

COLOURS = {"sky": (70, 130, 180), "road": (128, 64, 128), "car": (0, 0, 142)}
SHORT = (
    "size=16", "train.iterations=2", "train.batch_size=2", "train.validate_every=2", "train.validate_images=1",
    "protocol=quick", "tracking.mode=disabled",
)  # fmt: skip


def scene(number: int, width: int = 48, height: int = 32) -> np.ndarray:
    """(H,W) ids: sky (0) above road (1), a car (2) on it where `number` is even; of many sizes."""
    width += 16 * (number % 3)
    ids = np.ones((height, width), dtype=np.uint8)
    ids[: height // 2] = 0
    if number % 2 == 0:
        ids[20:28, 10:26] = 2
    return ids


def photo_of(ids: np.ndarray, number: int) -> Image.Image:
    noise = np.random.default_rng(number).integers(0, 60, (*ids.shape, 3))
    base = np.array([[150, 190, 230], [90, 90, 90], [170, 30, 30]])[ids]
    return Image.fromarray(np.clip(base + noise, 0, 255).astype(np.uint8))


def write_photos(folder: Path, count: int, name: str = "street_{}") -> list[tuple[str, np.ndarray]]:
    folder.mkdir(parents=True)
    found = []
    for number in range(count):
        ids = scene(number)
        photo_of(ids, number).save(folder / f"{name.format(number)}.png")
        found.append((name.format(number), ids))
    return found


def write_coloured(root: Path, count: int = 12) -> Path:
    for name, ids in write_photos(root / "images", count):
        (root / "labels").mkdir(exist_ok=True)
        Image.fromarray(np.array(list(COLOURS.values()), dtype=np.uint8)[ids]).save(root / "labels" / f"{name}.png")
    rows = [f"{name},{','.join(map(str, colour))}" for name, colour in COLOURS.items()]
    (root / "colours.csv").write_text("name,red,green,blue\n" + "\n".join(rows) + "\n")
    return root


def write_matlab(root: Path, count: int = 6) -> Path:
    """Ids from 1, as MATLAB counts; `lorry` never occurs and goes to `vehicle` with `car`."""
    for name, ids in write_photos(root / "photos", count):
        (root / "annotations").mkdir(exist_ok=True)
        savemat(root / "annotations" / f"{name}.mat", {"groundtruth": ids + 1.0, "author": "nobody"})
    (root / "names.txt").write_text("nothing\nsky\nroad\ncar\nlorry\n")
    (root / "merge.csv").write_text("from,to\ncar,vehicle\nlorry,vehicle\nnothing,sky\n")
    return root


def outline(top: float, left: float, bottom: float, right: float) -> list[list[float]]:
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def write_labelme(root: Path, count: int = 6) -> Path:
    for number, (name, ids) in enumerate(write_photos(root / "images", count)):
        height, width = ids.shape
        shapes = [
            {"label": "sky", "points": outline(0, 0, 16, width), "shape_type": "polygon"},
            {"label": "road", "points": [[0, 16], [width, height]], "shape_type": "rectangle"},
        ]
        if number % 2 == 0:
            shapes.append({"label": "car", "points": outline(20, 10, 28, 26), "shape_type": "polygon"})
        content = {"shapes": shapes, "imagePath": f"{name}.png", "imageHeight": height, "imageWidth": width}
        (root / "images" / f"{name}.json").write_text(json.dumps(content))
    return root


def write_coco(root: Path, count: int = 8) -> Path:
    """Two videos; the road reaches over the car's place and is written after it, but is larger."""
    images, annotations = [], []
    photos = write_photos(root / "images", count // 2, "north_{}")
    for number in range(count // 2):
        ids = scene(number)
        photo_of(ids, 50 + number).save(root / "images" / f"south_{number}.png")
        photos.append((f"south_{number}", ids))
    for number, (name, ids) in enumerate(photos):
        height, width = ids.shape
        images.append({"id": number, "file_name": f"{name}.png", "height": height, "width": width})
        boxes = [(9, (20, 10, 28, 26))] if (ids == 2).any() else []
        for category, (top, left, bottom, right) in [*boxes, (4, (16, 0, height, width))]:
            flat = [value for point in outline(top, left, bottom, right) for value in point]
            annotations.append({
                "id": len(annotations) + 1, "image_id": number, "category_id": category, "iscrowd": 0,
                "segmentation": [flat], "area": (bottom - top) * (right - left), "bbox": [left, top, right - left, bottom - top],
            })  # fmt: skip
    categories = [{"id": 4, "name": "road"}, {"id": 9, "name": "car"}]
    (root / "instances.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    return root


def run(source: Path, target: Path, **layout: Any) -> Prepared:
    return prepare("folder", source, target, space_name="classes_file", workers=1, layout=OwnLayout(**layout))


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


def test_matlab_files_without_a_key_are_recognised(tmp_path: Path) -> None:
    raw = write_matlab(tmp_path / "raw", 3)
    with pytest.raises(UserError, match=r"annotations: holds MATLAB files; say .* with --mat-key NAME"):
        run(raw, tmp_path / "root", images="photos", labels="annotations")


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

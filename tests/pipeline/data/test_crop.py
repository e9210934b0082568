"""Nothing is cut away unseen: shares in closed form, the aspect a manifest proposes, and who says it where."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.__main__ import main
from pipeline.config import compose, resolve
from pipeline.data import build_dataset, data_fingerprint
from pipeline.data.check import check
from pipeline.data.crop import cropping, cut_away, usual_aspect
from pipeline.data.files import FileDataset
from pipeline.data.prepare import prepare
from pipeline.data.reading import photo_size
from tests.pipeline.data.samples import data_config, face, write_folder


def write_portraits(root: Path, count: int, size: tuple[int, int] = (48, 72)) -> Path:
    """images + labels + classes.txt of `size` (width, height): a red bar above and below a face."""
    write_folder(root, count, size[0])
    for index in range(count):
        image, label = face(index, size[0])
        bar = (size[1] - size[0]) // 2
        tall = np.pad(image, ((bar, bar), (0, 0), (0, 0)))
        tall[:bar, :, 0] = tall[-bar:, :, 0] = 255
        Image.fromarray(tall).save(root / "images" / f"face{index}.png")
        Image.fromarray(np.pad(label, ((bar, bar), (0, 0)))).save(root / "labels" / f"face{index}.png")
    return root


def prepared(tmp_path: Path, count: int = 6, size: tuple[int, int] = (48, 72)) -> Path:
    raw = write_portraits(tmp_path / "raw", count, size)
    return prepare("folder", raw, tmp_path / "root", space_name="classes_file", workers=1).root


def test_a_square_out_of_two_by_three_drops_a_third() -> None:
    assert cut_away([(200, 300)], 1.0, "cover") == pytest.approx(1 / 3)
    assert cut_away([(200, 300), (100, 100)], 1.0, "cover") == pytest.approx(1 / 6)
    assert cut_away([(400, 300)], 2 / 3, "cover") == pytest.approx(0.5)
    assert cut_away([(200, 300)], 1.0, "stretch") == 0.0
    assert cut_away([(200, 300)], 2 / 3, "cover") == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("sizes", "aspect"),
    [
        ([(200, 300)], 2 / 3),
        ([(192, 144)], 1.25),  # 4:3, to quarters of the short side
        ([(1920, 1080)], 1.75),
        ([(100, 103)], 1.0),
        ([(100, 1000)], 0.25),
        ([(200, 300)] * 3 + [(900, 100)] * 2, 2 / 3),
    ],
)
def test_the_usual_aspect_is_the_median_photo_s_in_quarters(sizes: list[tuple[int, int]], aspect: float) -> None:
    assert usual_aspect(sizes) == pytest.approx(aspect)


def test_what_is_said_names_the_share_and_the_better_aspect() -> None:
    assert cropping([(200, 300)], 1.0, "cover") == (
        "data.aspect=1 cuts away 33 % of the photos (all but their middle); data.aspect=0.6667 would cut away nothing"
    )
    assert cropping([(200, 300)], 2 / 3, "cover") == "data.aspect=0.6667 keeps the photos whole"
    assert cropping([(200, 300)], 1.0, "stretch") == ""


def test_the_manifest_proposes_and_the_config_follows_unless_it_is_set(tmp_path: Path) -> None:
    root = prepared(tmp_path)
    assert json.loads((root / "manifest.json").read_text())["aspect"] == pytest.approx(2 / 3)
    base = ["data=folder", f"data.root={root}"]
    assert compose(base).data.hw == (48, 32)
    assert compose([*base, "data.aspect=1.0"]).data.hw == (32, 32)
    assert compose([*base, "size=64"]).data.hw == (96, 64)
    assert resolve(base).run_id == resolve([*base, f"data.aspect={2 / 3}"]).run_id


def test_data_without_a_proposal_are_what_they_were(tmp_path: Path) -> None:
    """Not prepared, prepared before, and square photos: aspect 1, and a manifest without a word of it."""
    raw = write_portraits(tmp_path / "raw", 4)
    assert compose(["data=folder", f"data.root={raw}"]).data.aspect == 1.0
    assert compose(["data=folder"]).data.aspect == 1.0
    root = prepare("folder", raw, tmp_path / "root", space_name="classes_file", workers=1).root
    path = root / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["aspect"]
    path.write_text(json.dumps(manifest))
    cfg = compose(["data=folder", f"data.root={root}"]).data
    assert cfg.aspect == 1.0 and data_fingerprint(cfg)["description"]["settings"]["aspect"] == 1.0
    square = prepare(
        "folder", write_folder(tmp_path / "square", 3), tmp_path / "of_squares", space_name="classes_file", workers=1
    )
    assert "aspect" not in json.loads((square.root / "manifest.json").read_text())
    assert square.cropping == ("data.aspect=1 keeps the photos whole",)


def test_prepare_and_check_and_show_say_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw, root = write_portraits(tmp_path / "raw", 4), tmp_path / "root"
    assert main(["data", "prepare", "folder", "--from", str(raw), "--to", str(root)]) == 0
    out = capsys.readouterr().out
    assert "data.aspect=0.6667 keeps the photos whole (default)" in out
    assert "data.aspect=1 cuts away 33 % of the photos" in out
    (finding,) = [one for one in check(raw).findings if one.kind == "cropped"]
    assert finding.severity == "warning" and "cuts away 33 %" in finding.message
    assert "cropped" not in {one.kind for one in check(root).findings}
    sheet = str(tmp_path / "sheet.png")
    assert main(["data", "show", str(raw), "--size", "32", "--to", sheet]) == 0
    assert "data.aspect=1 cuts away 33 %" in capsys.readouterr().out
    assert main(["data", "show", str(raw), "--size", "32", "--aspect", "0.6667", "--to", sheet]) == 0
    assert "keeps the photos whole" in capsys.readouterr().out
    assert main(["data", "show", str(raw), "--aspect", "20", "--to", sheet]) == 2


def test_the_sheet_shows_the_whole_photo_with_what_is_lost_dimmed(tmp_path: Path) -> None:
    raw = write_portraits(tmp_path / "raw", 2)
    dataset = build_dataset(data_config("folder", root=str(raw), aspect=1.0, split="share"), "train")
    assert isinstance(dataset, FileDataset)
    whole = dataset.whole(0, 72)
    assert whole.shape == (72, 48, 3)
    assert whole[2, 24].tolist() == [89, 0, 0] and whole[-3, 24].tolist() == [89, 0, 0]  # 0.35 x 255, cut away
    assert np.array_equal(whole[12:60], face(0, 48)[0])
    sheet = tmp_path / "sheet.png"
    assert main(["data", "show", str(raw), "--size", "32", "--count", "1", "--to", str(sheet)]) == 0
    picture = np.asarray(Image.open(sheet))
    assert picture[8 + 16 + 1, 8 + 10].tolist() == [89, 0, 0], "the first column, its dimmed bar above"
    assert not (picture[8 + 16 + 1, 8 + 21 + 8 + 16] == [255, 0, 0]).all(), "the second column is what the network sees"


def test_upright_size_of_a_turned_photo(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(tmp_path / "turned.jpg", exif=exif)
    assert photo_size(tmp_path / "turned.jpg") == (20, 40)


def test_the_first_line_of_a_run_says_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = write_portraits(tmp_path / "raw", 10)
    run = ["train", "model=painter", "protocol=quick", "protocol.groups=[reconstruction]", "tracking.mode=disabled"]
    assert main([*run, "data=folder", f"data.root={raw}", "--out", str(tmp_path / "out")]) == 0
    first = capsys.readouterr().err.splitlines()[0]
    assert first == (
        "data: data.aspect=1 cuts away 33 % of the photos (all but their middle); data.aspect=0.6667 would cut away nothing"
    )

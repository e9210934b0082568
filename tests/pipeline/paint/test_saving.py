"""A saved picture, and `python -m pipeline edit --from` it: the same pixels, or a plain word that they are not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.__main__ import main
from pipeline.schema.painting import Painting
from tests.pipeline.paint.conftest import Served
from tests.pipeline.paint.scenes import ask, body, unpacked
from tests.pipeline.paint.scenes import pictures as drawn
from tests.pipeline.tiny import command

SIDE, HAT = 16, 14


def saved(served: Served) -> tuple[Path, dict[str, object]]:
    """(painting.json, answer to the same scene): a hat over a sample, mixed from two photos."""
    label = np.zeros((SIDE, SIDE), dtype=np.uint8)
    label[4:] = 1
    label[:5, 3:13] = HAT
    scene = ask(label, styles=("sample:0", "sample:2"), towards=1, position=0.3, classes={"hat": 1})
    status, data, _ = served.ask("save", body(scene))
    assert status == 200, data
    answer = drawn(served, scene)
    return Path(json.loads(data)["path"]), answer


def test_a_save_holds_all_and_repeats_bit_for_bit(served: Served) -> None:
    path, answer = saved(served)
    painting = Painting.model_validate_json(path.read_text())
    names = [picture.file for picture in painting.pictures]
    assert names == [f"ca2sis_{served.runs[0].id[:10]}.png", f"sean_{served.runs[1].id[:10]}.png"]
    for name, shown in zip(names, answer["pictures"], strict=True):  # type: ignore[call-overload]
        assert np.array_equal(np.asarray(Image.open(path.parent / name)), unpacked(shown["pixels"], SIDE, SIDE, 3))
    label = Image.open(path.parent / "label.png")
    assert label.mode == "P" and (np.asarray(label)[0, 3:13] == HAT).all(), "ids a data set's own file would have"
    made = command("pipeline", "edit", "--from", str(path), "--out", str(served.out))
    assert made.returncode == 0, made.stderr
    assert made.stdout.count("bit for bit as saved") == 2
    folder = served.out / "edits" / "repeated" / path.parent.name
    for name in names:
        assert np.array_equal(np.asarray(Image.open(folder / name)), np.asarray(Image.open(path.parent / name)))


def again(served: Served, path: Path) -> int:
    """Exit status of `python -m pipeline edit --from path`."""
    return main(["edit", "--from", str(path), "--out", str(served.out)])


def test_a_changed_painting_does_not_pass_for_the_saved_one(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    path, _ = saved(served)
    label = np.asarray(Image.open(path.parent / "label.png")).copy()
    label[10:] = HAT
    Image.fromarray(label).save(path.parent / "label.png")
    assert again(served, path) == 1
    said = capsys.readouterr()
    assert said.out.count("DIFFERS from what was saved") == 2 and "made with torch" in said.err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 2}, "format"),
        ({"label": "../../etc/passwd"}, "label"),
        ({"label": "absent.png"}, "absent.png: label map is missing"),
        ({"threads": 0}, "threads"),
        ({"colour": "red"}, "colour"),
        ({"ids": {"skin": 1}}, "recipe: classes names hat"),
    ],
)
def test_a_painting_that_is_none_is_refused_with_file_and_key(
    served: Served, capsys: pytest.CaptureFixture[str], change: dict[str, object], said: str
) -> None:
    path, _ = saved(served)
    changed = path.with_name("changed.json")
    changed.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert again(served, changed) == 2
    line = capsys.readouterr().err
    assert line.startswith("error: ") and line.count("\n") == 1 and said in line


def test_a_painting_of_another_size_or_other_classes_is_refused(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    path, _ = saved(served)
    Image.new("L", (8, 8)).save(path.parent / "label.png")
    assert again(served, path) == 2
    assert "label.png is 8x8 (height x width); the run draws 16x16" in capsys.readouterr().err
    painting = json.loads(path.read_text())
    painting["ids"]["beard"] = painting["ids"].pop("neck")
    path.write_text(json.dumps(painting))
    assert again(served, path) == 2
    assert "trained on other classes than ids names" in capsys.readouterr().err


def test_a_run_or_a_painting_and_not_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in ((), ("abc", "--from", "x.json")):
        assert main(["edit", *words, "--out", str(tmp_path)]) == 2
        assert "--from FILE" in capsys.readouterr().err

"""A data set of twenty lines, added as docs/adding_a_data_set.md says, is checked, shown, trained on and told in the record."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline import config
from pipeline.__main__ import main
from pipeline.data import adapters, label_spaces
from pipeline.data.adapters.pairing import pair
from pipeline.data.label_spaces import LabelSpace, label_space, make_space
from pipeline.data.listing import Listing
from pipeline.records import RunStore
from pipeline.schema import data as schema
from tests.pipeline.test_toy_family import forget
from tests.pipeline.tiny import TINY

# --- the data set: label space, adapter, three rows of registration, YAML row --------------------------------------------


def shapes() -> LabelSpace:
    return make_space("shapes", ("ground", "disc", "left_bar", "right_bar"))


def find(root: Path, space: LabelSpace) -> Listing:
    """`drawings/<name>_rgb.png` + `drawings/<name>_ids.png`."""
    parts = pair(root / "drawings", root / "drawings", label_ending="_ids", photo_ending="_rgb")
    return Listing("drawings", {"": parts}, space)


ROW = (config.CONF / "data" / "folder.yaml").read_text()
ROW = ROW.replace("name: folder", "name: sketches").replace("label_space: classes_file", "label_space: shapes")

# --- the test ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The toy registered, its YAML row among the others, and ten drawings of it."""
    conf = tmp_path / "conf"
    shutil.copytree(config.CONF, conf)
    (conf / "data" / "sketches.yaml").write_text(ROW)
    monkeypatch.setattr(config, "CONF", conf)
    monkeypatch.setitem(label_spaces.SPACES, "shapes", shapes)
    monkeypatch.setitem(adapters.FINDERS, "sketches", find)
    monkeypatch.setitem(adapters.CLUES, "sketches", ("drawings",))
    monkeypatch.setitem(schema.SPACES_OF, "sketches", ("shapes",))
    folder = tmp_path / "root" / "drawings"
    folder.mkdir(parents=True)
    colours = np.array([(240, 240, 240), (200, 30, 30), (30, 30, 200), (30, 160, 30)], dtype=np.uint8)
    for number in range(10):
        ids = np.zeros((24, 24), dtype=np.uint8)
        ids[4:12, 2 + number : 8 + number] = 1
        ids[14:, :4], ids[14:, 20:] = 2, 3
        Image.fromarray(ids).save(folder / f"{number}_ids.png")
        Image.fromarray(colours[ids]).save(folder / f"{number}_rgb.png")
    forget()
    yield tmp_path / "root"
    label_space.cache_clear()
    forget()


def test_from_folder_to_record(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(root)]) == 0
    assert "sketches" in capsys.readouterr().out
    out = tmp_path / "out"
    sizes = [override for override in TINY if not override.startswith("data.")]
    assert (
        main(["train", "--out", str(out), "preset=tiny", "model=spade", "data=sketches", f"data.root={root}", *sizes])
        == 0
    )
    record = RunStore(out / "runs").record(RunStore(out / "runs").ids()[0])
    assert record.state == "finished"
    assert record.provenance["data"]["class_names"] == ["ground", "disc", "left_bar", "right_bar"]
    assert record.provenance["data"]["summary"].startswith("sketches 16x16")
    assert {row.name for row in record.metrics if row.status == "ok"} >= {"psnr", "rmse"}


def test_a_name_that_is_not_registered_is_refused_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "data.name=cityscape"]) == 2
    assert "data.name is 'cityscape'" in (said := capsys.readouterr().err) and "cityscapes" in said

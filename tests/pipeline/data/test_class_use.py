"""Rare classes, classes that a split lacks, maps of a single class: said beforehand, and no obstacle to a run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.__main__ import main
from pipeline.data.check import Finding, check
from pipeline.data.class_use import lacking, rare
from pipeline.records import RunStore
from tests.pipeline.data.samples import write_folder

CLASSES = ("ground", "tree", "kite", "boat", "never", "unknown")


def write_uneven(root: Path) -> Path:
    """Ten photos in parts: a kite in one training photo, a boat in the test photos alone, three maps of a single class."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 6), ("val", 2), ("test", 2)):
        for kind in ("images", "labels"):
            (root / kind / part).mkdir(parents=True)
        for number in range(count):
            label = np.zeros((24, 24), dtype=np.uint8)
            if not (part == "train" and number >= 4):  # two maps are all ground
                label[4:12, 4:20] = 1
            if (part, number) == ("train", 0):
                label[0:3, 0:3] = 2
            if part == "test":
                label[16:22, 6:18] = 3
            if (part, number) == ("val", 1):
                label[:] = 5  # nobody has drawn anything
            pixels = np.clip(40 * label[..., None] + rng.integers(0, 60, (24, 24, 3)), 0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(root / "images" / part / f"{part}{number}.png")
            Image.fromarray(label).save(root / "labels" / part / f"{part}{number}.png")
    (root / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    return root


def found(root: Path) -> dict[str, Finding]:
    return {finding.kind: finding for finding in check(root).findings}


def test_what_a_split_lacks() -> None:
    classes_of = {"a": ("sky", "car"), "b": ("sky",), "c": ("sky", "boat"), "d": ("sky",)}
    splits = {"train": ["a", "b"], "val": ["d"], "test": ["c"]}
    assert lacking(classes_of, splits) == {"train": ["boat"], "val": ["boat", "car"], "test": ["car"]}
    assert lacking(classes_of, {"train": ["a", "c"], "test": ["c", "a"]}) == {}


def test_rare_classes_are_counted_in_images_and_absent_ones_are_not_rare() -> None:
    assert rare({"hat": 1, "scarf": 4, "bag": 5}, ("bag", "hat", "scarf", "tie")) == [
        "hat (1 image)",
        "scarf (4 images)",
    ]


def test_check_says_what_splits_lack_and_what_is_rare(tmp_path: Path) -> None:
    findings = found(write_uneven(tmp_path / "set"))
    absent = findings["classes_absent_from_split"]
    assert absent.severity == "warning", "training lacks a class"
    assert absent.message == "classes that a split lacks: train: boat, unknown; val: boat, kite; test: kite, unknown"
    assert "kite (1 image), boat (2 images)" in findings["rare_classes"].message
    assert findings["single_class"].severity == "warning" and len(findings["single_class"].files) == 3
    assert findings["classes_never_seen"].message.endswith(": never")
    assert "classes_absent_from_split" not in found(write_folder(tmp_path / "faces", 2))


def test_prepare_says_it_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = write_uneven(tmp_path / "raw")
    assert main(["data", "prepare", "folder", "--from", str(raw), "--to", str(tmp_path / "root")]) == 0
    assert "classes that a split lacks: train: boat, unknown; val: boat, kite" in capsys.readouterr().out


def test_a_run_on_such_data_ends_with_numbers_and_says_what_has_none(tmp_path: Path) -> None:
    root = write_uneven(tmp_path / "set")
    overrides = [
        "size=16", "train.iterations=2", "train.batch_size=2", "train.validate_every=2", "tracking.mode=disabled",
        "protocol=standard", "protocol.segmenter.iterations=2", "protocol.distribution.bootstrap=0",
        "protocol.groups=[reconstruction,attention,semantic,distribution,editing,robustness]", "data=folder",
    ]  # fmt: skip
    assert main(["train", *overrides, f"data.root={root}", "--out", str(tmp_path / "out")]) == 0
    store = RunStore(tmp_path / "out" / "runs")
    (record,) = (store.record(run_id) for run_id in store.ids())
    rows = {row.name: row for row in record.metrics if row.state == "trained"}
    assert record.state == "finished"
    for name in ("psnr", "seg_miou", "attention_miou", "fd_seg", "robust_psnr_area"):
        assert rows[name].status == "ok" and np.isfinite(rows[name].value or np.nan), rows[name]
    assert all(row.status == "ok" or row.reason for row in rows.values())
    json.dumps([row.value for row in rows.values()], allow_nan=False)

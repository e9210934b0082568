"""`data prepare` again: idempotent, resumed after a kill, other settings into the same root, never a manifest over other files."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.data import build_dataset
from pipeline.data.check import check
from pipeline.data.prepare import sample as sample_module
from pipeline.errors import UserError
from pipeline.identity import canonical_digest
from pipeline.records.atomic import exclusive_lock
from tests.pipeline.data.samples import (
    ROOT,
    data_config,
    face,
    write_folder,
)
from tests.pipeline.data.samples import prepared as run


def test_again_does_nothing_and_changes_follow(tmp_path: Path) -> None:
    raw, root = write_folder(tmp_path / "raw", 6), tmp_path / "root"
    first = run("folder", raw, root)
    times = {p: p.stat().st_mtime_ns for p in (root / "labels").iterdir()}
    again = run("folder", raw, root)
    assert (again.reused, again.manifest_sha256) == (6, first.manifest_sha256)
    assert {p: p.stat().st_mtime_ns for p in (root / "labels").iterdir()} == times
    (root / "labels" / "face3.png").unlink()
    image, _ = face(50, 48)
    Image.fromarray(image).save(raw / "images" / "face1.png")
    for kind in ("images", "labels"):
        (raw / kind / "face5.png").unlink()
    changed = run("folder", raw, root)
    assert (changed.samples, changed.reused) == (5, 3) and changed.manifest_sha256 != first.manifest_sha256
    assert not (root / "photos" / "face5.png").exists()
    assert changed.manifest_sha256 == run("folder", raw, tmp_path / "fresh", workers=1).manifest_sha256


def test_killed_and_run_again_gives_the_undisturbed_manifest(tmp_path: Path) -> None:
    raw, root = write_folder(tmp_path / "raw", 60, size=160), tmp_path / "root"
    command = [sys.executable, "-m", "pipeline", "data", "prepare", "folder", "--from", str(raw), "--to", str(root)]
    process = subprocess.Popen([*command, "--workers", "1"], cwd=ROOT, stderr=subprocess.DEVNULL)
    journal = root / ".prepare" / "journal.jsonl"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and (not journal.exists() or journal.read_bytes().count(b"\n") < 5):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (root / "manifest.json").exists(), "the machine was too fast: nothing was interrupted"
    with journal.open("ab") as stream:
        stream.write(b'{"key": "face7", "samp')  # a line cut off by the kill
    again = run("folder", raw, root)
    assert 5 <= again.reused < 60
    assert again.manifest_sha256 == run("folder", raw, tmp_path / "undisturbed").manifest_sha256
    assert not (root / ".prepare" / "scratch").exists()
    for kind in ("photos", "labels"):
        ours, theirs = (
            {p.name: p.read_bytes() for p in (r / kind).iterdir()} for r in (root, tmp_path / "undisturbed")
        )
        assert ours == theirs


def test_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw, root = write_folder(tmp_path / "raw", 6), tmp_path / "root"
    calls: list[Path] = []
    place = sample_module._place

    def fill_up(data: bytes, path: Path, scratch: Path) -> None:
        calls.append(path)
        if len(calls) > 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        place(data, path, scratch)

    monkeypatch.setattr(sample_module, "_place", fill_up)
    with pytest.raises(UserError, match="no space left on device; free some space and run again"):
        run("folder", raw, root, workers=1)
    monkeypatch.undo()
    assert not (root / "manifest.json").exists()
    for path in [*(root / "photos").iterdir(), *(root / "labels").iterdir()]:
        with Image.open(path) as picture:
            picture.load()
    result = run("folder", raw, root)
    assert result.reused >= 2 and result.manifest_sha256 == run("folder", raw, tmp_path / "other").manifest_sha256


def test_two_prepares_at_once(tmp_path: Path) -> None:
    raw, root = write_folder(tmp_path / "raw", 2), tmp_path / "root"
    with (
        exclusive_lock(root / ".prepare" / "lock"),
        pytest.raises(UserError, match="another prepare is writing into it"),
    ):
        run("folder", raw, root)
    assert run("folder", raw, root).samples == 2


def merging(tmp_path: Path) -> Path:
    """Hair counts as skin."""
    merge = tmp_path / "merge.csv"
    merge.write_text("from,to\nhair,skin\n")
    return merge


def test_a_root_prepared_otherwise_in_between_is_prepared_anew(tmp_path: Path) -> None:
    """Its label maps were overwritten: what the journal says of the first time no longer lies there."""
    raw, root = write_folder(tmp_path / "raw", 4), tmp_path / "root"
    first = run("folder", raw, root)
    before = {path.name: path.read_bytes() for path in (root / "labels").iterdir()}
    assert run("folder", raw, root, merge=merging(tmp_path)).manifest_sha256 != first.manifest_sha256
    again = run("folder", raw, root)
    assert (again.reused, again.manifest_sha256) == (0, first.manifest_sha256)
    assert {path.name: path.read_bytes() for path in (root / "labels").iterdir()} == before
    assert check(root).healthy


def test_a_preparation_that_ends_in_the_middle_leaves_no_manifest_over_other_files(tmp_path: Path) -> None:
    raw, root = write_folder(tmp_path / "raw", 4), tmp_path / "root"
    run("folder", raw, root)
    good = (raw / "labels" / "face3.png").read_bytes()
    (raw / "labels" / "face3.png").write_bytes(b"broken")
    with pytest.raises(UserError, match=r"1 of 4 samples cannot be prepared: .*face3\.png"):
        run("folder", raw, root, merge=merging(tmp_path))
    for ask in (lambda: build_dataset(data_config("folder", root=str(root)), "train"), lambda: check(root)):
        with pytest.raises(UserError, match="has not finished it; run the same command again, what is done is kept"):
            ask()
    (raw / "labels" / "face3.png").write_bytes(good)
    again = run("folder", raw, root, merge=merging(tmp_path))
    assert again.reused == 3
    assert again.manifest_sha256 == run("folder", raw, tmp_path / "fresh", merge=merging(tmp_path)).manifest_sha256


def test_a_root_of_other_photos_is_not_overwritten(tmp_path: Path) -> None:
    root = tmp_path / "root"
    first = run("folder", write_folder(tmp_path / "raw", 3), root)
    with pytest.raises(UserError, match="was prepared from other photos; give another folder, or remove it first"):
        run("folder", write_folder(tmp_path / "other", 3, size=64), root)
    assert check(root).healthy and run("folder", tmp_path / "raw", root).manifest_sha256 == first.manifest_sha256


def test_photos_that_are_added_leave_the_manifest_until_the_next_one_is_whole(tmp_path: Path) -> None:
    raw, root = write_folder(tmp_path / "raw", 4), tmp_path / "root"
    first = run("folder", raw, root)
    (raw / "images" / "new.png").write_bytes((raw / "images" / "face0.png").read_bytes())
    (raw / "labels" / "new.png").write_bytes(b"broken")
    with pytest.raises(UserError, match="1 of 5 samples cannot be prepared"):
        run("folder", raw, root)
    assert canonical_digest(json.loads((root / "manifest.json").read_text())) == first.manifest_sha256
    assert check(root).healthy


def test_classes_of_other_names_are_counted_anew(tmp_path: Path) -> None:
    raw, root = write_folder(tmp_path / "raw", 3), tmp_path / "root"
    run("folder", raw, root)
    names = (raw / "classes.txt").read_text().splitlines()
    names[1], names[13] = names[13], "fringe"
    (raw / "classes.txt").write_text("\n".join(names))
    again = run("folder", raw, root)
    assert again.manifest_sha256 == run("folder", raw, tmp_path / "fresh").manifest_sha256
    histogram = json.loads((root / "manifest.json").read_text())["histogram"]
    counts = np.bincount(np.concatenate([np.asarray(Image.open(p)).ravel() for p in (root / "labels").iterdir()]))
    assert (histogram[names[1]]["pixels"], histogram["fringe"]["pixels"]) == (counts[1], counts[13])

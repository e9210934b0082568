"""Weight files: wrong, truncated and misshapen ones are refused; right ones are found where they should be."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pipeline import weights
from pipeline.__main__ import main
from pipeline.config import choices
from pipeline.errors import UserError
from pipeline.weights import FILES, WeightsMissing, check_all, fetch, find, load_tensors


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a file of the right shapes, known by its true digest; an empty hub cache."""
    folder = tmp_path / "weights"
    folder.mkdir()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    path = folder / FILES["alexnet"].filename
    torch.save({name: torch.zeros(shape) for name, shape in FILES["alexnet"].shapes}, path)
    known = replace(FILES["alexnet"], sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setitem(weights.FILES, "alexnet", known)
    return folder


def test_a_good_file_loads_and_brings_its_digest(local: Path) -> None:
    tensors, digest = load_tensors("alexnet", str(local))
    assert tensors["features.0.weight"].shape == (64, 3, 11, 11)
    assert digest == FILES["alexnet"].sha256


def test_the_named_folder_comes_before_the_hub_cache(local: Path) -> None:
    assert find(FILES["alexnet"], None) is None
    cache = weights.hub_folder()
    cache.mkdir(parents=True)
    (cache / FILES["alexnet"].filename).write_bytes(b"other")
    assert find(FILES["alexnet"], str(local)) == local / FILES["alexnet"].filename
    with pytest.raises(WeightsMissing, match="refused"):
        load_tensors("alexnet", None)


def test_a_truncated_file_is_refused(local: Path) -> None:
    path = local / FILES["alexnet"].filename
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsMissing, match="refused: its sha256 starts with"):
        load_tensors("alexnet", str(local))


def test_the_doctor_tells_what_is_absent_from_what_is_wrong(
    local: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 3, 5}, raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)  # as with a driver too old: counted, and not available
    assert main(["doctor", "--out", str(local)]) == 0
    lines = capsys.readouterr().out.splitlines()
    (inception,) = [line for line in lines if "weights inception" in line]
    assert inception.startswith(
        "absent  weights inception: needed by fid, kid_x1000; get it with `python -m pipeline weights fetch"
    )
    assert "ok      weights dists: for dists, which lack weights vgg16" in lines
    assert sum(line.startswith("ok      model ") for line in lines) == len(choices("model"))
    (device,) = [line for line in lines if " device: " in line]
    assert device.startswith("ok      device: cpu: ") and ", 3 cores for this process, " in device
    assert not any(line.startswith("PROBLEM") for line in lines)
    cache = weights.hub_folder()
    cache.mkdir(parents=True)
    (cache / FILES["alexnet"].filename).write_bytes(b"cut off")
    assert main(["doctor", "--out", str(local)]) == 1
    assert "PROBLEM weights alexnet: " in capsys.readouterr().out


def test_a_file_that_nobody_may_read_is_refused(local: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(weights, "file_digest", forbidden)
    with pytest.raises(WeightsMissing, match=r"refused: it cannot be read \(.*ermission denied"):
        load_tensors("alexnet", str(local))


def test_wrong_shapes_and_unreadable_content_are_refused(local: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = local / FILES["alexnet"].filename
    for content, message in ((None, "has shape"), (b"no tensors", "cannot be read as tensors")):
        if content is None:
            torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, path)
        else:
            path.write_bytes(content)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        monkeypatch.setitem(weights.FILES, "alexnet", replace(FILES["alexnet"], sha256=digest))
        with pytest.raises(WeightsMissing, match=message):
            load_tensors("alexnet", str(local))


def test_what_ships_with_packages_is_what_the_digests_say() -> None:
    states = {check.file.name: check.state for check in check_all(None)}
    assert {states[name] for name in ("lpips_alex", "lpips_vgg", "dists")} == {"ok"}


def test_fetch_verifies_before_it_keeps(local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = local / FILES["alexnet"].filename
    monkeypatch.setitem(weights.FILES, "alexnet", replace(FILES["alexnet"], url=source.as_uri()))
    seen: list[int] = []
    target = tmp_path / "new"
    path = fetch("alexnet", target, lambda done, total: seen.append(done))
    assert path.read_bytes() == source.read_bytes() and seen[-1] == source.stat().st_size
    path.unlink()
    monkeypatch.setitem(weights.FILES, "alexnet", replace(FILES["alexnet"], sha256="0" * 64))
    with pytest.raises(UserError, match="nothing was kept"):
        fetch("alexnet", target, lambda done, total: None)
    assert list(target.iterdir()) == []
    with pytest.raises(UserError, match="unknown weights"):
        fetch("alexnett", target, lambda done, total: None)


def test_the_command_lists_checks_and_refuses(local: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "list", "--dir", str(local)]) == 0
    listing = capsys.readouterr().out
    assert "lpips_recon_alex" in listing and "inception-2015-12-05.pt" in listing and "alexnet: ok" in listing
    assert main(["weights", "check", "--dir", str(local)]) == 0
    (local / FILES["alexnet"].filename).write_bytes(b"truncated")
    assert main(["weights", "check", "--dir", str(local)]) == 2
    assert "refused" in capsys.readouterr().out
    assert main(["weights", "fetch", "nothing", "--dir", str(local)]) == 2
    assert "unknown weights nothing" in capsys.readouterr().err

"""Archives from somebody who means harm: refused in one line, before anything is written or run."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from pipeline.__main__ import main
from pipeline.records import RunRecord


class Bomb:
    """Executes when it is unpickled."""

    def __reduce__(self) -> Any:
        return (Path.touch, (Path("executed"),))


def members_of(archive: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(archive) as packed:
        return {name: packed.read(name) for name in packed.namelist() if name != "pack.json"}


def forged(
    file: Path,
    run_id: str,
    members: dict[str, bytes],
    *,
    listed: bool = True,
    without: Any = None,
    change: Callable[[zipfile.ZipInfo], None] | None = None,
    compress: int = zipfile.ZIP_STORED,
) -> Path:
    """An archive as an attacker would write it: every digest in its list is right."""
    facts = {name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in members.items()}
    with zipfile.ZipFile(file, "w") as packed:
        for name, data in members.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = compress
            if change is not None:
                change(info)
            packed.writestr(info, data)
        if listed:
            left_out = {} if without is None else {"without": without}
            packed.writestr("pack.json", json.dumps({"format": 1, "run": run_id, "files": facts, **left_out}))
    return file


def refused(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """Unpack in a folder that holds nothing else; nothing may be left or executed."""
    inner = tmp_path / "deep" / "inner"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    before = set(tmp_path.rglob("*"))
    assert main(["unpack", str(file), "--out", "out"]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and "Traceback" not in line
    left = {path for path in tmp_path.rglob("*") if path.is_file()} - before
    assert left == set(), left
    assert not (inner / "out" / "runs").exists()
    return line


@pytest.mark.parametrize(
    "name",
    ["../evil", "record/../../evil.json", "/tmp/evil", "record\\..\\evil", "C:/evil", "record/samples/../../../evil.png",
     "record/samples/x/..", "evil.py", "record/evil.sh", "record/checkpoints/final.pt", "record/samples/a/b/c.png"],
)  # fmt: skip
def test_a_path_that_leads_elsewhere_is_refused(
    record: RunRecord, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:  # fmt: skip
    file = forged(tmp_path / "x.zip", record.id, {**members_of(archive), name: b"evil"})
    line = refused(file, tmp_path, monkeypatch, capsys)
    assert "is refused: member" in line


def link(info: zipfile.ZipInfo) -> None:
    if info.filename == "README.md":
        info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16


def device(info: zipfile.ZipInfo) -> None:
    if info.filename == "README.md":
        info.create_system, info.external_attr = 3, (stat.S_IFCHR | 0o777) << 16


@pytest.mark.parametrize("change", [link, device])
def test_links_and_devices_are_refused(
    record: RunRecord, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    change: Callable[[zipfile.ZipInfo], None],
) -> None:  # fmt: skip
    file = forged(tmp_path / "x.zip", record.id, members_of(archive), change=change)
    assert "link or no plain file" in refused(file, tmp_path, monkeypatch, capsys)


def test_a_bomb_is_refused_before_it_is_unpacked(
    record: RunRecord,
    archive: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    members = {**members_of(archive), "record/history.jsonl": b"\0" * 50_000_000}
    file = forged(tmp_path / "x.zip", record.id, members, compress=zipfile.ZIP_DEFLATED)
    assert file.stat().st_size < 10_000_000
    assert "it is compressed" in refused(file, tmp_path, monkeypatch, capsys)


def test_members_that_overlap_or_lie_about_their_size_are_refused(
    record: RunRecord,
    archive: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A directory whose entries all point at one stored member: small outside, large inside."""
    file = forged(tmp_path / "x.zip", record.id, {"README.md": b"x" * 100_000})
    data = file.read_bytes()
    start = data.index(b"PK\x01\x02")
    (size,) = {len(b"README.md")}
    entry = data[start : start + 46 + size]
    names = [f"record/samples/s/{number:03d}.png".encode() for number in range(200)]
    entries = [entry[:28] + len(name).to_bytes(2, "little") + entry[30:46] + name for name in names]
    directory = b"".join([entry, *entries])
    end = b"PK\x05\x06" + b"\0" * 4 + (len(names) + 1).to_bytes(2, "little") * 2
    end += len(directory).to_bytes(4, "little") + start.to_bytes(4, "little") + b"\0\0"
    file.write_bytes(data[:start] + directory + end)
    assert "is refused" in refused(file, tmp_path, monkeypatch, capsys)


def test_what_is_no_archive_or_lists_other_content_is_refused(
    record: RunRecord,
    archive: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    members = members_of(archive)
    (tmp_path / "text.zip").write_bytes(b"PK\x03\x04 nothing")
    (tmp_path / "cut.zip").write_bytes(archive.read_bytes()[:-40])
    swapped = bytearray(archive.read_bytes())
    at = swapped.index(members["weights.safetensors"][-64:])
    swapped[at] ^= 1
    (tmp_path / "swapped.zip").write_bytes(bytes(swapped))
    files = [tmp_path / "text.zip", tmp_path / "cut.zip", tmp_path / "swapped.zip", tmp_path / "nowhere.zip"]
    files.append(forged(tmp_path / "unlisted.zip", record.id, members, listed=False))
    files.append(forged(tmp_path / "other_id.zip", "0" * 64, members))
    files.append(forged(tmp_path / "without_numbers.zip", record.id, members, without=["numbers"]))
    files.append(forged(tmp_path / "without_nothing.zip", record.id, members, without="weights"))
    for number, file in enumerate(files):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert file.name in refused(file, folder, monkeypatch, capsys)


def changed(members: dict[str, bytes], name: str, change: Callable[[Any], Any]) -> dict[str, bytes]:
    """Members with the JSON or YAML file `name` changed."""
    parse: Callable[[bytes], Any] = json.loads if name.endswith(".json") else yaml.safe_load
    value = change(parse(members[f"record/{name}"]))
    return {**members, f"record/{name}": json.dumps(value).encode()}


def reading_elsewhere(index: Any) -> Any:
    """A list of pictures that leads a report to pictures of the reader's own."""
    index["items"][0]["files"]["output"] = "../../../../../holiday.png"
    return index


def with_(value: dict[str, Any], **updates: Any) -> dict[str, Any]:
    return {**value, **updates}


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda m: {**m, "weights.safetensors": pickle.dumps(Bomb())}, "no safetensors file"),
        (lambda m: {**m, "record/access.npz": npz_of_objects()}, "access.npz"),
        (lambda m: {**m, "record/per_image.parquet": pickle.dumps(Bomb())}, "per_image.parquet"),
        (lambda m: {**m, "record/config.yaml": b"!!python/object/apply:os.system ['touch executed']"}, "config.yaml"),
        (lambda m: {**m, "record/config.yaml": b"a: &a [1]\nb: [*a, *a]\n"}, "aliases"),
        (lambda m: {**m, "record/metrics.json": b"[" * 200_000}, "not valid JSON"),
        (lambda m: changed(m, "config.yaml", lambda c: with_(c, seed=4)), "another run's"),
        (lambda m: changed(m, "config.yaml", lambda c: with_(c, seeed=4)), "seeed"),
        (lambda m: changed(m, "status.json", lambda s: with_(s, state="running")), "finished"),
        (lambda m: changed(m, "status.json", lambda s: with_(s, kind="external")), "do not agree"),
        (lambda m: changed(m, "provenance.json", lambda p: with_(p, data={})), "provenance.json"),
        (
            lambda m: changed(m, "provenance.json", lambda p: with_(p, data=with_(p["data"], class_names=["a"] * 20))),
            "weights",
        ),
        (lambda m: changed(m, "metrics.json", lambda d: with_(d, rows=[{"name": "psnr"}])), "metrics.json"),
        (lambda m: {**m, "record/history.jsonl": b"[" * 100_000}, "history.jsonl is refused"),
        (lambda m: {**m, "record/history.jsonl": b'{"iteration": "x"}'}, "history.jsonl"),
        (lambda m: changed(m, "samples/quick/index.json", reading_elsewhere), "names a picture that is not beside it"),
        (lambda m: changed(m, "provenance.json", lambda p: with_(p, protocols=[])), "provenance.json"),
        (lambda m: {name: data for name, data in m.items() if name != "weights.safetensors"}, "no weights"),
        (
            lambda m: {name: data for name, data in m.items() if name != "record/metrics.json"},
            "metrics.json is missing",
        ),
        (lambda m: {**m, "weights.safetensors": m["weights.safetensors"][:-8]}, "safetensors"),
    ],
)
def test_content_that_executes_or_is_another_runs_is_refused(
    record: RunRecord, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    spoil: Callable[[dict[str, bytes]], dict[str, bytes]], said: str,
) -> None:  # fmt: skip
    file = forged(tmp_path / "x.zip", record.id, spoil(members_of(archive)))
    assert said in refused(file, tmp_path, monkeypatch, capsys)
    assert not list(tmp_path.rglob("executed"))


def npz_of_objects() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=True, table=np.array([Bomb()], dtype=object))
    return stream.getvalue()


def test_a_config_that_reaches_for_files_of_this_machine_loses_them(
    record: RunRecord, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What does not enter the identity could be forged: a segmenter to be executed, weights, a tracker to report to."""

    def reach(config: Any) -> Any:
        segmenter = with_(config["protocol"]["segmenter"], external="/evil.pt")
        protocol = with_(config["protocol"], segmenter=segmenter, weights_dir="/evil")
        tracking = with_(config["tracking"], mode="online", entity="evil")
        return with_(
            config, protocol=protocol, tracking=tracking, data=with_(config["data"], root="/evil", cache_root="/evil")
        )

    file = forged(tmp_path / "x.zip", record.id, changed(members_of(archive), "config.yaml", reach))
    assert main(["unpack", str(file), "--out", str(tmp_path / "out")]) == 0
    text = (tmp_path / "out" / "runs" / record.id / "config.yaml").read_text()
    assert "evil" not in text and "online" not in text

"""A run as a file: the round trip through the real commands, and archives from somebody who means harm."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import shutil
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from pipeline.__main__ import main
from pipeline.records import RunRecord, RunStore, atomic
from pipeline.runs import checkpoint
from tests.pipeline.test_commands import the_line
from tests.pipeline.tiny import command, run


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    return run(tmp_path_factory.mktemp("shared") / "out", "model=ca2sis", "model.attention.masking=access", "seed=3")


@pytest.fixture(scope="module")
def archive(record: RunRecord) -> Path:
    out = record.path.parents[1]
    file = out.parent / "run.zip"
    done = command("pipeline", "pack", record.id[:10], "--to", str(file), "--licence", "apache-2.0", "--out", str(out))
    assert done.returncode == 0 and str(file) in done.stdout, done.stderr
    return file


# -- the round trip ----------------------------------------------------------------------------------------------------


def test_a_packed_run_comes_back_whole(record: RunRecord, archive: Path, tmp_path: Path) -> None:
    done = command("pipeline", "unpack", str(archive), "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    other = RunStore(tmp_path / "runs").record(record.id)
    assert other.state == "finished" and other.metrics == record.metrics and other.history() == record.history()
    assert other.identity == record.identity
    first, second = (checkpoint.load(item, checkpoint.FINAL) for item in (record, other))
    assert first.keys() == second.keys() and first["iteration"] == second["iteration"] == 8
    for network in ("generator", "discriminator"):
        assert first[network].keys() == second[network].keys()
        assert all(torch.equal(value, second[network][key]) for key, value in first[network].items())
    assert other.per_image().equals(record.per_image())
    tables, others = record.access_tables(), other.access_tables()
    assert tables and all(np.array_equal(table, others[name]) for name, table in tables.items())
    assert main(["evaluate", record.id, "--protocol", "quick", "--out", str(tmp_path)]) == 0
    assert main(["unpack", str(archive), "--out", str(tmp_path)]) == 0  # again: reused
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [record.id]
    assert not list((tmp_path / "cache").glob("unpacking*"))


def test_a_pack_gives_the_same_bytes_and_names_no_machine(record: RunRecord, archive: Path, tmp_path: Path) -> None:
    import socket

    again = tmp_path / "again.zip"
    assert (
        main(["pack", record.id, "--to", str(again), "--licence", "apache-2.0", "--out", str(record.path.parents[1])])
        == 0
    )
    assert again.read_bytes() == archive.read_bytes()
    with zipfile.ZipFile(archive) as packed:
        texts = [packed.read(name) for name in packed.namelist() if name.endswith((".json", ".yaml", ".md"))]
    for text in texts:
        assert socket.gethostname().encode() not in text and str(record.path.parents[1]).encode() not in text


def test_the_model_card_is_hugging_faces_and_names_every_fingerprint(record: RunRecord, archive: Path) -> None:
    with zipfile.ZipFile(archive) as packed:
        text = packed.read("README.md").decode()
        weights = packed.read("weights.safetensors")
    _, front, body = text.split("---\n", 2)
    card = yaml.safe_load(front)
    assert card["license"] == "apache-2.0" and card["pipeline_tag"] == "image-to-image" and "ca2sis" in card["tags"]
    (model,) = card["model-index"]
    told = {
        (metric["type"], metric["args"]["fingerprint"]): metric["value"]
        for result in model["results"]
        for metric in result["metrics"]
    }
    recorded = [row for row in record.metrics if row.state == "trained" and row.value is not None]
    assert told == {(row.name, row.fingerprint): row.value for row in recorded}
    assert all(result["task"]["type"] and result["dataset"]["type"] == "procfaces" for result in model["results"])
    assert record.id in body and "load_run(" in body and "procfaces 16x16" in body
    assert (
        int.from_bytes(weights[:8], "little") < len(weights) and weights[8:9] == b"{"
    )  # safetensors: header, then data


def test_rules_and_external_records_travel_too(tmp_path: Path) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    rule = run(out, "model=painter", "protocol=quick")
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(4):
        Image.new("RGB", (16, 16), (number, 2, 3)).save(folder / f"val{number:06d}.png")
    words = ["size=16", "data.train_images=12", "data.val_images=4", "data.test_images=4", "protocol=quick"]
    assert main(["import-images", "theirs", "--images", str(folder), *words, "--out", str(out)]) == 0
    for run_id in RunStore(out / "runs").ids():
        assert main(["pack", run_id, "--to", str(tmp_path / "x.zip"), "--out", str(out)]) == 0
        assert main(["unpack", str(tmp_path / "x.zip"), "--out", str(other)]) == 0
        assert main(["evaluate", run_id, "--protocol", "quick", "--out", str(other)]) == 0
    assert len(RunStore(other / "runs").ids()) == 2
    assert RunStore(other / "runs").record(rule.id).state == "finished"


def test_what_cannot_be_packed_or_unpacked_is_one_line(
    record: RunRecord, archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert main(["unpack", str(tmp_path / "empty"), "--out", str(tmp_path)]) == 2
    assert "holds no packed run" in capsys.readouterr().err
    assert main(["pack", record.id, "--without", "numbers", "--out", str(record.path.parents[1])]) == 2
    assert "numbers" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    out = str(record.path.parents[1])
    capsys.readouterr()
    for words in (
        ["pack", record.id, "--to", str(tmp_path / "file" / "x.zip"), "--out", out],
        ["unpack", str(archive), "--out", str(tmp_path / "file")],
    ):
        assert main(words) == 2
        assert (line := capsys.readouterr().err).startswith("error: cannot write") and line.count("\n") == 1


def test_photos_named_later_and_a_killed_start_make_no_trouble(
    record: RunRecord, archive: Path, tmp_path: Path
) -> None:
    """A run's folder without an identity is no run: what a killed start left there makes room."""
    (tmp_path / "runs" / record.id).mkdir(parents=True)
    (tmp_path / "runs" / record.id / "run.lock").write_text("")
    left = tmp_path / "cache" / "unpacking-of-a-killed-command"
    left.mkdir(parents=True)
    os.utime(left, (0, 0))
    with atomic.exclusive_lock(tmp_path / "runs" / record.id / "run.lock"):  # and what a living one holds does not
        assert main(["unpack", str(archive), "--out", str(tmp_path)]) == 2
    assert main(["unpack", str(archive), "--out", str(tmp_path)]) == 0
    came = RunStore(tmp_path / "runs").record(record.id)
    assert came.metrics == record.metrics and not left.exists()
    assert yaml.safe_load(came.config_yaml)["data"]["root"] is None
    (tmp_path / "photos").mkdir()
    assert main(["unpack", str(archive), "--data-root", str(tmp_path / "photos"), "--out", str(tmp_path)]) == 0
    assert yaml.safe_load(came.config_yaml)["data"]["root"] == str((tmp_path / "photos").resolve())


def test_a_record_that_no_reader_takes_is_not_packed(
    record: RunRecord, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(record.path, tmp_path / "runs" / record.id)
    for name in ("metrics.json", "provenance.json"):
        (tmp_path / "runs" / record.id / name).rename(tmp_path / name)
        assert main(["pack", record.id, "--to", str(tmp_path / "x.zip"), "--out", str(tmp_path)]) == 2
        assert f"{name} is missing" in capsys.readouterr().err and not (tmp_path / "x.zip").exists()
        (tmp_path / name).rename(tmp_path / "runs" / record.id / name)


def test_photos_are_found_where_they_lie_here(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    words = ["unpack", str(archive), "--data-root", str(tmp_path / "photos"), "--out", str(tmp_path / "out")]
    assert main(words) == 0
    (run_id,) = RunStore(tmp_path / "out" / "runs").ids()
    config = yaml.safe_load((tmp_path / "out" / "runs" / run_id / "config.yaml").read_text())
    assert config["data"]["root"] == str((tmp_path / "photos").resolve())
    line = the_line(
        command("pipeline", "unpack", str(archive), "--data-root", str(tmp_path / "no"), "--out", str(tmp_path))
    )
    assert "no such folder" in line


def test_what_is_not_finished_is_not_packed(
    record: RunRecord, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(record.path, tmp_path / "runs" / record.id)
    status = json.loads((record.path / "status.json").read_text())
    (tmp_path / "runs" / record.id / "status.json").write_text(json.dumps({**status, "state": "failed"}))
    assert main(["pack", record.id, "--to", str(tmp_path / "x.zip"), "--out", str(tmp_path)]) == 2
    assert "is failed, not finished" in capsys.readouterr().err
    assert main(["pack", record.id, "--to", str(tmp_path / "x.tar"), "--out", str(tmp_path)]) == 2
    assert not (tmp_path / "x.zip").exists()


# -- hostile archives --------------------------------------------------------------------------------------------------


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

"""A run as a file: the round trip through the real commands."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from pipeline.__main__ import main
from pipeline.records import RunRecord, RunStore, atomic
from pipeline.runs import checkpoint
from tests.pipeline.tiny import command, run, the_line


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

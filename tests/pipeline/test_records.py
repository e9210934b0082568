"""The run store: what a kill, a second process or a full disk can do to a record, and what it still says afterwards."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.errors import UserError
from pipeline.records import MetricRow, RunRecord, RunStore, atomic
from pipeline.records.manifest import Arm, Cell, StudyManifest, StudyMetric

TEXT = '{"config":{},"data":"d","schema":1}'


def make_record(root: Path) -> RunRecord:
    record = RunStore(root).record(hashlib.sha256(TEXT.encode()).hexdigest())
    record.create(TEXT, "seed: 0\n")
    return record


def row(name: str = "psnr", value: float | None = 20.0, **changes: object) -> MetricRow:
    fields: dict[str, object] = {
        "name": name, "value": value, "n": 8, "unit": "dB", "direction": "max", "split": "test", "protocol": "standard",
        "fingerprint": "f", **changes,
    }  # fmt: skip
    return MetricRow(**fields)  # type: ignore[arg-type]


def test_a_record_is_what_its_id_says(tmp_path: Path) -> None:
    record = make_record(tmp_path)
    assert record.exists and record.identity == json.loads(TEXT) and record.state == "planned"
    with pytest.raises(ValueError, match="does not hash"):
        record.create(TEXT + " ", "")


def test_access_tables_come_back_in_order_and_equal_tables_give_equal_bytes(tmp_path: Path) -> None:
    record = make_record(tmp_path)
    assert record.access_tables() == {}
    tables = {"8": np.arange(18, dtype=np.float32).reshape(2, 3, 3), "16": np.zeros((1, 3, 3), dtype=np.float32)}
    record.set_access_tables(tables)
    first = (record.path / "access.npz").read_bytes()
    found = record.access_tables()
    assert list(found) == ["8", "16"] and all(np.array_equal(found[level], tables[level]) for level in tables)
    record.set_access_tables(tables)
    assert (record.path / "access.npz").read_bytes() == first
    (record.path / "access.npz").write_bytes(first[: len(first) // 2])
    with pytest.raises(UserError, match=r"access\.npz is not readable"):
        record.access_tables()


def test_metric_rows_are_added_and_replaced_by_key(tmp_path: Path) -> None:
    record = make_record(tmp_path)
    record.add_metrics([row(), row(value=10.0, state="untrained")])
    record.add_metrics([row(value=21.0), row("ssim", 0.5)])
    values = {(item.name, item.state): item.value for item in record.metrics}
    assert values == {("psnr", "trained"): 21.0, ("psnr", "untrained"): 10.0, ("ssim", "trained"): 0.5}


def test_complete_means_measured_as_the_protocol_says_now(tmp_path: Path) -> None:
    record = make_record(tmp_path)
    record.begin_attempt("trained")
    record.add_metrics([row(state="untrained")])
    assert not record.is_complete("standard", "digest")  # not finished
    record.end_attempt("finished")
    assert not record.is_complete("standard", "digest")  # only the untrained network was measured
    record.add_metrics([row()])
    assert record.is_complete("standard", "digest")
    record.update_provenance(protocols={"standard": "digest"})
    assert record.is_complete("standard", "digest") and not record.is_complete("standard", "of a changed protocol")
    record.add_metrics([row(protocol="paper")])  # and killed before the digest was noted
    assert not record.is_complete("paper", "digest")


def test_a_store_lists_records_only(tmp_path: Path) -> None:
    record = make_record(tmp_path)
    (tmp_path / ("0" * 64)).mkdir()  # the folder of a run that was killed before it wrote anything
    assert RunStore(tmp_path).ids() == [record.id] and record.cache == tmp_path.parent / "cache"


def test_a_metric_row_is_finite_or_says_why_not() -> None:
    with pytest.raises(ValueError, match="not finite"):
        row(value=float("nan"))
    with pytest.raises(ValueError, match="needs a reason"):
        row(value=None, status="unavailable")
    assert row(value=None, status="unavailable", reason="no weights").value is None


def test_per_image_values_of_one_metric_replace_their_own_kind_only(tmp_path: Path) -> None:
    record = make_record(tmp_path)
    frame = pd.DataFrame(
        {"key": ["a", "b"], "metric": "psnr", "value": [1.0, 2.0], "split": "test", "fingerprint": "f"}
    )
    record.add_per_image(frame)
    record.add_per_image(frame.assign(metric="ssim"))
    record.add_per_image(frame.assign(value=[3.0, 4.0]))
    table = record.per_image().pivot(index="key", columns="metric", values="value")
    assert table["psnr"].tolist() == [3.0, 4.0] and table["ssim"].tolist() == [1.0, 2.0]


def test_history_survives_a_line_cut_off_in_the_middle(tmp_path: Path) -> None:
    record = make_record(tmp_path)
    for iteration in (1, 2, 3):
        record.log({"iteration": iteration, "kind": "train", "gan": 0.5})
    path = record.path / "history.jsonl"
    path.write_bytes(path.read_bytes()[:-10])
    assert [item["iteration"] for item in record.history()] == [1, 2]
    record.log({"iteration": 3, "kind": "train", "gan": 0.5})
    assert [item["iteration"] for item in record.history()] == [1, 2, 3]
    record.truncate_history(1)
    assert [item["iteration"] for item in record.history()] == [1]


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    atomic.write_json(path, {"n": 0, "fill": "x" * 100_000})
    writer = multiprocessing.get_context("fork").Process(target=_rewrite_for_ever, args=(path,))
    writer.start()
    try:
        for _ in range(200):
            assert len(atomic.read_json(path)["fill"]) == 100_000
    finally:
        os.kill(writer.pid or 0, signal.SIGKILL)
        writer.join()
    assert len(atomic.read_json(path)["fill"]) == 100_000


def test_files_get_the_rights_that_the_umask_leaves(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        atomic.write_text(tmp_path / "new" / "folder" / "value.txt", "one")
        atomic.write_text(tmp_path / "new" / "folder" / "value.txt", "two")
    finally:
        os.umask(before)
    (file,) = (tmp_path / "new" / "folder").iterdir()
    assert file.read_text() == "two" and file.stat().st_mode & 0o777 == 0o640


def test_a_lock_is_exclusive_and_dies_with_its_process(tmp_path: Path) -> None:
    record = make_record(tmp_path)
    holder = multiprocessing.get_context("fork").Process(target=_hold, args=(record,))
    holder.start()
    try:
        deadline = time.monotonic() + 10
        while not record.is_live and time.monotonic() < deadline:
            time.sleep(0.01)
        assert record.is_live and record.state == "running"
        with pytest.raises(atomic.Locked, match="being written by another process"), record.writing():
            pass
    finally:
        os.kill(holder.pid or 0, signal.SIGKILL)
        holder.join()
    assert not record.is_live
    assert record.state == "preempted"  # recorded as running, but nobody is: no zombie states
    with record.writing():
        record.begin_attempt("trained")
        record.end_attempt("finished")
    attempts = record.status["attempts"]
    assert [attempt["outcome"] for attempt in attempts] == ["preempted", "finished"]


def test_a_folder_that_cannot_be_written_is_a_clear_line(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file where a folder belongs")
    with pytest.raises(UserError, match="cannot write .*runs"):
        make_record(tmp_path / "runs")


def test_a_status_that_says_less_is_a_planned_run_s(tmp_path: Path) -> None:
    record = make_record(tmp_path)
    untouched = record.status
    for text in ("{}", "[]", "3", '{"state": "fin'):
        (record.path / "status.json").write_text(text)
        assert record.status == untouched and record.state == "planned"
    (record.path / "status.json").write_text('{"state": "failed", "reason": "no room"}')
    assert record.status == {**untouched, "state": "failed", "reason": "no room"}


def test_a_file_that_holds_no_object_is_named(tmp_path: Path) -> None:
    record = make_record(tmp_path)
    for name in ("identity", "provenance"):
        (record.path / f"{name}.json").write_text("[]")
        with pytest.raises(UserError, match=rf"{name}\.json does not hold an object"):
            getattr(record, name)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"schema": 1}, "rows without a name"),
        ({"schema": 1, "rows": {}}, "rows without a name"),
        ({"schema": 1, "rows": [{"value": 1}]}, "rows without a name"),
        ({"schema": 1, "rows": [{"name": "psnr", "colour": "red"}]}, "unexpected keyword argument 'colour'"),
        ({"schema": 2, "rows": []}, "schema 2, this version reads 1"),
    ],
)
def test_metric_rows_of_another_shape_are_named(tmp_path: Path, content: dict[str, object], said: str) -> None:
    record = make_record(tmp_path)
    (record.path / "metrics.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"metrics\.json: .*{said}.*; move it away and evaluate the run again"):
        _ = record.metrics


def test_find_takes_a_unique_prefix(tmp_path: Path) -> None:
    record = make_record(tmp_path)
    store = RunStore(tmp_path)
    assert store.ids() == [record.id] and store.find(record.id[:6]).id == record.id
    for prefix in ("", "zz"):
        with pytest.raises(UserError, match="id starting with"):
            store.find(prefix)


def test_a_study_manifest_round_trips_and_its_digest_ignores_the_revision(tmp_path: Path) -> None:
    manifest = StudyManifest(
        name="s", question="?", revision=1, protocol="standard", split="test",
        metrics=(StudyMetric("psnr", "primary", "max"),),
        arms=(Arm("a", "A", {"model": "a"}, ("model=a",), reference=True),),
        cells=(Cell("a", 0, "id", ("model=a", "seed=0"), 80),), seeds=(0,), design="list", budget="equal",
    )  # fmt: skip
    manifest.save(tmp_path)
    assert StudyManifest.load(tmp_path) == manifest
    import dataclasses

    assert dataclasses.replace(manifest, revision=2).digest == manifest.digest
    assert dataclasses.replace(manifest, seeds=(0, 1)).digest != manifest.digest
    with pytest.raises(UserError, match="no study in"):
        StudyManifest.load(tmp_path / "elsewhere")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{}", "'metrics' is missing"),
        ("[]", "'list' object has no attribute 'items'"),
        ('{"metrics": 3}', "'int' object is not iterable"),
        ('{"metrics": [], "arms": [], "cells": [], "seeds": [], "colour": 1}', "unexpected keyword argument 'colour'"),
    ],
)
def test_a_plan_that_is_none_is_named(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(UserError, match=rf"plan\.json is not a study plan of this version: .*{words}"):
        StudyManifest.load(tmp_path)


def _rewrite_for_ever(path: Path) -> None:
    number = 0
    while True:
        number += 1
        atomic.write_json(path, {"n": number, "fill": "x" * 100_000})


def _hold(record: RunRecord) -> None:
    with record.writing():
        record.begin_attempt("trained")
        time.sleep(60)

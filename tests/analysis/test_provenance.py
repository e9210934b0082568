"""Where a number comes from, as the commands say it: `trace`, `diff`, `stale`."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

import pytest

from analysis.__main__ import main
from analysis.frame import load_study
from analysis.stale import find_stale
from pipeline.records import RunStore
from tests.analysis.synthetic import TWO, SyntheticArm, fingerprint_of, make_study


def test_trace_leads_to_the_records(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trace", "synthetic", "SPADE", "PSNR", "--json", "--out", str(out)]) == 0
    found = json.loads(capsys.readouterr().out)
    values = []
    for item in found["runs"]:
        record = RunStore(out / "runs").record(item["run_id"])
        row = next(row for row in record.metrics if row.name == "psnr" and row.state == "trained")
        assert (item["value"], item["n"], found["fingerprint"]) == (row.value, row.n, row.fingerprint)
        assert (item["commit"], item["digest"]) == (record.provenance["commit"], "intact")
        assert item["command"] == f"python -m pipeline train preset=tiny model=spade seed={item['seed']}"
        values.append(row.value)
    assert found["value"] == pytest.approx(sum(values) / 3)


def test_trace_names_what_is_wrong_with_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = make_study(tmp_path, arms=(TWO[0], SyntheticArm("b", states={1: "failed"})), seeds=(0, 1))
    identity = RunStore(tmp_path / "runs").record(manifest.cells[2].run_id).path / "identity.json"
    identity.write_text(identity.read_text().replace('"b"', '"c"'))
    assert main(["trace", "synthetic", "b", "psnr", "--out", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "identity changed after the run" in text
    assert "seed 1: no value: out of memory" in text


def test_trace_of_runs_that_are_not_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A planned cell without a run, and a study kept without its runs and their facts."""
    manifest = make_study(tmp_path, arms=(TWO[0], SyntheticArm("b", states={1: "missing"})), seeds=(0, 1))
    assert main(["trace", "synthetic", "b", "psnr", "--out", str(tmp_path)]) == 0
    assert "seed 1: no value: " in capsys.readouterr().out
    kept = tmp_path / "elsewhere" / "kept"
    assert main(["keep", "synthetic", "--to", str(kept), "--out", str(tmp_path)]) == 0
    (kept / "runs.parquet").unlink()
    capsys.readouterr()
    assert main(["trace", str(kept), "a", "psnr"]) == 0
    assert f"run     {manifest.cells[0].run_id} (finished; identity not here to check)" in capsys.readouterr().out


def test_diff_shows_config_and_metrics(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = load_study(out, "synthetic")
    runs = study.runs.set_index(["arm", "seed"])["run_id"]
    assert main(["diff", runs["ca2sis", 0][:12], runs["spade", 0][:12], "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert "model.family: 'ca2sis' -> 'spade'" in text
    assert "provenance: no differences" in text
    assert "seed:" not in text
    assert "attention_iou" in text


def test_stale_runs_are_told_apart(tmp_path: Path) -> None:
    fresh = {"commit": "1" * 40, "versions": {"torch": metadata.version("torch")}}
    arms = (
        SyntheticArm("fresh", provenance=fresh),
        SyntheticArm("fresh2", provenance=fresh),
        SyntheticArm("code", provenance={**fresh, "commit": "2" * 40}),
        SyntheticArm("lost", provenance={**fresh, "commit": "3" * 40}),
        SyntheticArm("dirty", provenance={**fresh, "dirty": True}),
        SyntheticArm("data", provenance={**fresh, "data": {"digest": "older"}}),
        SyntheticArm("torch", provenance={**fresh, "versions": {"torch": "1.0"}}),
    )
    manifest = make_study(tmp_path, arms=arms, seeds=(0,))
    path = RunStore(tmp_path / "runs").record(manifest.cells[1].run_id).path / "metrics.json"
    path.write_text(path.read_text().replace(fingerprint_of("ssim"), "f" * 64))
    answers = {"1" * 40: False, "2" * 40: True, "3" * 40: None}
    found = find_stale(load_study(tmp_path, "synthetic"), code_changed=answers.__getitem__)
    assert {(item.arm, item.kind) for item in found} == {
        ("fresh2", "metric"),
        ("code", "code"),
        ("lost", "untraceable"),
        ("dirty", "code"),
        ("data", "data"),
        ("torch", "environment"),
    }


def test_a_data_factor_makes_no_run_stale(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Runs are held to those that were to see the same data: fewer photos than faces are not out of date, older photos are."""
    fresh = {"commit": None, "versions": {"torch": metadata.version("torch")}}
    arms = [
        SyntheticArm(f"{model}-{data}", levels={"model": model, "data": data}, reference=(model, data) == ("a", "faces"),
                     provenance={**fresh, "data": {"digest": digest}}, overrides=(f"model={model}", f"data={data}"))
        for data, models, digest in (("faces", "abc", "faces-1"), ("photos", "ab", "photos-1")) for model in models
    ]  # fmt: skip
    manifest = make_study(tmp_path, arms=arms, seeds=(0, 1))
    photos = [item for item in manifest.cells if item.arm.endswith("photos")]
    for item in photos:  # numbers on other images have other fingerprints
        path = RunStore(tmp_path / "runs").record(item.run_id).path / "metrics.json"
        path.write_text(path.read_text().replace(fingerprint_of("ssim"), "a" * 64))
    assert main(["stale", "synthetic", "--strict", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "nothing stale in 10 finished runs of synthetic\n"
    folder = RunStore(tmp_path / "runs").record(photos[0].run_id).path
    for name, now, before in (("provenance", "photos-1", "photos-0"), ("metrics", "a" * 64, "b" * 64)):
        path = folder / f"{name}.json"
        path.write_text(path.read_text().replace(now, before))
    assert main(["stale", "synthetic", "--strict", "--out", str(tmp_path)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "a-photos (seed 0): data: trained on data photos-0, most runs with its data settings on photos-1",
        "a-photos (seed 0): metric: ssim (standard val) has fingerprint bbbbbbbbbb, "
        "most runs with its data settings have aaaaaaaaaa",
        "1 of 10 finished runs are stale",
    ]


def test_data_that_no_setting_asks_for_are_stale_though_an_arm_has_them_alone(tmp_path: Path) -> None:
    """One factor, a model: that each of its levels has one data set explains nothing."""
    arms = [
        SyntheticArm(name, levels={"model": name}, reference=name == "a", provenance={"data": {"digest": digest}})
        for name, digest in (("a", "new"), ("b", "new"), ("c", "old"))
    ]
    make_study(tmp_path, arms=arms, seeds=(0, 1))
    found = find_stale(load_study(tmp_path, "synthetic"), code_changed=lambda _: False)
    assert [(item.arm, item.seed) for item in found if item.kind == "data"] == [("c", 0), ("c", 1)]


def test_stale_strict_is_status_1(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stale", "synthetic", "--out", str(out)]) == 0
    assert "commit 0123456789 is not in this checkout" in capsys.readouterr().out
    assert main(["stale", "synthetic", "--strict", "--out", str(out)]) == 1

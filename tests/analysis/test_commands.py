"""The commands as users call them: exit statuses, one-line errors, and what `trace`, `diff`, `stale` and imports say."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from analysis.__main__ import COMMANDS, main
from analysis.commands.import_wandb import read_project
from analysis.figures.load import figure_data
from analysis.frame import load_study
from analysis.stale import find_stale
from pipeline.errors import UserError
from pipeline.records import MetricRow, RunStore
from tests.analysis.synthetic import SyntheticArm, fingerprint_of, make_study

ROOT = Path(__file__).parents[2]
TWO = (SyntheticArm("a", "A", reference=True), SyntheticArm("b", "B", {"psnr": 1.0}))


# -- the command line --------------------------------------------------------------------------------------------------


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "analysis", *words], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )


def test_table_runs_without_torch_matplotlib_and_jinja(out: Path) -> None:
    code = (
        "import sys; from analysis.__main__ import main; status = main(sys.argv[1:]);"
        "print(status, [n for n in ('torch', 'matplotlib', 'jinja2', 'wandb') if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "table", "synthetic", "--out", str(out)],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "0 []", done.stderr
    assert "| CA²-SIS | **" in done.stdout


def test_costs_on_two_kinds_of_cpu_leave_figures_and_report_standing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nodes differ: the larger part of a cost stands, as in the table; what was timed elsewhere is left out."""
    arms = (SyntheticArm("a", "A", reference=True), SyntheticArm("b", "B", {"psnr": 1.0}), SyntheticArm("c", "C"))
    manifest = make_study(tmp_path, arms=arms, seeds=(0, 1))
    for item in manifest.cells:
        speed = {"a": 5.0, "b": 7.0, "c": 1.0}[item.arm]
        node = "cpu slow" if item.arm == "c" else "cpu fast"
        latency = MetricRow("latency_ms", speed, 1, "ms", "min", "", "standard", node)
        RunStore(tmp_path / "runs").record(item.run_id).add_metrics([latency])
    assert main(["table", "synthetic", "--out", str(tmp_path)]) == 0
    assert main(["figures", "synthetic", "--out", str(tmp_path)]) == 0, capsys.readouterr().err
    assert main(["report", "synthetic", "--out", str(tmp_path)]) == 0
    data = figure_data(load_study(tmp_path, "synthetic"))
    assert data.by_arm("latency_ms") == {"a": [5.0, 5.0], "b": [7.0, 7.0]}
    assert (tmp_path / "synthetic" / "figures" / "pareto.png").exists()
    assert "left out: C" in (tmp_path / "synthetic" / "report.html").read_text()


def test_a_mistake_is_one_line_and_status_2(out: Path) -> None:
    done = run("table", "absent", "--out", str(out))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        f"error: no study in {out / 'absent'} (run it first: python -m ablations run absent)"
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["table", "synthetic", "--spec", "mian"], "unknown table 'mian'"),
        (["table", "synthetic", "--format", "pdf"], "invalid choice: 'pdf'"),
        (["trace", "synthetic", "spad", "psnr"], "has no row 'spad' (did you mean spade"),
        (["trace", "synthetic", "spade", "psnrr"], "has no column 'psnrr' (did you mean psnr"),
        (["diff", "zzz", "0"], "no run in"),
        (["claims", "synthetic", "--alpha", "2"], "--alpha 2.0: must lie between 0 and 1"),
        (["claims", "synthetic", "--claims", "absent.yaml"], "claims file absent.yaml is missing"),
        (["import-csv", "synthetic", "absent.csv"], "cannot read absent.csv"),
        (["import-wandb", "synthetic", "project", "--metric", "a=b"], "'project' is not ENTITY/PROJECT"),
        (["import-wandb", "synthetic", "a/b", "--metric", "psnr"], "write NAME=KEY"),
    ],
)
def test_mistakes_name_what_is_wrong(
    out: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main([*words, "--out", str(out)]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1


@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    assert "usage: python -m analysis " + command in capsys.readouterr().out


def test_strict_is_status_1_with_the_cells_named(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["table", "broken", "--out", str(out)]) == 0
    capsys.readouterr()
    assert main(["table", "broken", "--strict", "--out", str(out)]) == 1
    captured = capsys.readouterr()
    assert "strict: B, PSNR: 1 of its seeds have no value" in captured.err
    assert "| B |" in captured.out  # the table is printed all the same
    assert main(["table", "synthetic", "--strict", "--out", str(out)]) == 0


def test_written_tables_are_the_printed_ones(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for form in ("md", "tex", "csv", "html"):
        assert main(["table", "synthetic", "--format", form, "--out", str(out)]) == 0
        printed = capsys.readouterr().out
        target = tmp_path / f"table.{form}"
        assert main(["table", "synthetic", "--write", str(target), "--out", str(out)]) == 0
        assert target.read_text() == printed
        capsys.readouterr()


# -- frame -------------------------------------------------------------------------------------------------------------


def test_frame_files_hold_the_frame(out: Path, tmp_path: Path) -> None:
    study = load_study(out, "synthetic")
    targets = [tmp_path / "frame.parquet", tmp_path / "runs.parquet"]
    words = ["frame", "synthetic", "--root", str(out), "--out", str(targets[0]), "--runs", str(targets[1])]
    assert main(words) == 0
    for target, frame in zip(targets, (study.frame, study.runs), strict=True):
        pd.testing.assert_frame_equal(pd.read_parquet(target), frame)
    import pyarrow.parquet as pq

    assert pq.read_schema(targets[0]).field("value").metadata[b"description"].startswith(b"the number")
    assert main(["frame", "synthetic", "--root", str(out), "--out", str(tmp_path / "f.csv")]) == 0
    assert len(pd.read_csv(tmp_path / "f.csv")) == len(study.frame)
    assert main(["frame", "synthetic", "--root", str(out), "--out", str(tmp_path / "f.xlsx")]) == 2


# -- trace, diff, stale ------------------------------------------------------------------------------------------------


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


# -- claims ------------------------------------------------------------------------------------------------------------

CLAIMS = """claims:
  - {id: spade, says: ours beats SPADE, metric: psnr, better: {arm: ca2sis}, worse: {arm: spade}, may_differ: [model.*]}
  - {id: seeds, says: hard to say, metric: psnr, better: {arm: ca2sis}, worse: {arm: no_attention_loss},
     may_differ: [model.*], at_least: 0.3}
"""


def test_claims_decide_the_exit_status(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "claims.yaml"
    path.write_text(CLAIMS)
    words = ["claims", "synthetic", "--claims", str(path), "--out", str(out)]
    assert main(words) == 0
    text = capsys.readouterr().out
    assert "SUPPORTED     spade" in text
    assert "were this the true advantage" in text
    assert "1 supported, 0 contradicted, 1 undecided, 0 not testable" in text
    assert main([*words, "--strict"]) == 1
    path.write_text(CLAIMS.replace("arm: ca2sis}, worse: {arm: spade}", "arm: spade}, worse: {arm: ca2sis}"))
    capsys.readouterr()
    assert main([*words, "--json"]) == 1
    assert [item["verdict"] for item in json.loads(capsys.readouterr().out)] == ["contradicted", "undecided"]


def test_the_shipped_claims_run_on_any_study(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["claims", "synthetic", "--out", str(out)]) == 0
    assert "reconstruction_over_spade" in capsys.readouterr().out


# -- numbers from elsewhere --------------------------------------------------------------------------------------------

PUBLISHED = (
    'label,metric,value,std,n,unit,source\nSEAN (paper),psnr,25.5,,,dB,"CVPR 2020, table 1"\n'
    "SEAN (paper),fid,17.66,,,,CVPR 2020\nSPADE (paper),psnr,21.0,0.2,3,dB,CVPR 2019\n"
)


def test_published_numbers_stand_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_study(tmp_path, arms=TWO)
    (tmp_path / "papers.csv").write_text(PUBLISHED)
    assert main(["import-csv", "synthetic", str(tmp_path / "papers.csv"), "--out", str(tmp_path)]) == 0
    capsys.readouterr()
    assert main(["table", "synthetic", "--out", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    lines = [line for line in text.splitlines() if line.startswith("| *")]
    assert lines[0].startswith("| *From elsewhere* |")
    assert lines[1].startswith("| *SEAN (paper)*<sup>a</sup> | 25.50 |  |")
    assert lines[2].startswith("| *SPADE (paper)*<sup>b</sup> | 21.00 ± 0.20 |")
    assert "<sup>a</sup> published number, not measured here: CVPR 2020, table 1; CVPR 2020" in text
    assert "**25.50**" not in text  # never ranked, although it is the largest
    (tmp_path / "papers.csv").write_text(PUBLISHED.replace("25.5", "25.6"))  # again: replaced, not doubled
    assert main(["import-csv", "synthetic", str(tmp_path / "papers.csv"), "--out", str(tmp_path)]) == 0
    assert len(load_study(tmp_path, "synthetic").imported) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("label,metric,value\nA,psnr,1\n", "column 'source' is missing"),
        ("label,metric,value,source,unitt\n", r"unknown column 'unitt' \(did you mean unit"),
        ("label,metric,value,source\nA,psnr,many,B\n", "line 2: value = 'many' is not a number"),
        ("label,metric,value,source\nA,psnr,nan,B\n", "line 2: value = nan is not finite"),
        ("label,metric,value,source\nA,psnr,1,\n", "line 2: source is empty"),
        ("label,metric,value,source,n\nA,psnr,1,B,0.5\n", "line 2: n = 0.5 is not a number of seeds"),
        ("label,metric,value,source\n", "holds no numbers"),
        ("", "column 'label' is missing"),
    ],
)
def test_a_wrong_csv_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    from analysis.commands.import_csv import read_csv

    path = tmp_path / "x.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_csv(path, "published")


class FakeApi:
    """Stands for wandb.Api: a list of runs, or an error."""

    def __init__(self, *runs: SimpleNamespace, error: Exception | None = None) -> None:
        self.found, self.error, self.calls = list(runs), error, 0

    def runs(self, path: str) -> list[SimpleNamespace]:
        self.calls += 1
        if self.error is not None:
            raise self.error
        assert path == "lab/sean"
        return self.found


def logged(name: str, seed: int, value: object, state: str = "finished") -> SimpleNamespace:
    summary = {"val/psnr": value, "nested": {"ssim": 0.5}}
    return SimpleNamespace(
        id=f"{name}{seed}", name=name, state=state, config={"seed": seed, "model": {"name": name}}, summary=summary
    )


def test_wandb_summaries_of_finished_runs_are_read() -> None:
    api = FakeApi(
        logged("sean", 0, 24.0), logged("sean", 1, 25.0), logged("sean", 2, 99.0, "crashed"), logged("sean", 3, "NaN")
    )
    rows, skipped = read_project(
        "lab/sean", {"psnr": "val/psnr", "ssim": "nested.ssim"}, label_key="model.name", api=lambda: api
    )
    assert [(row["label"], row["seed"], row["metric"], row["value"]) for row in rows] == [
        ("sean", 0, "psnr", 24.0),
        ("sean", 0, "ssim", 0.5),
        ("sean", 1, "psnr", 25.0),
        ("sean", 1, "ssim", 0.5),
        ("sean", 3, "ssim", 0.5),
    ]
    assert skipped == ["run sean2 is crashed", "run sean3: summary has no finite number 'val/psnr'"]


@pytest.mark.parametrize(
    ("api", "message"),
    [
        (FakeApi(logged("sean", 0, 1.0), logged("sean", 0, 2.0)), "are both 'sean' at seed 0"),
        (FakeApi(logged("sean", 0, 1.0, "running")), "has no number to import: run sean0 is running"),
        (FakeApi(), "lab/sean has no number to import"),
        (FakeApi(error=ConnectionError("no route\nto host")), "cannot read lab/sean from W&B: no route to host"),
    ],
)
def test_wandb_trouble_is_one_line(api: FakeApi, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_project("lab/sean", {"psnr": "val/psnr"}, api=lambda: api)


def test_wandb_is_read_once_and_then_cached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_study(tmp_path, arms=TWO, seeds=(0,))
    api = FakeApi(logged("sean", 0, 24.0), logged("sean", 1, 26.0))
    monkeypatch.setattr("analysis.commands.import_wandb._client", lambda: api)
    words = ["import-wandb", "synthetic", "lab/sean", "--metric", "psnr=val/psnr", "--out", str(tmp_path)]
    assert main(words) == 0
    assert main(words) == 0
    assert api.calls == 1
    assert "are cached (--refresh reads them again)" in capsys.readouterr().out
    assert main([*words, "--refresh"]) == 0
    assert main([*words[:-2], "--metric", "ssim=nested.ssim", *words[-2:]]) == 0  # another request is another import
    assert api.calls == 3
    capsys.readouterr()
    assert main(["table", "synthetic", "--out", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "25.0" in text
    assert "logged by other code, not measured here: W&amp;B lab/sean" in text

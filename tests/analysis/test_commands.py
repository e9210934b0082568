"""The commands as users call them: exit statuses, one-line errors, files written as printed, claims."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from analysis.__main__ import COMMANDS, main
from analysis.figures.load import figure_data
from analysis.frame import load_study
from pipeline.records import MetricRow, RunStore
from tests.analysis.synthetic import SyntheticArm, make_study

ROOT = Path(__file__).parents[2]


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
    done = run("table", "zzz", "--out", str(out))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [f"error: no study in {out / 'zzz'} (run it first: python -m ablations run zzz)"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["table", "sinthetic"], "ablations run sinthetic) (did you mean synthetic?)"),
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

"""The command line of studies, run as users run it."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from ablations import commands
from ablations.commands import build_parser
from ablations.plan import make_plan
from ablations.study import load_study
from pipeline.cli import run_main
from pipeline.config import to_yaml
from pipeline.errors import UserError
from pipeline.records import RunRecord, RunStore, StudyManifest

ENTRY = "tests.pipeline.launch.fakes:train"
MISBEHAVING = "tests.pipeline.launch.fakes:misbehave"  # painter fails, SPADE diverges
SLOW = "tests.pipeline.launch.fakes:slowly"


def ablations(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "ablations", *arguments], capture_output=True, text=True, timeout=120)


def here(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """The same command without a new interpreter: exit status and what it printed."""
    capsys.readouterr()
    status = run_main(build_parser(), arguments)
    return status, capsys.readouterr().out


def test_run_status_and_rerun(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path)
    done = ablations("run", "demo", "--jobs", "2", "--out", out, "--entry", ENTRY)
    assert done.returncode == 0, done.stderr
    assert "7 finished" in done.stdout and "Traceback" not in done.stderr
    manifest = StudyManifest.load(tmp_path / "demo")
    assert len(manifest.arms) == 7 and manifest.revision == 1
    assert all(RunStore(tmp_path / "runs").record(cell.run_id).state == "finished" for cell in manifest.cells)
    status, said = here(capsys, "run", "demo", "--out", out, "--entry", ENTRY)
    assert status == 0 and "7 reused" in said
    status, said = here(capsys, "plan", "demo", "--out", out, "--seeds", "0,1")
    assert status == 0 and "14 cells: 7 to run, 7 reused; about 7 s" in said
    status, said = here(capsys, "status", "demo", "--out", out)
    assert status == 0 and "7 finished" in said
    assert here(capsys, "status", "demo", "--watch", "--out", out)[0] == 0, "ends when every cell has"


def test_a_failure_is_status_1_and_a_diverged_cell_is_not_planned_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    three = ["--only", "family=painter"], ["--only", "family=spade"], ["--only", "family=sean"]
    ends = [here(capsys, "run", "demo", "--out", str(tmp_path), "--entry", MISBEHAVING, *only) for only in three]
    assert [status for status, _ in ends] == [1, 1, 0]
    assert "demo: 1 failed in" in ends[0][1] and "it went wrong" in ends[0][1]
    assert "demo: 1 diverged in" in ends[1][1] and "loss is not finite" in ends[1][1]
    assert all("log.txt; the same command runs what is missing" in said for _, said in ends[:2])
    _, said = here(capsys, "status", "demo", "--out", str(tmp_path))
    assert "it went wrong" in said and "1 diverged, 1 failed, 1 finished, 4 new" in said
    _, said = here(capsys, "plan", "demo", "--out", str(tmp_path))
    assert "7 cells: 5 to run, 1 reused, 1 diverged (--again diverged); " in said
    _, said = here(capsys, "plan", "demo", "--out", str(tmp_path), "--only", "family=spade")
    assert "1 cells: 0 to run, 0 reused, 1 diverged (--again diverged)" in said and "cost" not in said


@pytest.mark.parametrize(
    ("words", "arms"),
    [
        (["family=painter", "family=spade"], {"family=painter", "family=spade"}),
        (["family=painter", "family=spade", "attention_loss=with"], {"family=painter", "family=spade"}),
        (["family=painter", "family=ca2sis", "attention_loss=without"], {"attention_loss=without"}),
    ],
)
def test_levels_of_a_factor_are_alternatives_and_factors_must_all_match(words: list[str], arms: set[str]) -> None:
    plan = make_plan(load_study("demo"), seeds=[0, 1])
    assert {cell.arm for cell in commands._chosen(plan, words)} == arms
    with pytest.raises(UserError, match="no arm matches all of them"):
        commands._chosen(plan, ["family=painter", "family=ca2sis"])
    assert {cell.arm for cell in commands._chosen(plan, ["reference", "family=painter"])} == {
        "reference",
        "family=painter",
    }
    listed = make_plan(load_study("attention_curves"), seeds=[0])
    assert [cell.arm for cell in commands._chosen(listed, ["hard", "access"])] == ["access", "hard"]


def test_a_time_limit_is_status_75(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    some = ("run", "demo", "--out", str(tmp_path), "--seeds", "0,1", "--only", "family=painter")
    status, said = here(capsys, *some, "--entry", SLOW, "--max-hours", "0.0005")
    assert status == 75 and "demo: 1 preempted, 1 left in" in said
    assert "time limit of 0.0005 h reached; run again to continue" in said
    status, said = here(capsys, *some, "--entry", ENTRY)
    assert status == 0 and "demo: 2 finished in" in said


def record_of(tmp_path: Path, arm: str) -> RunRecord:
    manifest = StudyManifest.load(tmp_path / "demo")
    record = RunStore(tmp_path / "runs").record(next(cell.run_id for cell in manifest.cells if cell.arm == arm))
    run = make_plan(load_study("demo")).runs[record.id]
    record.create(run.identity, to_yaml(run.config))
    return record


def test_a_changed_protocol_leaves_cells_to_measure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ("--out", str(tmp_path), "--only", "family=painter")
    assert here(capsys, "run", "demo", "--entry", ENTRY, *common)[0] == 0
    assert "1 cells: 0 to run, 1 reused" in here(capsys, "plan", "demo", *common)[1]
    record = record_of(tmp_path, "family=painter")
    record.update_provenance(protocols={StudyManifest.load(tmp_path / "demo").protocol: "the digest of another day"})
    _, said = here(capsys, "plan", "demo", *common)
    assert "to measure" in said and "1 cells: 0 to run, 1 to measure, 0 reused" in said and "cost" not in said


def test_status_shows_how_far_a_run_is_and_what_is_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert here(capsys, "run", "demo", "--out", str(tmp_path), "--entry", ENTRY, "--only", "family=painter")[0] == 0
    record = record_of(tmp_path, "family=sean")
    with record.writing():
        record.begin_attempt("trained")
        record.log({"iteration": 20, "kind": "train", "seconds": 40.0})
        record.log({"iteration": 24, "kind": "val", "psnr": 1.0})
        record.beat(30, 120)
        (row,) = [
            line for line in here(capsys, "status", "demo", "--out", str(tmp_path))[1].splitlines() if "SEAN" in line
        ]
    assert "running" in row and "30/120" in row and "3 min 00 s" in row, "90 iterations at 2 s"
    (row,) = [line for line in here(capsys, "status", "demo", "--out", str(tmp_path))[1].splitlines() if "SEAN" in line]
    assert "preempted" in row and "3 min" not in row


def test_watching_ends_when_nothing_runs_any_more(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert here(capsys, "run", "demo", "--out", str(tmp_path), "--entry", ENTRY, "--only", "family=painter")[0] == 0
    record = record_of(tmp_path, "family=sean")
    looks: list[bool] = []
    with contextlib.ExitStack() as held:
        held.enter_context(record.writing())
        record.begin_attempt("trained")

        def sleep(seconds: float) -> None:
            looks.append(record.is_live)
            if len(looks) == 5:
                held.close()  # the run's process has gone, and nobody starts another

        monkeypatch.setattr(commands, "time", SimpleNamespace(sleep=sleep))
        status, said = here(capsys, "status", "demo", "--watch", "--out", str(tmp_path))
    assert status == 0 and "1 preempted" in said
    assert looks == [True] * 5 + [False] * 3


def test_only_and_grid_and_seeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ("--out", str(tmp_path), "--entry", ENTRY)
    status, said = here(capsys, "run", "demo", *common, "--only", "family=painter", "--seeds", "0-2")
    assert status == 0 and "3 finished" in said
    status, said = here(
        capsys,
        "run",
        "--grid",
        "model=ca2sis,painter",
        "--seeds",
        "0,1",
        "--set",
        "preset=tiny",
        "--name",
        "g",
        *common,
    )
    assert status == 0 and "2 reused" in said and "2 finished" in said
    assert [arm.name for arm in StudyManifest.load(tmp_path / "g").arms] == ["reference", "model=painter"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["plan", "dmeo"], "did you mean demo"),
        (["plan", "demo", "--set", "trian.lr=1"], "unknown key trian.lr"),
        (["plan", "demo", "--seeds", "0,0"], "seeds [0, 0] has duplicates"),
        (["plan", "demo", "--seeds", "0-99999999999"], "is a range of more than 10000 seeds"),
        (["plan", "demo", "--seeds", "0,99999999999999"], "seeds.1 = 99999999999999: it must be less than 2147483648"),
        (["plan", "demo", "--budget", ""], "--budget: budget: rule declared needs a reason"),
        (["run", "demo", "--only", "family=sean2"], "did you mean family=sean"),
        (["run", "demo", "--on-error", "sometimes"], "--on-error"),
        (["run", "demo", "--jobs", "0"], "at least 1"),
        (["run", "demo", "--max-hours", "0"], "--max-hours"),
        (["run", "demo", "--slurm", "a=b"], "--executor slurm"),
        (["run"], "name a study"),
        (["plan", "demo", "--grid", "model=ca2sis,spade"], "not both"),
        (["status", "nothing"], "unknown study"),
        (["frobnicate"], "frobnicate"),
    ],
)
def test_mistakes_are_one_line_and_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    out = [] if arguments in (["frobnicate"],) else ["--out", str(tmp_path / "none")]
    assert run_main(build_parser(), [*arguments, *out]) == 2
    said = capsys.readouterr().err
    assert words in said and said.startswith("error: ") and len(said.strip().splitlines()) == 1
    assert not (tmp_path / "none").exists(), "a mistake leaves nothing behind"


def test_a_damaged_plan_or_kept_study_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").mkdir()
    for name, words in (("study.json", "study.json must be a mapping"), ("plan.json", "is not a study plan")):
        (tmp_path / "mine" / name).write_text("[]")
        assert run_main(build_parser(), ["status", "mine", "--out", str(tmp_path)]) == 2
        said = capsys.readouterr().err
        assert words in said and len(said.strip().splitlines()) == 1


def test_a_mistake_through_the_real_command_and_an_unwritable_output(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = ablations("run", "demo", "--out", str(tmp_path / "file" / "out"), "--entry", ENTRY)
    assert done.returncode == 2 and done.stderr.startswith("error: cannot write") and "Traceback" not in done.stderr


def test_help_reads_well(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["plan"], ["run"], ["status"], ["list"]):
        with pytest.raises(SystemExit) as ended:
            build_parser().parse_args([*arguments, "--help"])
        assert ended.value.code == 0 and "usage: python -m ablations" in capsys.readouterr().out


def test_planning_never_imports_torch() -> None:
    code = "import sys; from ablations.commands import build_parser; from ablations.plan import make_plan\n"
    code += "from ablations.study import load_study; make_plan(load_study('demo')); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_executor_slurm_through_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("submitit", reason="needs the package submitit")
    common = ("run", "demo", "--out", str(tmp_path), "--executor", "slurm")
    status, said = here(
        capsys,
        *common,
        "--only",
        "family=painter",
        "--entry",
        ENTRY,
        "--slurm",
        "cluster=local",
        "--slurm",
        "cpus_per_task=1",
    )
    assert status == 0 and "1 finished" in said
    assert here(capsys, *common, "--slurm", "partition=gpu")[0] == 2

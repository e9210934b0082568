"""The command line of studies, run as users run it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ablations.commands import build_parser
from pipeline.cli import run_main
from pipeline.records import RunStore, StudyManifest

ENTRY = "tests.pipeline.launch.fakes:train"


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
        (["plan", "demo", "--seeds", "0,0"], "must be different"),
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

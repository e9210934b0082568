"""The commands of docs/studies.md and docs/sweeps.md are carried out, with a trainer that costs nothing."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from ablations.commands import build_parser as studies_parser
from ablations.designs import arms_of
from ablations.study import parse_study
from pipeline.cli import run_main
from sweeps.commands import build_parser as sweeps_parser
from sweeps.sweep import check, parse_sweep

DOCS = Path(__file__).parents[2] / "docs"


def commands(page: str) -> list[list[str]]:
    blocks = re.findall(r"^```sh\n(.*?)^```", (DOCS / page).read_text(), flags=re.MULTILINE | re.DOTALL)
    return [shlex.split(line)[2:] for block in blocks for line in block.splitlines()]


def test_studies_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = commands("studies.md")
    assert len(found) >= 10 and all(arguments[0] == "ablations" for arguments in found)
    for _, command, *rest in found:
        extra = [] if command == "list" else ["--out", str(tmp_path)]
        if command == "run":
            extra += ["--entry", "tests.pipeline.launch.fakes:train"]
        assert run_main(studies_parser(), [command, *rest, *extra]) == 0, (rest, capsys.readouterr())
    assert "7 finished" in capsys.readouterr().out


def test_sweeps_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = commands("sweeps.md")
    assert [arguments[1] for arguments in found] == ["list", "run", "status", "best", "importance", "plots"]
    for _, command, *rest in found:
        extra = [] if command == "list" else ["--out", str(tmp_path)]
        if command == "run":
            extra += ["--entry", "tests.sweeps.fakes:train"]
        assert run_main(sweeps_parser(), [command, *rest, *extra]) == 0, (command, capsys.readouterr())
    assert (tmp_path / "sweeps" / "attention_loss" / "best.yaml").exists()
    assert {path.stem for path in (tmp_path / "sweeps" / "attention_loss" / "plots").iterdir()} >= {"history", "slice"}


def test_the_pages_files_are_valid() -> None:
    for page in ("studies.md", "sweeps.md"):
        (block,) = re.findall(r"^```yaml\n(.*?)^```", (DOCS / page).read_text(), flags=re.MULTILINE | re.DOTALL)
        if page == "studies.md":
            assert len(arms_of(parse_study(yaml.safe_load(block), page))) == 4
        else:
            check(parse_sweep(yaml.safe_load(block), page))

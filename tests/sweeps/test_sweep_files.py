"""What a sweep file means and by which words a sweep is known: through the command."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.cli import run_main
from pipeline.config import compose
from pipeline.errors import UserError
from pipeline.launch.job import load_entry
from sweeps.commands import build_parser
from sweeps.sweep import load_sweep
from tests.pipeline.data.samples import write_folder
from tests.sweeps.fakes import ENTRY

FILE = """
name: mine
question: How strong?
base: [preset=tiny]
space:
  loss.attention.weight: {kind: float, low: 1e-4, high: 1E1, log: true}
  loss.attention.kind: {kind: categorical, choices: [bce, off, on]}
objectives: [psnr]
trials: 2
sampler: {kind: random}
"""


def command(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit status and everything that `python -m sweeps` says."""
    capsys.readouterr()
    status = run_main(build_parser(), arguments)
    said = capsys.readouterr()
    return status, said.out + said.err


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "some_file.yaml"
    path.write_text(FILE)
    return path


def test_numbers_and_names_are_those_of_yaml_1_2(file: Path) -> None:
    made = load_sweep(str(file))
    weight, kind = made.space.values()
    assert (weight.low, weight.high) == (1e-4, 10.0) and kind.choices == ("bce", "off", "on")
    assert made.objectives == {"psnr": "max"}


@pytest.mark.parametrize(
    ("written", "instead", "words"),
    [
        ("low: 1e-4", "low: 1_000", 'space.loss.attention.weight.low = "1_000": it must be a number'),
        ("[psnr]", "{psnr: min}", "objectives: psnr: min contradicts the metric's own direction, max"),
        ("[psnr]", "[params]", "params is neither good nor bad by itself; write {params: min} or max"),
        ("[psnr]", "[fd_seg]", "no trial would have a value of fd_seg: protocol quick does not measure the group distribution"),
        ("log: true", "step: 0.0", "space.loss.attention.weight.step = 0.0: it must be more than 0"),
        ("  loss.attention.weight:", "  seed:", "sweep mine, space: seed is not for searching: the best would be the luckiest"),
        ("trials: 2", "trials: 2\ntrials: 3", "key trials stands twice, in lines 9 and 10"),
        ("[preset=tiny]", "{preset: tiny}", "base is a mapping; it must be a list of overrides, like [model=sean"),
        ("[preset=tiny]", "[preset=tiny, notes=a=b]", "sweep mine, base: config: notes=a=b: this value cannot be read"),
        ("{kind: random}", "{kind: rnadom}", 'sampler.kind = "rnadom": it must be tpe, cmaes, nsga2, qmc or random'),
    ],
)  # fmt: skip
def test_what_is_refused_names_the_place(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], written: str, instead: str, words: str
) -> None:
    assert written in FILE
    file.write_text(FILE.replace(written, instead).replace("bce, off, on", "bce, ce"))
    status, said = command(capsys, "run", str(file), "--out", str(tmp_path / "out"))
    assert status == 2 and words in said and len(said.splitlines()) == 1
    assert not (tmp_path / "out").exists(), "a mistake leaves nothing behind"


def test_a_sweep_is_known_by_name_file_and_folder_once_it_has_run(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(FILE.replace("bce, off, on", "bce, ce"))
    out = tmp_path / "out"
    assert command(capsys, "run", str(file), "--out", str(out), "--entry", ENTRY)[0] == 0
    for word in ("mine", str(file), str(out / "sweeps" / "mine")):
        place = () if word.endswith("sweeps/mine") else ("--out", str(out))
        status, said = command(capsys, "status", word, *place)
        assert status == 0 and "mine, revision 1" in said and "2 finished" in said
        status, said = command(capsys, "run", word, *place, "--entry", ENTRY)
        assert status == 0 and "revision 2" not in said and "2 finished" in said, (
            "the same search, which has its trials"
        )
    status, said = command(capsys, "best", "mine", "--out", str(out))
    assert status == 0 and f"use it with +best=mine --out {out}" in " ".join(said.split())
    assert compose(["+best=mine"], out) == compose([f"+best={out / 'sweeps' / 'mine' / 'best.yaml'}"])
    status, said = command(capsys, "status", "mien", "--out", str(out))
    assert status == 2 and "unknown sweep 'mien' (did you mean mine?)" in said
    with pytest.raises(UserError, match="no best.yaml of mine below nowhere"):
        compose(["+best=mine"], Path("nowhere"))


def test_photos_that_change_under_a_sweep_stop_it(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Names are what a revision is made of; trials on other photos of the same name would be ranked with the old ones."""
    root = write_folder(tmp_path / "photos", 12)
    file.write_text(
        FILE.replace("bce, off, on", "bce, ce").replace("preset=tiny", f"preset=tiny, data=folder, data.root={root}")
    )
    words = ("run", str(file), "--entry", ENTRY, "--out")
    assert command(capsys, *words, str(tmp_path / "out"))[0] == 0
    (root / "images" / "face3.png").write_bytes((root / "images" / "face4.png").read_bytes())
    status, said = command(capsys, *words, str(tmp_path / "out"), "--trials", "3")
    assert status == 2 and said.startswith(
        "error: sweep mine: its data changed after its first trial, so new trials would"
    )
    assert command(capsys, "status", str(file), "--out", str(tmp_path / "out"))[0] == 0, "what is known is still shown"
    assert command(capsys, *words, str(tmp_path / "other"))[0] == 0


def test_the_older_name_of_entry_still_works(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(FILE.replace("bce, off, on", "bce, ce"))
    assert command(capsys, "run", str(file), "--out", str(tmp_path / "out"), "--trainer", ENTRY)[0] == 0


def old_contract(resolved: object, store: object, options: object) -> None:
    """What `--entry` of studies took once."""


def test_one_contract_carries_out_a_run_everywhere() -> None:
    """A study's entry, a trial and the trial's own trainer are called alike."""
    for entry in ("pipeline.runs.run:execute", "sweeps.trial:execute", "pipeline.bench.nothing:train", ENTRY):
        assert callable(load_entry(entry))
    with pytest.raises(
        UserError, match=r"must take \(resolved, store, \*, progress, on_validation=None, \*\*options\)"
    ):
        load_entry(f"{__name__}:old_contract")

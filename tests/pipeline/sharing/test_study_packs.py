"""A study of two machines, brought together: its runs, and the segmenter that judged them."""

from __future__ import annotations

import csv
import io
import json
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save

from ablations.commands import build_parser
from analysis.__main__ import main as analysis
from pipeline.__main__ import main
from pipeline.cli import run_main
from pipeline.data.types import SPLITS
from pipeline.records import RunRecord, RunStore
from tests.pipeline.data.samples import write_folder
from tests.pipeline.tiny import TINY, run


@dataclass(frozen=True)
class Machines:
    """What one machine has run (three of four cells) and packed, and the study's file."""

    study: Path
    here: Path
    packs: Path

    def store(self) -> RunStore:
        return RunStore(self.here / "runs")

    def trained(self) -> RunRecord:
        (found,) = (
            record for record in map(self.store().record, self.store().ids()) if record.status["kind"] == "trained"
        )
        return found

    def judge(self) -> Path:
        (found,) = self.packs.glob("*.segmenter.safetensors")
        return found


def ablations(*arguments: str) -> int:
    return run_main(build_parser(), arguments)


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Machines:
    """A rule at both seeds, a network at seed 0; packed without weights and pictures."""
    folder = tmp_path_factory.mktemp("machines")
    base = [word for word in TINY if not word.startswith("protocol")] + ["protocol.segmenter.iterations=6"]
    study = {
        "name": "two", "question": "Which?", "base": ["preset=tiny", *base], "design": "list", "reference": "painter",
        "arms": {name: {"label": name, "overrides": [f"model={name}"]} for name in ("painter", "ca2sis")}, "seeds": [0, 1],
        "protocol": "standard", "split": "test", "budget": {"rule": "equal"},
        "metrics": {"primary": {"psnr": "max"}, "secondary": {"seg_miou": "max"}},
    }  # fmt: skip
    made = Machines(folder / "two.yaml", folder / "here", folder / "packs")
    made.study.write_text(yaml.safe_dump(study))
    assert ablations("run", str(made.study), "--seeds", "0", "--out", str(made.here)) == 0
    assert ablations("run", str(made.study), "--only", "painter", "--out", str(made.here)) == 0
    words = ["--without", "weights", "pictures", "--to", str(made.packs), "--out", str(made.here)]
    assert main(["pack", str(made.here / "two"), *words]) == 0
    return made


def test_a_study_of_two_machines_is_brought_together(
    machines: Machines, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["unpack", str(machines.packs), "--out", str(tmp_path)]) == 0
    assert "\nsegmenter: " in capsys.readouterr().out
    assert ablations("run", str(machines.study), "--out", str(tmp_path)) == 0
    assert "3 reused" in (said := capsys.readouterr().out) and "1 finished" in said, said
    for run_id in machines.store().ids():
        assert RunStore(tmp_path / "runs").record(run_id).metrics == machines.store().record(run_id).metrics
    assert analysis(["table", "two", "--format", "csv", "--out", str(tmp_path)]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    found = [(row["label"], row["psnr:n"], row["seg_miou:n"]) for row in rows]
    assert found == [("ca2sis", "2", "2"), ("painter", "2", "2")], "one judge, one column"


def test_a_pack_says_what_it_lacks(machines: Machines, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in machines.packs.glob("*.zip"):
        with zipfile.ZipFile(file) as packed:
            learned = "\n- ca2sis\n" in packed.read("README.md").decode()
            left_out = ["pictures", "weights"] if learned else ["pictures"]
            assert json.loads(packed.read("pack.json"))["without"] == left_out
            assert not [name for name in packed.namelist() if name.endswith((".png", ".safetensors"))]
            assert ("The weights were left out" in packed.read("README.md").decode()) == learned
    assert (
        main(["pack", "two", "--without", "weights", "pictures", "--to", str(tmp_path), "--out", str(machines.here)])
        == 0
    )
    said = capsys.readouterr().out
    assert said.startswith("packed: 3 runs of two in ") and said.endswith("not finished, hence not packed: 1\n")
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {
        file.name: file.read_bytes() for file in machines.packs.iterdir()
    }
    assert main(["pack", "two", "--to", str(tmp_path / "x.zip"), "--out", str(machines.here)]) == 2
    assert ablations("plan", str(machines.study), "--out", str(tmp_path / "new")) == 0
    shutil.copytree(machines.here / "two", tmp_path / "new" / "two")
    capsys.readouterr()
    assert main(["pack", "two", "--out", str(tmp_path / "new")]) == 2
    assert "no finished run" in capsys.readouterr().err


def test_weights_come_later_with_a_pack_of_the_same_training(
    machines: Machines, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, run_id = tmp_path / "there", machines.trained().id
    assert main(["unpack", str(machines.packs), "--out", str(out)]) == 0
    quick = ["evaluate", run_id, "--protocol", "quick", "--out", str(out)]
    assert main(quick) == 2
    assert f"the weights of run {run_id[:10]} are not here" in capsys.readouterr().err
    assert main(["pack", run_id, "--to", str(tmp_path / "on.zip"), "--out", str(out)]) == 2
    assert "pack it with --without weights" in capsys.readouterr().err
    without = ["--without", "weights", "pictures"]
    assert main(["pack", run_id, *without, "--to", str(tmp_path / "on.zip"), "--out", str(out)]) == 0
    assert (tmp_path / "on.zip").read_bytes() == (machines.packs / f"{run_id[:10]}.zip").read_bytes()
    whole = str(tmp_path / "whole.zip")
    assert main(["pack", run_id, "--to", whole, "--out", str(machines.here)]) == 0
    history = out / "runs" / run_id / "history.jsonl"
    own = history.read_bytes()
    history.write_bytes(
        own + b'{"iteration": 8, "kind": "train", "seconds": 1.0}\n'
    )  # as if trained on another machine
    capsys.readouterr()
    assert main(["unpack", whole, "--out", str(out)]) == 2
    assert "from another training of it" in capsys.readouterr().err
    history.write_bytes(own)
    assert main(["unpack", whole, "--out", str(out)]) == 0
    assert main(quick) == 0


# -- the segmenter -----------------------------------------------------------------------------------------------------


def kept_in(out: Path) -> Path:
    (found,) = (out / "cache" / "segmenter").glob("*.pt")
    return found


def test_a_segmenter_is_taken_where_no_other_one_is(
    machines: Machines, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["unpack", *map(str, machines.packs.glob("*.zip")), "--out", str(tmp_path)]) == 0
    assert f"not asked for: {machines.judge()}" in capsys.readouterr().out
    assert main(["unpack", str(machines.judge()), "--out", str(tmp_path)]) == 0, "its runs are here already"
    own, taken = (torch.load(kept_in(out), weights_only=True) for out in (machines.here, tmp_path))
    assert own["record"] == taken["record"] and all(
        torch.equal(value, taken["state"][key]) for key, value in own["state"].items()
    )
    for part in ("state", "feature_mean"):
        other = {**taken, part: taken[part] + 1 if part == "feature_mean" else dict(taken["state"])}
        if part == "state":
            first = next(iter(taken["state"]))
            other["state"][first] = taken["state"][first] + 1
        torch.save(other, kept_in(tmp_path))
        capsys.readouterr()
        assert main(["unpack", str(machines.packs), "--out", str(tmp_path)]) == 0
        assert "segmenter left out: another one is at " in capsys.readouterr().out, part


def spoilt(own: dict[str, Any]) -> list[tuple[bytes, str]]:
    """Files that are no segmenter of this study, and what is said of them."""
    sound = {f"state.{key}": value.contiguous() for key, value in own["state"].items()}
    sound |= {name: own[name] for name in ("feature_mean", "feature_std")}
    told = {"record": json.dumps(own["record"])}
    return [
        (b"\x09", "no safetensors file"),
        (save({"state.x": torch.zeros(1)}), "not the network"),
        (save({**sound, "feature_mean": own["feature_mean"] * float("nan")}, told), "none that training leaves"),
        (save({**sound, "feature_std": own["feature_std"] * 0}, told), "none that training leaves"),
        (save(sound, {"record": '{"updates": 6}'}), "does not say how it was trained"),
        (save(sound, {"record": "[" * 900 + "]" * 900}), "does not say how it was trained"),
        (
            save({key: value for key, value in sound.items() if key != "feature_std"}, told),
            "standardised by is missing",
        ),
    ]


def test_a_file_that_is_not_the_segmenter_is_refused(
    machines: Machines, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packs = tmp_path / "packs"
    shutil.copytree(machines.packs, packs)
    file = packs / machines.judge().name
    for content, said in spoilt(torch.load(kept_in(machines.here), weights_only=True)):
        file.write_bytes(content)
        capsys.readouterr()
        assert main(["unpack", str(packs), "--out", str(tmp_path / "out")]) == 2
        assert said in (line := capsys.readouterr().err) and line.count("\n") == 1
        assert not list((tmp_path / "out" / "cache" / "segmenter").glob("*.pt"))
    file.rename(packs / f"{'0' * 32}.segmenter.safetensors")
    assert main(["unpack", str(packs), "--out", str(tmp_path / "out")]) == 0
    assert "judges no run here by the photos that are here" in capsys.readouterr().out


def test_runs_of_several_data_sets_find_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each by the content of the photos: `--data-root` once for each set, in any order."""
    out, packs, here = tmp_path / "out", tmp_path / "packs", tmp_path / "here"
    packs.mkdir()
    ids = {}
    for name, size in (("faces", 48), ("others", 40)):
        write_folder(tmp_path / name, 6, size=size)
        made = run(
            out,
            "model=painter",
            "data=folder",
            f"data.root={tmp_path / name}",
            *(f"data.{s}_images=null" for s in SPLITS),
        )
        assert main(["pack", made.id, "--to", str(packs / f"{name}.zip"), "--out", str(out)]) == 0
        ids[name] = made.id
    roots = [word for name in ("others", "faces") for word in ("--data-root", str(tmp_path / name))]
    assert main(["unpack", str(packs), *roots, "--out", str(here)]) == 0
    store = RunStore(here / "runs")
    for name, run_id in ids.items():
        assert yaml.safe_load(store.record(run_id).config_yaml)["data"]["root"] == str(tmp_path / name)
    capsys.readouterr()
    write_folder(tmp_path / "strangers", 6, size=32)
    roots = ["--data-root", str(tmp_path / "strangers"), "--data-root", str(tmp_path / "faces")]
    assert main(["unpack", str(packs), *roots, "--out", str(tmp_path / "there")]) == 0
    assert "photos in none of the folders of --data-root: those of 1 of 2 runs" in capsys.readouterr().out

"""What a study file means, and what is refused before anything is trained: through the command."""

from __future__ import annotations

from pathlib import Path

import pytest

from ablations.commands import build_parser
from ablations.plan import make_plan
from ablations.study import TAKEN, load_study
from pipeline.cli import run_main
from pipeline.models.build import build_generator
from pipeline.records import StudyManifest
from pipeline.schema.base import ModelSection
from pipeline.schema.families import FAMILIES
from pipeline.schema.measures import BY_TRAINING, MEASURED
from tests.pipeline.data.samples import write_folder

ENTRY = ("--entry", "tests.pipeline.launch.fakes:train")
LEVELS = """
name: levels
question: Which switch matters?
base: [preset=tiny, data=procfaces]
design: one_at_a_time
factors:
  conditioning:
    reference: off
    levels:
      off: []
      on: [loss.attention.weight=2]
      no: [model.conditioning=none, loss.attention.kind=off]
metrics: {primary: psnr}
"""


def command(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit status and everything that `python -m ablations` says."""
    capsys.readouterr()
    status = run_main(build_parser(), arguments)
    said = capsys.readouterr()
    return status, said.out + said.err


@pytest.fixture
def planned(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Plans a study file of the given text: (exit status, words)."""
    monkeypatch.setenv("COLUMNS", "200")

    def plan(text: str, *more: str) -> tuple[int, str]:
        file = tmp_path / "study.yaml"
        file.write_text(text)
        return command(capsys, "plan", str(file), "--out", str(tmp_path / "out"), *more)

    return plan


def test_levels_named_off_on_and_no_are_three_arms(tmp_path: Path, capsys: pytest.CaptureFixture[str], planned) -> None:  # type: ignore[no-untyped-def]
    status, said = planned(LEVELS, "--diff")
    assert status == 0 and "3 arms x 1 seeds" in said and "conditioning=on" in said and "conditioning=no" in said
    made = make_plan(load_study(str(tmp_path / "study.yaml"))).manifest
    assert [(arm.name, arm.overrides) for arm in made.arms] == [
        ("reference", ()),
        ("conditioning=on", ("loss.attention.weight=2",)),
        ("conditioning=no", ("model.conditioning=none", "loss.attention.kind=off")),
    ]
    assert made.arms[0].levels == {"conditioning": "off"}


REFUSED: dict[str, tuple[str, str]] = {  # what a study says -> (what it says instead, words of the refusal)
    "      on: [": (
        "      off: [seed=1]\n      on: [",
        "key off of factors.conditioning.levels stands twice, in lines 10 and 11",
    ),
    "metrics:": ("seeds: [0]\nseeds: [1]\nmetrics:", "key seeds stands twice, in lines 13 and 14"),
    "[preset=tiny, data=procfaces]": (
        "{preset: tiny}",
        "base is a mapping; it must be a list of overrides, like [model=sean",
    ),
    "name: levels": ("name: runs", "OUT/runs is taken"),
    "[loss.attention.weight=2]": (
        "[notes=a=b]",
        "arm conditioning=on: notes=a=b: this value cannot be read; where it is meant as text, quote it: \"notes='a=b'\"",
    ),
    "no: [model.conditioning=none, loss.attention.kind=off]": (
        "no: [model.conditioning=none]",
        "study levels, arm conditioning=no: loss.attention is on, but this model has no attention maps",
    ),
    "data=procfaces]": ("data=procfaces, notes=a=b]", "study levels, base: notes=a=b: this value cannot be read"),
    "on: [loss.attention.weight=2]": (
        "on: {label: reference, overrides: [seed=3]}",
        "arms reference and conditioning=on have one label, 'reference'",
    ),
}
UNMEASURED = {  # metrics of a study -> words of the refusal
    "{primary: {psnr: min}}": "metrics.primary: psnr: min contradicts the metric's own direction, max",
    "{primary: fd_seg}\nprotocol: quick\nsplit: test": "fd_seg: protocol quick does not measure the group distribution; "
    "measured under protocol paper or standard or standard_64",
    "{primary: psnr}\nprotocol: quick": "psnr: protocol quick measures split val, not test",
    "{primary: fd_seg}\nprotocol: quick\nsplit: val": "add protocol.groups=[reconstruction,attention,distribution] to base",
    "{primary: robust_psnr_area_confusion}": "measures mask noise of jitter, dilation, dropped",
    "{primary: edit_psnr}": "name one, as in edit_psnr_TASK",
    "{primary: edit_psnr_sampling}": "protocol standard edits by",
    "{primary: pixel_div}": "ca2sis, as configured, does not sample styles",
}


@pytest.mark.parametrize(
    ("written", "instead", "words"),
    [
        *((written, *item) for written, item in REFUSED.items()),
        *(("{primary: psnr}", metrics, words) for metrics, words in UNMEASURED.items()),
    ],
)
def test_what_is_refused_names_the_place(planned, written: str, instead: str, words: str) -> None:  # type: ignore[no-untyped-def]
    assert written in LEVELS
    status, said = planned(LEVELS.replace(written, instead))
    assert status == 2 and said.startswith("error: ") and len(said.splitlines()) == 1
    assert words in said


def test_attention_metrics_need_one_arm_with_attention(planned) -> None:  # type: ignore[no-untyped-def]
    wanted = "metrics: {primary: psnr, secondary: [attention_miou]}"
    arms = "name: s\nquestion: q?\nbase: [preset=tiny]\ndesign: list\nreference: a\narms: {{a: [model=spade], b: [model={}]}}\n"
    status, said = planned(arms.format("sean") + wanted)
    assert status == 2 and "attention_miou: spade, as configured, has no attention maps; sean, as configured," in said
    assert planned(arms.format("ca2sis") + wanted)[0] == 0


def test_true_edits_are_asked_of_photos_in_vain(tmp_path: Path, planned) -> None:  # type: ignore[no-untyped-def]
    """Photos have no ground truth of edits; what needs none is measured on them."""
    root = write_folder(tmp_path / "photos", 12)
    text = LEVELS.replace("data=procfaces", f"data=folder, data.root={root}, size=32")
    status, said = planned(text.replace("{primary: psnr}", "{primary: edit_psnr_style_transfer}"))
    assert status == 2 and "edit_psnr_style_transfer: data folder have no true edits to compare with" in said
    assert planned(text.replace("{primary: psnr}", "{primary: edit_outside_change_style_transfer}"))[0] == 0


def test_weights_that_are_missing_are_told_before_anything_runs(
    planned, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    status, said = planned(LEVELS.replace("{primary: psnr}", "{primary: psnr, secondary: [fid, ssim]}"))
    assert status == 0
    assert (
        "! fid will be unavailable: inception-2015-12-05.pt is missing (get it with `python -m pipeline weights fetch inception`"
        in said
    )
    assert "ssim will" not in said
    assert "cannot train" not in said
    status, said = planned(LEVELS.replace("base: [", "base: [loss.perceptual.weight=10, "))
    assert status == 0
    assert "cannot train: their perceptual loss needs VGG-19, and vgg19-dcbb9e9d.pth is missing (get it with" in said


def test_a_study_is_known_by_name_file_and_folder_once_it_has_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "file.yaml", tmp_path / "out"
    file.write_text(LEVELS)
    assert command(capsys, "run", str(file), "--out", str(out), *ENTRY)[0] == 0
    for word in ("levels", str(file), str(out / "levels")):
        place = () if word == str(out / "levels") else ("--out", str(out))
        assert "3 finished" in command(capsys, "status", word, *place)[1]
        assert "3 reused" in command(capsys, "plan", word, *place)[1]
        status, said = command(capsys, "run", word, *place, *ENTRY)
        assert status == 0 and "3 reused" in said
    assert StudyManifest.load(out / "levels").revision == 1, "the same study each time"
    status, said = command(capsys, "plan", "levles", "--out", str(out))
    assert status == 2 and "unknown study 'levles' (did you mean levels or baselines?)" in said


def test_best_is_looked_for_in_the_output_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, where in (("w", "sweeps"), ("v", "sweeps"), ("v", "elsewhere")):
        folder = tmp_path / where / name
        folder.mkdir(parents=True)
        (folder / "best.yaml").write_text("overrides: [train.batch_size=2]\n")
    some = ("plan", "demo", "--seeds", "0", "--only", "family=painter", "--out", str(tmp_path), "--set")
    assert command(capsys, *some, "+best=w")[0] == 0
    assert command(capsys, *some, f"+best={tmp_path / 'sweeps' / 'w'}")[0] == 0
    status, said = command(capsys, *some, "+best=v")
    assert status == 2 and "several files are meant" in said
    status, said = command(capsys, *some[:-3], "--out", str(tmp_path / "other"), "--set", "+best=w")
    assert status == 2 and f"no best.yaml of w below {tmp_path / 'other'}" in said


def test_folders_of_an_output_folder_are_no_studies() -> None:
    assert set(TAKEN) == {"runs", "cache", "sweeps", "slurm"}


def test_what_a_group_measures_is_the_vocabulary_of_metrics() -> None:
    from pipeline.records.metric_specs import SPECS

    assert {name for names in MEASURED.values() for name in names} | set(BY_TRAINING) == set(SPECS)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_section_promises_what_the_network_can(family: str) -> None:
    from pipeline.config import compose

    variants = {"ca2sis": ["model.conditioning=none", "model.mapping.enabled=true"], "spade": ["model.style=none"]}
    for more in ([], *([item] for item in variants.get(family, []))):
        off = ["loss.attention.kind=off"] if more == ["model.conditioning=none"] else []
        config = compose([f"model={family}", "preset=tiny", "size=32", *more, *off])
        if isinstance(config.model, ModelSection):
            able = build_generator(config.model, 19, (32, 32)).capabilities
            assert (config.model.has_attention, config.model.samples) == (able.attention, able.sampling)

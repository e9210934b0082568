"""The report file: what it says, that it is whole, safe and byte-identical, and how it takes poor records."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import itertools
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.__main__ import main
from analysis.comparisons import Comparison
from analysis.figures.load import figure_data
from analysis.figures.samples import study_samples
from analysis.frame import load_study
from analysis.report import images
from analysis.report.images import build_comparer
from analysis.report.runs import (
    ABSENT,
    config_changes,
    config_of,
    duration,
    paint_command,
    run_views,
    train_command,
)
from analysis.report.verdict import decide, write_verdict
from analysis.statistics.intervals import Interval
from pipeline.records import RunStore
from tests.analysis.sample_images import add_samples
from tests.analysis.synthetic import ARMS, PSNR, SSIM, SyntheticArm, make_study

EVIL = "</script><script>window.pwned=1</script><img src=x onerror=window.pwned=1>\"'&${7*7}{{7*7}}"
VOID = {"meta", "link", "img", "input", "br"}


class Page(HTMLParser):
    """Collects tags with attributes, and checks that they nest."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.scripts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID and tag not in ("path",):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        else:
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def report(out: Path, *arguments: str) -> str:
    assert main(["report", "synthetic", "--out", str(out), *arguments]) == 0
    return (out / "synthetic" / "report.html").read_text()


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("out")
    arms = (*ARMS[:3], dataclasses.replace(ARMS[3], states={1: "diverged"}), ARMS[4])
    manifest = make_study(out, arms=arms, metrics=(PSNR,), seeds=(0, 1))
    add_samples(out, manifest, count=3)
    return out, report(out)


# -- the file -------------------------------------------------------------------------------------------------------------


def test_everything_is_written_and_named(usual: tuple[Path, str], capsys: pytest.CaptureFixture[str]) -> None:
    folder = usual[0] / "synthetic"
    for name in (
        "report.html",
        "table.md",
        "table.tex",
        "table.csv",
        "figures/arms_psnr.pdf",
        "figures/reconstructions.png",
    ):
        assert (folder / name).stat().st_size > 0
    report(usual[0])
    assert str(folder / "report.html") in capsys.readouterr().out


def test_rebuild_is_byte_identical(usual: tuple[Path, str]) -> None:
    folder = usual[0] / "synthetic"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    report(usual[0])
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_page_is_well_formed_whole_and_loads_nothing(usual: tuple[Path, str]) -> None:
    page = Page(usual[1])
    assert len(usual[1].encode()) < 20_000_000
    for tag, attributes in page.tags:
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#")), (tag, name, value)
        assert not any(name.startswith("on") or name == "style" for name in attributes), (tag, attributes)
    assert "url(" not in usual[1].split("</style>")[0]
    assert not re.search(r"\bfetch\(|XMLHttpRequest|import\(", page.scripts[-1])


def test_images_and_controls_have_names(usual: tuple[Path, str]) -> None:
    page = Page(usual[1])
    ids = {attributes["id"] for _, attributes in page.tags if attributes.get("id")}
    pictures = [attributes for tag, attributes in page.tags if tag == "img" and attributes.get("src")]
    assert pictures and all(len(attributes["alt"] or "") > 10 for attributes in pictures)
    assert all("alt" in attributes for tag, attributes in page.tags if tag == "img")
    for _, attributes in page.tags:
        if (attributes.get("href") or "").startswith("#"):
            assert (attributes["href"] or "")[1:] in ids
    assert ("html", {"lang": "en"}) in page.tags
    headings = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert headings.count(1) == 1 and all(after - before <= 1 for before, after in itertools.pairwise(headings))


def test_policy_allows_exactly_the_inline_assets(usual: tuple[Path, str]) -> None:
    policy = next(a["content"] or "" for tag, a in Page(usual[1]).tags if tag == "meta" and a.get("http-equiv"))
    script = re.search(r"<script>(.*?)</script>", usual[1], re.S)
    style = re.search(r"<style>(.*?)</style>", usual[1], re.S)
    assert script and style
    for source in (script[1], style[1]):
        assert f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'" in policy
    assert "default-src 'none'" in policy and "unsafe" not in policy


# -- what it says ---------------------------------------------------------------------------------------------------------


def test_it_answers_the_question_and_shows_every_run(usual: tuple[Path, str]) -> None:
    words = Page(usual[1]).words
    assert "Which part of the synthetic model matters?" in words
    assert "CA²-SIS has the best PSNR" in words or "no attention loss has the best PSNR" in words
    assert "1 of 10 runs did not finish" in words
    assert "loss_g is NaN at iteration 40" in words
    assert "Fewer than 5 seeds" in words
    for cell in load_study(usual[0], "synthetic").manifest.cells:
        assert f"runs/{cell.run_id}" in words
        assert train_command(cell.overrides) in words
    assert "python -m ablations run synthetic" in words
    assert "0123456789abcdef" in words and "synthetic images" in words


def test_failed_runs_come_first(usual: tuple[Path, str]) -> None:
    views = run_views(load_study(usual[0], "synthetic"))
    assert [view.state for view in views] == ["diverged", *["finished"] * 9]
    assert views[0].score == "" and views[1].score.endswith(" dB")


def comparison(
    advantage: float, direction: str, p_holm: float | None, interval: tuple[float, float] | None
) -> Comparison:
    difference = -advantage if direction == "min" else advantage
    found = None if interval is None else Interval(
        estimate=difference, lower=interval[0], upper=interval[1], level=0.95, seeds=1, images=9,
        standard_error=0.1, parts=((1.0, 8),),
    )  # fmt: skip
    return Comparison("b", "a", "m", direction, (0,), (difference,), found, None, p_holm)


@pytest.mark.parametrize(
    ("item", "tone"),
    [
        (comparison(1.0, "max", 0.01, None), "better"),
        (comparison(-1.0, "max", 0.01, None), "worse"),
        (comparison(1.0, "min", 0.01, None), "better"),
        (comparison(9.0, "max", 0.06, (8.0, 10.0)), "same"),  # the test over seeds decides where there is one
        (comparison(1.0, "max", None, (0.5, 1.5)), "better"),
        (comparison(1.0, "max", None, (-0.5, 1.5)), "same"),
        (comparison(1.0, "max", None, None), "same"),
        (comparison(1.0, "none", 0.001, None), "note"),
    ],
)
def test_verdict_needs_evidence(item: Comparison, tone: str) -> None:
    assert decide(item, over_seeds=item.p_holm is not None) == tone


@pytest.mark.parametrize("interval", [(0.5, 1.5), (-0.5, 1.5), None])
def test_where_others_have_a_test_over_seeds_one_seed_decides_nothing(interval: tuple[float, float] | None) -> None:
    assert decide(comparison(1.0, "max", None, interval), over_seeds=True) == "untested"
    assert decide(comparison(1.0, "none", None, interval), over_seeds=True) == "note"


def test_verdict_finds_the_planted_effect_and_the_loser_to_the_trivial_baseline(tmp_path: Path) -> None:
    make_study(tmp_path, seeds=range(5), metrics=(PSNR,), history=False)
    verdict = write_verdict(figure_data(load_study(tmp_path, "synthetic")))
    tones = {
        finding.arm: finding.tone for finding in verdict.findings if "than" in finding.text or "told" in finding.text
    }
    assert tones["spade"] == "worse" and tones["spade_conditioning"] == "worse"
    assert any("SPADE does not beat the trivial region-mean painter" in finding.text for finding in verdict.findings)
    assert "Holm" in verdict.rule


def test_verdict_of_one_seed_warns_of_training_noise(tmp_path: Path) -> None:
    make_study(tmp_path, seeds=(7,), metrics=(PSNR,), history=False)
    verdict = write_verdict(figure_data(load_study(tmp_path, "synthetic")))
    assert "another seed may turn it round" in verdict.rule and "undecided (n = 1)" not in verdict.lead
    compared = [finding.text for finding in verdict.findings if "interval" in finding.text]
    assert len(compared) == 3 and all("interval over test images" in text and "n = 1 seed" in text for text in compared)


@given(st.dictionaries(st.text(min_size=1), st.text()), st.dictionaries(st.text(min_size=1), st.text()))
def test_config_changes_are_exactly_the_differences(reference: dict[str, str], here: dict[str, str]) -> None:
    changes = {change.key: change for change in config_changes(reference, here)}
    for key in {*reference, *here}:
        if reference.get(key, ABSENT) == here.get(key, ABSENT):
            assert key not in changes
        else:
            assert (changes[key].reference, changes[key].here) == (reference.get(key, ABSENT), here.get(key, ABSENT))


def test_config_diff_reads_resolved_yaml(tmp_path: Path) -> None:
    manifest = make_study(tmp_path, arms=ARMS[:2], seeds=(0,), metrics=(PSNR,))
    store = RunStore(tmp_path / "runs")
    texts = ("a: {b: 1, c: [1, 2]}\nd: true\n", "a: {b: 1.0, c: [1, 3]}\ne: {}\n")
    for cell, text in zip(manifest.cells, texts, strict=True):
        (store.record(cell.run_id).path / "config.yaml").write_text(text)
    views = run_views(load_study(tmp_path, "synthetic"))
    assert views[0].changes_note == "This is the reference run."
    found = [(change.key, change.reference, change.here) for change in views[1].changes]
    assert found == [("a.b", "1", "1.0"), ("a.c", "[1, 2]", "[1, 3]"), ("d", "true", ABSENT), ("e", ABSENT, "{}")]
    (store.record(manifest.cells[1].run_id).path / "config.yaml").write_text("a: [")
    assert config_of(store.record(manifest.cells[1].run_id)) is None
    assert "no readable config" in run_views(load_study(tmp_path, "synthetic"))[1].changes_note


def test_durations_read_as_people_say_them() -> None:
    assert [duration(s) for s in (0.5, 42.2, 200, 3600 * 5 + 720, None)] == [
        "0.50 s",
        "42 s",
        "3 min 20 s",
        "5 h 12 min",
        "",
    ]


def test_commands_survive_the_shell() -> None:
    assert (
        train_command(["a=1", "notes='x y'", "z=[1, 2]"])
        == "python -m pipeline train a=1 'notes='\"'\"'x y'\"'\"'' 'z=[1, 2]'"
    )


# -- images ---------------------------------------------------------------------------------------------------------------


def test_equal_images_are_stored_once_and_a_budget_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = make_study(tmp_path, arms=ARMS[:3], seeds=(0,), metrics=(PSNR,))
    add_samples(tmp_path, manifest, count=8, blur={"spade_conditioning": 4})
    data = figure_data(load_study(tmp_path, "synthetic"))
    found = build_comparer(data, study_samples(data), "first")
    assert found is not None
    assert len(found.images) == len(set(found.images))
    first = found.items[0]
    assert first["outputs"]["ca2sis"] == first["outputs"]["no_attention_loss"] != first["outputs"]["spade_conditioning"]
    assert first["style"] == first["target"]  # the same pixels: reconstruction
    monkeypatch.setattr(images, "SAMPLE_BYTES", 12_000)
    small = build_comparer(data, study_samples(data), "first")
    assert small is not None
    assert sum(map(len, small.images)) <= 12_000 and 1 <= len(small.items) < 8
    assert "JPEG" in small.note and f"{len(small.items)} of 8" in small.note


# -- bad and poor input ---------------------------------------------------------------------------------------------------


def test_names_never_become_markup(tmp_path: Path) -> None:
    arms = [
        SyntheticArm("a" + EVIL, EVIL, reference=True),
        SyntheticArm("b", "B", {"psnr": -2.0}, states={0: "failed"}),
    ]
    manifest = make_study(tmp_path, arms=arms, metrics=(PSNR,), seeds=(0, 1), question=EVIL, costs=False)
    add_samples(tmp_path, manifest, count=1)
    (RunStore(tmp_path / "runs").record(manifest.cells[0].run_id).path / "config.yaml").write_text(f"key: {EVIL!r}\n")
    text = report(tmp_path)
    page = Page(text)
    assert sum(tag == "script" for tag, _ in page.tags) == 2  # data and behaviour
    assert not any(attributes.get("src") == "x" for _, attributes in page.tags)
    assert page.words.count("</script><script>window.pwned=1</script>") >= 3  # shown as text
    assert "49" not in re.sub(r"[^{}$*0-9]", " ", EVIL) and "{{7*7}}" in page.words


@pytest.mark.parametrize("state", ["failed", "missing"])
def test_a_study_without_results_still_has_an_honest_report(tmp_path: Path, state: str) -> None:
    arms = [dataclasses.replace(arm, states={0: state}) for arm in ARMS[:2]]
    make_study(tmp_path, arms=arms, seeds=(0,), metrics=(PSNR, SSIM), history=False)
    words = Page(report(tmp_path)).words
    assert "No finished run has a value of PSNR: nothing can be concluded yet." in words
    assert "2 of 2 runs did not finish" in words
    assert "Figures left out" not in words  # the section is not there without any figure


def test_one_arm_one_seed_no_samples(tmp_path: Path) -> None:
    make_study(tmp_path, arms=ARMS[:1], seeds=(0,), metrics=(PSNR,), history=False, per_image=False, costs=False)
    text = report(tmp_path)
    assert "Images side by side" not in text and 'id="curves"' not in text
    assert "PSNR: CA²-SIS" in Page(text).words


def test_unknown_study_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "nothing", "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and "nothing" in error
    assert list(tmp_path.iterdir()) == []


def test_damaged_picture_is_one_line_and_leaves_the_old_report(
    usual: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    out, text = usual
    study = load_study(out, "synthetic")
    run = study.store.record(study.manifest.cells[0].run_id)
    picture = run.path / "samples" / "standard" / "0000_output.png"
    kept = picture.read_bytes()
    try:
        picture.write_bytes(b"no image")
        assert main(["report", "synthetic", "--out", str(out)]) == 2
        assert "0000_output.png is not a readable image" in capsys.readouterr().err
        assert (out / "synthetic" / "report.html").read_text() == text
    finally:
        picture.write_bytes(kept)


def test_the_command_for_painting_names_finished_arms_that_can_share_a_map_the_reference_first(tmp_path: Path) -> None:
    """Arms by name: one that draws its own layout, one of a family from elsewhere, one that failed at the first seed."""
    arms = (
        SyntheticArm("semanticstylegan"), SyntheticArm("painter", kind="rule"), SyntheticArm("toy"),
        SyntheticArm("spade", states={0: "failed"}), SyntheticArm("ca2sis", reference=True), SyntheticArm("sean"),
    )  # fmt: skip
    manifest = make_study(tmp_path, arms=arms, metrics=(PSNR,), seeds=(0, 1))
    study = load_study(tmp_path, "synthetic")
    cells = {(cell.arm, cell.seed): cell.run_id[:10] for cell in manifest.cells}
    named = [cells["ca2sis", 0], cells["painter", 0], cells["spade", 1]]
    assert paint_command(study) == " ".join(["python -m pipeline paint", *named])
    add_samples(tmp_path, manifest, count=2)
    assert Page(report(tmp_path)).words.count(paint_command(study)) == 1

"""Arms that other code has made: planned, run, tabulated and traced by the real commands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ablations.commands import build_parser
from analysis.__main__ import main as analysis
from pipeline.__main__ import main
from pipeline.cli import run_main
from pipeline.config import compose
from pipeline.data import build_dataset
from pipeline.records import RunStore

BASE = (
    "size=16", "data.train_images=12", "data.val_images=4", "data.test_images=6", "tracking.mode=disabled", "threads=1",
    "protocol.groups=[reconstruction,attention,cost]", "train.iterations=4", "train.batch_size=2",
)  # fmt: skip
DATA = BASE[:-2]  # an import knows of no training
STUDY = """
name: beside
question: How do pictures from elsewhere compare?
base: [{base}]
design: list
reference: ours
arms:
  ours: {{label: ours, overrides: [model=ca2sis]}}
  theirs: {{label: theirs, external: theirs}}
seeds: {seeds}
metrics: {{primary: [psnr], secondary: [ssim, attention_miou, params, train_images_per_s]}}
"""


def pictures(folder: Path, size: int = 16, noise: int = 20, seed: int = 0, suffix: str = "png") -> Path:
    """The photos of the test split with noise: what some good system might have drawn."""
    rng = np.random.default_rng(seed)
    data = build_dataset(compose(BASE).data, "test")
    folder.mkdir(parents=True)
    for i, key in enumerate(data.keys):
        noisy = np.clip(data[i].image.astype(int) + rng.integers(-noise, noise + 1, data[i].image.shape), 0, 255)
        Image.fromarray(noisy.astype(np.uint8)).resize((size, size)).save(folder / f"{key}.{suffix}")
    return folder


def study(tmp_path: Path, seeds: str = "[0]", base: tuple[str, ...] = BASE, **changes: str) -> str:
    text = STUDY.format(base=", ".join(f'"{item}"' for item in base), seeds=seeds)
    for old, new in changes.items():
        text = text.replace(old, new)
    path = tmp_path / f"beside{len(list(tmp_path.iterdir()))}.yaml"
    path.write_text(text)
    return str(path)


def ablations(*words: str) -> int:
    return run_main(build_parser(), list(words))


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Output folder and file of a study that has run: one arm trained here, one imported, two seeds."""
    tmp_path = tmp_path_factory.mktemp("ran")
    out = str(tmp_path / "out")
    folders = [str(pictures(tmp_path / f"result{seed}", seed=seed)) for seed in (0, 1)]
    assert main(["import-images", "theirs", "--images", *folders, *DATA, "--out", out]) == 0
    file = study(tmp_path, "[0, 1]")
    assert ablations("run", file, "--out", out, "--jobs", "1") == 0
    return tmp_path / "out", file


def test_an_external_arm_is_planned_and_never_run(ran: tuple[Path, str], capsys: pytest.CaptureFixture[str]) -> None:
    out, file = ran
    assert ablations("plan", file, "--out", str(out), "--set", "train.iterations=5") == 0
    planned = capsys.readouterr().out
    assert "external" in planned and "4 cells: 2 to run, 2 reused" in planned


def test_an_external_arm_stands_in_table_report_and_trace(
    ran: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, file = str(ran[0]), ran[1]
    assert analysis(["table", file, "--format", "md", "--out", out]) == 0
    table = capsys.readouterr().out
    (row,) = [line for line in table.splitlines() if line.startswith("| theirs")]
    assert "**" in row and row.count("n/a") == 5  # best by psnr; attention and costs: not known
    assert "made by other code, measured here from its pictures" in table
    assert "made by other code: only its pictures are here" in table and "not trained here" in table
    assert analysis(["trace", file, "theirs", "psnr", "--out", out]) == 0
    traced = capsys.readouterr().out
    store = RunStore(ran[0] / "runs")
    records = [store.record(run_id) for run_id in store.ids()]
    external = [record.provenance["external"] for record in records if record.status["kind"] == "external"]
    for facts in external:
        assert facts["folders"]["reconstruction"]["sha256"] in traced
    assert "python -m pipeline import-images theirs --images result0" in traced
    for words in (
        ["report"],
        ["figures"],
        ["stale"],
        ["compare"],
        ["frame", "--out", str(tmp_path / "frame.csv"), "--root", out],
    ):
        given = [words[0], file, *words[1:], *([] if words[0] == "frame" else ["--out", out])]
        assert analysis(given) == 0, words
    assert "import-images theirs --images result0" in (ran[0] / "beside" / "report.html").read_text()


def test_resized_pictures_do_not_share_a_column_and_do_not_stop_a_table(
    ran: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(ran[0])
    folder = pictures(tmp_path / "large", size=32, suffix="jpg")
    assert main(["import-images", "large", "--images", str(folder), "--resize", "bicubic", *DATA, "--out", out]) == 0
    file = study(tmp_path, **{"external: theirs": "external: large", "name: beside": "name: resized"})
    assert ablations("run", file, "--out", out, "--jobs", "1") == 0
    capsys.readouterr()
    assert analysis(["table", file, "--format", "md", "--out", out]) == 0
    table = capsys.readouterr().out
    (row,) = [line for line in table.splitlines() if line.startswith("| theirs")]
    assert "—" in row and "measured otherwise than the other rows (pictures resized" in table
    spec = tmp_path / "alone.yaml"  # what the footnote advises
    spec.write_text("arms: [theirs]\n")
    assert analysis(["table", file, "--format", "md", "--spec", str(spec), "--out", out]) == 0
    table = capsys.readouterr().out
    (row,) = [line for line in table.splitlines() if line.startswith("| theirs")]
    assert "—" not in row
    assert "pictures resized from 32x32 by bicubic; 6 pictures are JPEG files, which moves FID and KID" in table


def test_external_arms_that_do_not_fit_are_refused_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    folder = str(pictures(tmp_path / "result"))
    refused = lambda file: (ablations("plan", file, "--out", out), capsys.readouterr().err)  # noqa: E731
    status, line = refused(study(tmp_path))
    assert status == 2 and "no external record is called 'theirs'" in line and "import-images theirs" in line
    assert main(["import-images", "theirs", "--images", folder, *DATA, "--out", out]) == 0
    capsys.readouterr()
    for file, said in (
        (study(tmp_path, "[0, 1]"), "seed 1: external record theirs: there is none of this seed"),
        (study(tmp_path, **{"external: theirs": "external: thiers"}), "did you mean theirs"),
        (study(tmp_path, base=(*BASE[1:], "size=24")), "is of procfaces 16x16, the study's base of procfaces 24x24"),
        (study(tmp_path, **{"external: theirs": "external: theirs, overrides: [seed=1]"}), "takes no overrides"),
        (study(tmp_path, **{"metrics:": "split: val\nprotocol: quick\nmetrics:"}), "pictures of split test"),
    ):
        status, line = refused(file)
        assert status == 2 and said in line and line.count("\n") == 1, line

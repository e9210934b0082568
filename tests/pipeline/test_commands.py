"""The real command on bad input: one clear line, exit status 2 (1 for a run that failed on its own), nothing touched."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.__main__ import main
from pipeline.commands.rows import print_rows
from pipeline.records import MetricRow, RunStore, StudyManifest
from tests.pipeline.tiny import TINY, command, the_line


def train(out: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    return command("pipeline", "train", "--out", str(out), *TINY, *overrides)


def photo_folder(root: Path, count: int = 4) -> Path:
    """A small data set in the layout of `data=coco_stuff`."""
    rng = np.random.default_rng(0)
    for folder in ("train_img", "train_label"):
        (root / folder).mkdir(parents=True)
    for i in range(count):
        Image.fromarray(rng.integers(0, 255, (40, 48, 3), dtype=np.uint8)).save(root / "train_img" / f"{i:03d}.jpg")
        Image.fromarray(rng.integers(0, 182, (40, 48), dtype=np.uint8)).save(root / "train_label" / f"{i:03d}.png")
    return root


PHOTOS = ("data=coco_stuff", "data.train_images=null", "data.val_images=null", "data.test_images=null")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["model.base_widht=1"], ["unknown key model.base_widht", "model.base_width"]),
        (["model=spda"], ["unknown model 'spda'", "spade"]),
        (["data=procface"], ["unknown data 'procface'", "procfaces"]),
        (["seed=-1"], ["seed = -1"]),
        (["data=coco_stuff"], ["data.root"]),
        (["data=coco_stuff", "data.root=nowhere"], ["nowhere"]),
        (["data.val_images=0"], ["data.val_images", "empty"]),
    ],
)
def test_config_mistakes_are_refused_before_any_work(tmp_path: Path, overrides: list[str], said: list[str]) -> None:
    line = the_line(train(tmp_path / "out", *overrides))
    for part in said:
        assert part in line
    assert not (tmp_path / "out").exists()


def test_unknown_study_is_refused_with_the_ones_there_are(tmp_path: Path) -> None:
    line = the_line(command("ablations", "run", "dmeo", "--out", str(tmp_path)))
    assert "dmeo" in line and "demo" in line


def test_unpaired_photos_and_labels_are_named(tmp_path: Path) -> None:
    root = photo_folder(tmp_path / "data")
    (root / "train_label" / "002.png").unlink()
    assert "002" in the_line(train(tmp_path / "out", *PHOTOS, f"data.root={root}"))


def test_a_label_id_out_of_range_names_file_and_ids(tmp_path: Path) -> None:
    root = photo_folder(tmp_path / "data")
    for i in range(4):
        Image.fromarray(np.full((40, 48), 200 + i, dtype=np.uint8)).save(root / "train_label" / f"{i:03d}.png")
    line = the_line(train(tmp_path / "out", *PHOTOS, f"data.root={root}"))
    assert ".png" in line and any(str(200 + i) in line for i in range(4)) and "allowed" in line


def test_a_corrupt_photo_is_named(tmp_path: Path) -> None:
    root = photo_folder(tmp_path / "data")
    for path in (root / "train_img").iterdir():
        path.write_bytes(path.read_bytes()[:200])
    assert ".jpg" in the_line(train(tmp_path / "out", *PHOTOS, f"data.root={root}"))


def test_an_output_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file where the output folder belongs")
    line = the_line(train(tmp_path / "out"))
    assert "cannot write" in line and str(tmp_path / "out") in line
    assert (tmp_path / "out").read_text() == "a file where the output folder belongs"


def test_a_loss_that_is_not_finite_is_a_failed_run(tmp_path: Path) -> None:
    line = the_line(train(tmp_path, "train.lr=1e18"), status=1)
    assert "diverged" in line and "not finite" in line
    store = RunStore(tmp_path / "runs")
    assert [store.record(run_id).state for run_id in store.ids()] == ["diverged"]


def test_a_refused_command_leaves_earlier_results_untouched(tmp_path: Path) -> None:
    assert train(tmp_path).returncode == 0
    before = {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()}
    the_line(train(tmp_path, "seed=-1"))
    the_line(train(tmp_path, "model=nothing"))
    assert {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()} == before


def test_config_prints_what_a_run_would_be() -> None:
    process = command("pipeline", "config", "model=sean", "seed=3")
    assert process.returncode == 0 and process.stderr == ""
    assert "family: sean" in process.stdout and "\nseed: 3\n" in process.stdout
    assert process.stdout.splitlines()[-1].startswith("# run id: ")


def test_config_diff_shows_what_differs_side_by_side(capsys: pytest.CaptureFixture[str]) -> None:
    kept = Path(__file__).parents[1] / "fixtures" / "old_record"
    a, b = "model=sean seed=3 device=cpu", "model=sean train.lr=1e-3"
    assert main(["config", "--diff", a, b, "preset=tiny"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[:3] == [["device", "*", "'cpu'", "'auto'"], ["seed", "3", "0"], ["train.lr", "0.002", "0.001"]]
    assert lines[3][:2] == ["run", "id"] and lines[3][2] != lines[3][3]
    assert lines[4] == ["*", "does", "not", "enter", "the", "run", "id"]

    recorded = StudyManifest.load(kept / "kept").cells[0]
    changed = shlex.join([*recorded.overrides, "loss.attention.weight=0.5"])
    assert main(["config", "--diff", recorded.run_id[:6], changed, "--out", str(kept)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if " * " not in line]
    assert lines[0] == ["loss.attention.weight", "1.0", "0.5"] and lines[1][2] == recorded.run_id[:10]

    assert main(["config", "--diff", "", ""]) == 0
    assert capsys.readouterr().out.startswith("no key differs\n")
    assert main(["config", "--diff", "ffff", "seed=1", "--out", str(kept)]) == 2
    assert "no run in" in capsys.readouterr().err


def test_every_command_has_help_that_reads(tmp_path: Path) -> None:
    top = command("pipeline", "--help")
    assert top.returncode == 0
    commands = [line.split()[0] for line in top.stdout.splitlines() if line.startswith("    ") and line[4] != " "]
    assert {"train", "config", "model", "data", "evaluate", "edit", "weights", "doctor", "sync"} <= set(commands)
    for room in ("ablations", "sweeps", "analysis"):
        process = command(room, "--help")
        assert process.returncode == 0 and "usage: python -m " + room in process.stdout
    assert command("pipeline", "train", "--help").stdout.startswith("usage: python -m pipeline train")


def test_a_word_too_many_is_one_line(tmp_path: Path) -> None:
    assert "--nonsense" in the_line(command("pipeline", "train", "--nonsense"))
    assert "invalid choice" in the_line(command("pipeline", "trian"))


def test_the_numbers_of_a_run_are_a_table_and_what_has_none_is_told_once_a_reason(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def row(name: str, value: float | None, unit: str = "", state: str = "trained") -> MetricRow:
        lost = {} if value is not None else {"status": "unavailable", "reason": "no weights"}
        return MetricRow(name, value, 4, unit, "max", "test", "quick", "f", state, **lost)  # type: ignore[arg-type]

    rows = [
        row("psnr", 19.12345, "dB"), row("lpips_recon_alex", None), row("dists", None),
        row("attention_miou_8_head0", 0.5), row("attention_miou_8_head1", 0.25),
    ]  # fmt: skip
    print_rows(rows, [row("psnr", 8.5, "dB", "untrained")])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[:2] == [["metric", "value", "untrained", "unit"], ["psnr", "19.123", "8.5", "dB"]]
    assert " ".join(lines[2]) == "lpips_recon_alex, dists: unavailable: no weights"
    assert " ".join(lines[3]) == "and 2 rows of single attention heads: attention_miou_8_head0, ..."
    assert len(lines) == 4
    monkeypatch.setenv("COLUMNS", "24")
    print_rows(rows[:1], [row("psnr", 8.5, "dB", "untrained")])
    narrow = capsys.readouterr().out.splitlines()
    assert [line.split() for line in narrow] == [
        ["metric", "value"],
        ["psnr", "19.123"],
        ["no", "room", "for", "unit,", "untrained"],
    ]


def test_overrides_may_stand_behind_options(tmp_path: Path) -> None:
    """As in the documented `weights import spade FILE --encoder FILE data=...`."""
    from pipeline.__main__ import parser

    words = ["weights", "import", "spade", "g.pth", "size=64", "--encoder", "e.pth", "data=folder", "data.root=x"]
    args = parser().parse_args(words)
    assert (args.family, args.overrides) == ("spade", ["size=64", "data=folder", "data.root=x"])
    line = the_line(command("pipeline", "config", "seed=1", "--out", str(tmp_path), "--wrong", "seed=2"))
    assert "--wrong" in line

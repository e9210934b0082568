"""The benchmark: both modes compute the same training step, and what is written can be read and compared."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import pytest
import torch
from PIL import Image

from ablations.commands import build_parser as studies_parser
from pipeline.__main__ import main
from pipeline.bench.around import clocked, seconds_of_nothing
from pipeline.bench.modes import naive_against_fast
from pipeline.bench.naive import NaiveTrainer
from pipeline.bench.page import HEAD, tables_page, write_tables
from pipeline.bench.parts import flat, matmul_peak, step_parts
from pipeline.bench.scale import ROWS, STUDY, make_study
from pipeline.bench.setup import configure, prepare
from pipeline.bench.shares import kind_of
from pipeline.bench.text import as_markdown, as_text, compare
from pipeline.cli import run_main
from pipeline.commands.bench import PUBLISHED
from pipeline.errors import UserError
from pipeline.metrics.cost import peak_memory_gib
from pipeline.records.bulk import read_raw
from pipeline.training.trainer import Trainer

SMALL = ("size=16", "train.batch_size=2", "discriminator.width=8", "discriminator.layers=2")


@pytest.fixture(autouse=True)
def few_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What shares are of, not how steady they are: each pair of steps costs seconds of reading the profiler."""
    monkeypatch.setattr("pipeline.bench.shares.REPEATS", 1)


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("model.checkpointing=true",),
        ("model.depth=2", "model.encoder.grouping=class"),
        ("model.conditioning=sean", "loss.attention.kind=off"),
        ("model=sean",),
        ("model=spade", "model.style=vae", "loss.kl.weight=0.05"),
        ("model=clade", "model.icpe.enabled=true", "model.icpe.start=as_released"),
        ("discriminator.kind=segmentation",),
        ("train.accumulate=2",),
    ],
    ids=" ".join,
)
def test_naive_and_fast_steps_have_equal_losses(overrides: tuple[str, ...]) -> None:
    """What CI holds of the benchmark: equality, not time."""
    result = naive_against_fast([*SMALL, *overrides], pairs=2, memory=False)
    assert result["max_loss_difference"] < 1e-4
    assert {"gan", "feature_matching", "d_fake", "d_real"} <= set(result["loss_differences"])
    assert result["naive_peak_gib"] is None and len(result["seconds"]["fast"]) == 2
    for ratio, seconds in (("ratio", "seconds"), ("ratio_memory_kept", "seconds_memory_kept")):
        (first, second) = (result[seconds]["naive"][i] / result[seconds]["fast"][i] for i in range(2))
        assert result[ratio] == pytest.approx((first + second) / 2)


def test_the_naive_step_is_another_way() -> None:
    """It runs the generator twice and without the fused optimiser, also after taking over a fast trainer's state."""
    cfg, device = configure(SMALL)
    naive, batch = prepare(cfg, device, NaiveTrainer)
    fast, _ = prepare(cfg, device)
    counts = {}
    for name, trainer in (("naive", naive), ("fast", fast)):
        calls: list[int] = []
        trainer.generator.register_forward_hook(lambda *_args, calls=calls: calls.append(1))
        trainer.step(batch)
        counts[name] = len(calls)
    assert counts == {"naive": 2, "fast": 1}
    naive.load_state(fast.state())
    assert not naive.optimiser_g.param_groups[0]["fused"] and fast.optimiser_g.param_groups[0]["fused"]


@pytest.mark.parametrize(
    ("switch", "tolerance"),
    [("train.channels_last=true", 1e-5), ("model.checkpointing=true", 0.0), ("train.precision=bf16", 0.05)],
)
def test_switches_of_speed_keep_the_numbers(switch: str, tolerance: float) -> None:
    losses = []
    for overrides in ((), (switch,)):
        cfg, device = configure([*SMALL, *overrides])
        trainer, batch = prepare(cfg, device)
        trainer.step(batch)
        losses.append({name: float(value) for name, value in trainer.step(batch).items()})
    for name, value in losses[0].items():
        assert losses[1][name] == pytest.approx(value, rel=tolerance, abs=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["true", "cuda_graphs"])
def test_compiled_step_keeps_the_losses(how: str) -> None:
    losses = []
    for compiled in ("false", how):
        cfg, device = configure([*SMALL, f"train.compile={compiled}"])
        trainer, batch = prepare(cfg, device)
        losses.append({name: float(value) for name, value in trainer.step(batch).items()})
    assert losses[1] == pytest.approx(losses[0], rel=1e-4, abs=1e-5)


def test_fused_adam_is_adam() -> None:
    """The fused update equals the textbook's for twenty steps, betas as published."""
    torch.manual_seed(0)
    value, gradient_of = torch.randn(50), torch.randn(20, 50)
    parameter = torch.nn.Parameter(value.clone())
    adam = torch.optim.Adam([parameter], lr=1e-3, betas=(0.0, 0.9), fused=True)
    expected, second = value.double(), torch.zeros(50, dtype=torch.float64)
    for step, gradient in enumerate(gradient_of, start=1):
        parameter.grad = gradient.clone()
        adam.step()
        second = 0.9 * second + 0.1 * gradient.double().square()
        expected = expected - 1e-3 * gradient.double() / ((second / (1 - 0.9**step)).sqrt() + 1e-8)
    torch.testing.assert_close(parameter.detach().double(), expected, rtol=1e-5, atol=1e-6)


def test_parts_of_a_step(capfd: pytest.CaptureFixture[str]) -> None:
    result = step_parts(SMALL, repeats=1)
    assert "profiler" not in capfd.readouterr().err, "its library talks about every start and stop"
    rows = {row["part"]: row for row in result["rows"]}
    assert {
        "encoder",
        "embedder",
        "stages.0",
        "stages.2",
        "to_rgb",
        "losses",
        "optimisers",
        "data",
        "whole step",
    } <= set(rows)
    pixels, batch, width = 16 * 16, 2, 16
    assert rows["to_rgb"]["gflops"] == pytest.approx(2 * batch * pixels * width * 3 / 1e9)
    assert rows["stages.1"]["backward_ms"] > 0 and 0 < rows["stages.1"]["share_of_peak"] < 5
    assert rows["encoder"]["peak_mem_gib"] is None or rows["encoder"]["peak_mem_gib"] > 0
    assert result["images_per_s"] == pytest.approx(2000 / rows["whole step"]["forward_ms"])
    shares = {key: value for key, value in result.items() if key.startswith("share_")}
    assert set(shares) == {f"share_{kind}" for kind in ("kernels", "elementwise", "copies", "overhead")}
    assert all(shares[f"share_{kind}"] > 0 for kind in ("kernels", "elementwise", "copies"))
    assert shares["share_overhead"] >= 0  # a difference of clocks: on a busy machine nothing more can be said of it
    assert len(as_text(result).splitlines()) == 1 + 1 + len(rows) + 2 + len(shares)
    assert matmul_peak(torch.device("cpu")) > 1e8


def test_every_family_has_parts() -> None:
    for family, expected in (("sean", "trunk.up.0"), ("spade", "trunk.head"), ("scam", "blocks.0")):
        rows = step_parts([*SMALL, f"model={family}"], repeats=1)["rows"]
        assert expected in [row["part"] for row in rows]


def test_flat_finds_nested_tensors() -> None:
    a, b = torch.zeros(1), torch.ones(1)
    assert flat([a, (b, [a]), "text", None]) == [a, b, a]


def test_compare_and_page(tmp_path: Path) -> None:
    one = {"benchmark": "data", "device": "cpu", "rows": [{"cache": "none", "workers": 0, "images_per_s": 10.0}]}
    two = {"benchmark": "data", "device": "cpu", "rows": [{"cache": "none", "workers": 0, "images_per_s": 25.0}]}
    for name, value in (("a", one), ("b", two)):
        (tmp_path / f"{name}.json").write_text(json.dumps(value))
    assert compare(tmp_path / "a.json", tmp_path / "b.json").splitlines()[1].split()[-3:] == ["10", "25", "2.500"]
    page = tmp_path / "tables.md"
    write_tables(page, ["a", "missing"])
    text = page.read_text()
    assert text.startswith(HEAD) and "## a\n" in text and "| none | 0 | 10 |" in text and "missing" not in text
    page.write_text("by hand")
    write_tables(page, ["a", "missing"])
    assert page.read_text() == text
    assert as_markdown(two).splitlines()[2] == "| cache | workers | images_per_s |"
    with pytest.raises(UserError, match="no benchmark result"):
        compare(page, tmp_path / "a.json")


def test_the_page_of_tables_is_what_its_measurements_say() -> None:
    """Nobody edits the generated page: it is written again from the JSON beside it, word for word."""
    folder = Path(__file__).parents[2] / "docs" / "performance"
    assert (folder / "tables.md").read_text() == tables_page(folder, [name for name, _, _ in PUBLISHED])


def test_a_synthetic_study_is_a_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from analysis.frame import load_study

    make_study(tmp_path, 10)
    study = load_study(tmp_path, STUDY)
    assert len(study.runs) == 10
    assert {read_raw(tmp_path / "runs", cell.run_id).state for cell in study.manifest.cells} == {"finished"}
    assert study.frame["value"].eq(20.0).sum() == 10 * ROWS
    plan = ["plan", "--grid", "loss.attention.weight=0.5,1.0,2.0,4.0,8.0", "--seeds", "0-1", "--out", str(tmp_path)]
    assert run_main(studies_parser(), plan) == 0
    assert "10 cells: 0 to run, 10 reused" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        ("aten::mkldnn_convolution", "kernels"),
        ("aten::convolution_backward", "kernels"),
        ("aten::addmm", "kernels"),
        ("aten::native_group_norm_backward", "kernels"),
        ("aten::_scaled_dot_product_flash_attention_for_cpu", "kernels"),
        ("aten::_softmax", "kernels"),
        ("aten::_log_softmax", "elementwise"),
        ("aten::normal_", "elementwise"),
        ("aten::gelu", "elementwise"),
        ("aten::_fused_adam_", "elementwise"),
        ("aten::copy_", "copies"),
        ("aten::cat", "copies"),
        ("aten::view", "overhead"),
        ("autograd::engine::evaluate_function: MmBackward0", "overhead"),
        ("Optimizer.step#Adam.step", "overhead"),
    ],
)
def test_what_a_steps_time_goes_to(event: str, kind: str) -> None:
    assert kind_of(event) == kind


def test_generating_is_clocked_once_a_call() -> None:
    """`synthesize` calls `synthesize_embedded` inside: one entry, and the generator is as before afterwards."""
    cfg, device = configure(SMALL)
    trainer, batch = prepare(cfg, device)
    generator = trainer.generator
    with clocked(generator, device) as spent, torch.no_grad():
        style = generator.encode_style(batch.image, batch.mask)
        generator.synthesize(batch.mask, style)
    assert len(spent) == 2 and all(value > 0 for value in spent)
    with torch.no_grad():
        generator.encode_style(batch.image, batch.mask)
    assert len(spent) == 2


def test_evaluating_and_feeding_commands(tmp_path: Path) -> None:
    few = ["size=16", "protocol=quick", "data.val_images=4"]
    target = tmp_path / "eval.json"
    assert main(["bench", "eval", "--arms", "2", "--json", str(target), *few]) == 0
    result = json.loads(target.read_text())
    assert [row["arm"] for row in result["rows"]] == [0, 1] and result["images"] == 4
    assert all(row["evaluating_s"] > row["generating_s"] > 0 for row in result["rows"]) and result["ratio"] > 1
    target = tmp_path / "data.json"
    assert main(["bench", "data", "--seconds", "0.05", "--json", str(target), "size=16", "train.batch_size=2"]) == 0
    rows = json.loads(target.read_text())["rows"]
    assert [(row["cache"], row["workers"]) for row in rows] == [
        (cache, workers) for cache in ("none", "memory", "mapped") for workers in (0, 2)
    ]
    assert all(row["images_per_s"] > 0 for row in rows)


def test_the_scale_of_a_study_as_table_and_plot(tmp_path: Path) -> None:
    target, picture = tmp_path / "frame.json", tmp_path / "frame.png"
    assert main(["bench", "frame", "--runs", "10", "5", "--plot", str(picture), "--json", str(target)]) == 0
    result = json.loads(target.read_text())
    assert [row["runs"] for row in result["rows"]] == [5, 10]
    first, last = result["rows"]
    assert result["table_ms_per_run"] == pytest.approx(1000 * (last["table_s"] - first["table_s"]) / 5)
    with Image.open(picture) as shown:
        assert shown.size == (840, 540)
    assert main(["bench", "frame", "--runs", "4"]) == 2


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library hands out memory in its own way")
def test_freed_memory_is_kept_or_returned() -> None:
    """Pages fetched for tensors of 63 MiB after one of 64 MiB was freed: none, or all 16128 of each."""
    import subprocess
    import sys

    code = (
        "import resource, torch; from pipeline.training.allocator import keep_freed_memory, return_freed_memory\n"
        "def fetched(mib):\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt; torch.empty(mib * 2**18).fill_(1)\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before\n"
        "assert keep_freed_memory(); fetched(64); kept = fetched(63)\n"
        "assert return_freed_memory(); fetched(64); print(kept, fetched(63))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    kept, returned = map(int, done.stdout.split())
    assert kept < 1000 and returned > 10_000


def test_no_override_of_the_data_set_makes_a_benchmark_prepare_more_than_batches() -> None:
    for overrides in (["data=procfaces", "preset=paper"], ["preset=medium"], ["data=procfaces", "data.aspect=1.5"]):
        cfg, _ = configure([*overrides, "device=cpu"])
        assert (cfg.data.train_images, cfg.data.cache) == (32, "memory")
    asked, _ = configure(["data=procfaces", "data.train_images=48", "device=cpu"])
    assert asked.data.train_images == 48


def test_a_process_counts_its_own_memory_alone() -> None:
    """Not that of the one that started it: after two large networks in one process, the next must start at nothing."""
    import subprocess
    import sys

    import numpy as np

    filled = np.ones(50_000_000)  # 0.37 GiB
    code = "from pipeline.metrics.cost import peak_memory_gib; print(peak_memory_gib('cpu'))"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    filled_gib = filled.nbytes / 2**30
    assert peak_memory_gib("cpu") > filled_gib
    assert 0.005 < float(child.stdout) < peak_memory_gib("cpu") - filled_gib / 2  # torch itself is in both


def test_cells_an_hour_of_a_study(tmp_path: Path) -> None:
    study = tmp_path / "painters.yaml"
    study.write_text(
        "name: painters\nquestion: How fast is nothing?\nbase: [preset=tiny, size=16, model=painter, data.test_images=2]\n"
        "protocol: quick\nsplit: val\ndesign: list\nreference: a\n"
        "arms:\n  a: {label: a, overrides: [data.data_seed=1]}\n  b: {label: b, overrides: [data.data_seed=2]}\n"
        "seeds: [0]\nmetrics: {primary: {psnr: max}}\n"
    )
    target = tmp_path / "study.json"
    assert main(["bench", "study", str(study), "--jobs", "2", "--json", str(target)]) == 0
    (row,) = json.loads(target.read_text())["rows"]
    assert (row["jobs"], row["cells"]) == (2, 2)
    assert row["cells_per_hour"] == pytest.approx(7200 / row["seconds"])


def test_runs_that_train_nothing_are_finished_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    four = ["run", "--grid", "loss.attention.weight=0.5,1.0", "--seeds", "0-1", "--out", str(tmp_path)]
    entry = ["--entry", "pipeline.bench.nothing:train"]
    assert run_main(studies_parser(), [*four, *entry]) == 0
    assert "4 finished" in capsys.readouterr().out
    assert run_main(studies_parser(), [*four, *entry]) == 0
    assert "4 reused" in capsys.readouterr().out
    assert seconds_of_nothing(4) > 0


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "out" / "step.json"
    assert main(["bench", "step", "--repeats", "1", "--json", str(target), *SMALL]) == 0
    assert json.loads(target.read_text())["benchmark"] == "step, part by part"
    assert "whole step" in capsys.readouterr().out
    assert main(["bench", "--compare", str(target), str(target)]) == 0
    assert "1.000" in capsys.readouterr().out
    assert main(["bench"]) == 2
    assert "--compare" in capsys.readouterr().err
    assert main(["bench", "all", "--only", "nothing"]) == 2
    assert main(["bench", "step", "sizze=16"]) == 2


def test_all_measures_and_writes_the_page_of_tables(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    small = (("parts-small", "parts", SMALL), ("modes-small", "modes", SMALL))
    monkeypatch.setattr("pipeline.commands.bench.PUBLISHED", small)
    folder = tmp_path / "performance"
    page = folder / "tables.md"
    only = ["bench", "all", "--docs", str(tmp_path), "--only", "parts-small"]
    assert main(only) == 2 and not folder.exists(), "a page that is not there is said before anything is measured"
    assert "cannot be written" in capsys.readouterr().err
    folder.mkdir()
    assert main(only) == 0
    result = json.loads((folder / "parts-small.json").read_text())
    assert (result["repeats"], result["overrides"]) == (5, list(SMALL))
    assert as_markdown(result) in page.read_text() and "modes-small" not in page.read_text()
    assert {path.name for path in folder.iterdir()} == {"parts-small.json", "tables.md"}


def test_trainers_of_the_benchmark_are_a_runs(tmp_path: Path) -> None:
    """Nothing is at zero that would hide a block, and the batch is what the overrides say."""
    cfg, device = configure(SMALL)
    trainer, batch = prepare(cfg, device)
    assert isinstance(trainer, Trainer) and tuple(batch.image.shape) == (2, 3, 16, 16)
    assert all(bool(p.any()) for p in trainer.generator.parameters() if p.dim() > 1)

"""A run and a study from Python: the documented page carried out, what objects show, and what is refused by name."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ablations.commands import build_parser
from pipeline import load_run
from pipeline.cli import run_main
from pipeline.data.batch import collate
from pipeline.errors import UserError
from pipeline.evaluation.view import reconstruct
from pipeline.records import RunStore
from pipeline.runs.loaded import LoadedRun
from tests.pipeline.tiny import TINY

PAGE = Path(__file__).parents[2] / "docs" / "python.md"
STUDY = """
name: small
question: Does the page work?
base: [{base}]
design: list
reference: ours
arms: {{ours: [model=ca2sis], painter: [model=painter]}}
protocol: quick
split: val
metrics: {{primary: [psnr], secondary: [ssim]}}
"""


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of a tiny (CA)²-SIS and the painter, as the page wants it."""
    folder = tmp_path_factory.mktemp("python")
    base = [item for item in TINY if not item.startswith("protocol")]
    (folder / "small.yaml").write_text(STUDY.format(base=", ".join(f'"{item}"' for item in base)))
    assert (
        run_main(build_parser(), ["run", str(folder / "small.yaml"), "--out", str(folder / "out"), "--jobs", "1"]) == 0
    )
    return folder / "out"


@pytest.fixture(scope="module")
def run(out: Path) -> LoadedRun:
    return load_run(id_of(out), out)


def id_of(out: Path) -> str:
    store = RunStore(out / "runs")
    return next(name for name in store.ids() if store.record(name).identity["config"]["model"]["family"] == "ca2sis")


def shown(block: str, names: dict[str, Any]) -> Any:
    """Carry out a block and return the value of its last line if that is an expression, as a notebook shows it."""
    tree = ast.parse(block)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, str(PAGE), "exec"), names)
    return None if last is None else eval(compile(ast.Expression(last.value), str(PAGE), "eval"), names)  # type: ignore[attr-defined]


def test_every_block_of_the_page_runs(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").symlink_to(out)
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    results = [shown(block.replace("RUN", id_of(out)[:10]).replace("STUDY", "small"), names) for block in blocks]
    assert len(results) == 8
    run, example, picture, transferred, colours, *_, table, _ = results
    assert "psnr" in run._repr_html_() and "ca2sis" in run._repr_html_()
    for item in (example, picture, transferred, colours):
        assert item._repr_png_().startswith(b"\x89PNG")
    assert '<tr class="arm reference"' in table._repr_html_()
    assert Image.open("edited.png").size == (16, 16) and (tmp_path / "table.tex").read_text().startswith(
        "% Study small"
    )
    printed = capsys.readouterr().out
    assert "label ids 200" in printed and "allowed: 0..18" in printed
    assert "Published: SCAM's protocol" in printed


def test_pictures_are_those_of_the_network(run: LoadedRun) -> None:
    sample = run.data("test")[1]
    batch = collate([sample], run.space.num_classes)
    with torch.no_grad():
        expected = reconstruct(run.generator, batch, run.device).output.uint8()[0]
    assert np.array_equal(np.asarray(run.reconstruct(sample.image, sample.label)), expected)
    other = run.data("test")[0]
    whole = run.transfer(sample.image, sample.label, other.image, other.label)
    assert np.array_equal(np.asarray(whole), np.asarray(run.draw(sample.label, run.style(other.image, other.label))))
    hair = run.transfer(sample.image, sample.label, other.image, other.label, region="hair")
    assert not np.array_equal(np.asarray(hair), expected) and not np.array_equal(np.asarray(hair), np.asarray(whole))


def test_any_size_and_kind_of_picture_goes_in(run: LoadedRun) -> None:
    example = run.example(0)
    plain = np.asarray(run.reconstruct(example.photo, example.label))
    palette = Image.fromarray(example.label)
    palette.putpalette(bytes(range(256)) * 3)
    assert np.array_equal(np.asarray(run.reconstruct(example.photo.convert("RGBA"), palette)), plain)
    large = (
        example.photo.resize((64, 64), Image.Resampling.NEAREST),
        np.kron(example.label, np.ones((4, 4), dtype=np.int64)),
    )
    assert run.reconstruct(*large).size == (16, 16)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (
            lambda p, m: (np.asarray(p) / 255, m),
            "photo is an array (16, 16, 3) of float64; give a PIL image or an (H,W,3) uint8",
        ),
        (lambda p, m: (np.asarray(p)[..., 0], m), "photo is an array (16, 16) of uint8"),
        (lambda p, m: (Image.new("I;16", (16, 16)), m), "photo has pixel mode I;16"),
        (lambda p, m: (p, Image.fromarray(np.asarray(p))), "label has pixel mode RGB (colours)"),
        (
            lambda p, m: (p, m.astype(float)),
            "label is an array (16, 16) of float64; give an (H,W) array of whole numbers",
        ),
        (lambda p, m: (p, m.astype(int) - 1), "label: label ids -1 are not ids of celebamask_hq (allowed: 0..18)"),
        (lambda p, m: (p, np.repeat(m, 2, axis=0)), "photo is 16x16 but label is 16x32: not one picture's shape"),
    ],
)
def test_what_does_not_fit_is_named(run: LoadedRun, spoil: Any, said: str) -> None:
    example = run.example(0)
    with pytest.raises(UserError, match=re.escape(said)):
        run.reconstruct(*spoil(example.photo, example.label))


def test_edits_that_cannot_be_are_named(run: LoadedRun, out: Path) -> None:
    one, other = run.example(0), run.example(1)
    bald = np.where(other.label == run.space.index("hair"), run.space.index("skin"), other.label)
    with pytest.raises(UserError, match="region 'hair': no class of it is in style_label"):
        run.transfer(one.photo, one.label, other.photo, bald, region="hair")
    with pytest.raises(UserError, match="no class or group 'hiar'.*hair"):
        run.transfer(one.photo, one.label, other.photo, other.label, region="hiar")
    with pytest.raises(UserError, match="has the samples 0 to 3"):
        run.example(4)
    with pytest.raises(UserError, match="no run in"):
        load_run("0000000000000", out)


def test_importing_either_loads_no_torch_and_reading_a_study_neither(out: Path) -> None:
    code = (
        "import sys, pipeline, analysis; from pipeline import load_run; from analysis import load_study\n"
        f"study = load_study('small', {str(out)!r}); str(study.table()); repr(study); print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PAGE.parents[1], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "False", done.stderr

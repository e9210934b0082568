"""A family of sixty lines, added as docs/adding_a_family.md says, goes through train, evaluate, edit and table."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
import torch
import yaml
from hydra.core.global_hydra import GlobalHydra
from torch import Tensor, nn

from pipeline import config
from pipeline.models.contract import Capabilities, Generator, Synthesis
from pipeline.models.sean import region_means
from pipeline.schema import families as registry
from pipeline.schema.base import ModelSection
from tests.pipeline.models import test_contract
from tests.pipeline.tiny import TINY

# --- the family: schema, generator, one line of registration, YAML rows ------------------------------------------------


class ToyModel(ModelSection):
    """One colour-like code a class, spread over its region and smoothed."""

    family: Literal["toy"]
    width: int  # of a class's code


class ToyGenerator(Generator):
    """Codes are means of a 1x1 conv inside each region; the image is a 3x3 conv of the codes spread over the layout."""

    def __init__(self, cfg: ToyModel, num_classes: int) -> None:
        super().__init__()
        self.config = cfg
        self.num_classes = num_classes
        self.stride = 1
        self.capabilities = Capabilities(style="per_class")
        self.encode = nn.Conv2d(3, cfg.width, 1)
        self.decode = nn.Conv2d(cfg.width, 3, 3, padding=1)

    def encode_style(self, image: Tensor, mask: Tensor) -> Tensor:
        return region_means(self.encode(image), mask)  # (N,K,width)

    def synthesize(self, mask: Tensor, style: Tensor, *, attention: bool = True) -> Synthesis:
        spread = torch.einsum("nks,nkhw->nshw", style, mask)  # (N,width,H,W)
        return Synthesis(torch.tanh(self.decode(spread)))


def build(cfg: ToyModel, num_classes: int, size: tuple[int, int]) -> Generator:
    return ToyGenerator(cfg, num_classes)


SPEC = registry.FamilySpec(f"{__name__}:ToyModel", f"{__name__}:build")
MODEL = "family: toy\nwidth: 8\n"
RECIPE_OF = "spade/tiny.yaml"  # its discriminator, losses and budget, under the toy's own `model:`
STUDY = """
name: toys
question: Does the toy beat the painter?
base: [preset=tiny, data=procfaces]
design: list
reference: toy
arms:
  toy: {label: toy, overrides: [model=toy]}
  painter: {label: painter, overrides: [model=painter]}
seeds: [0]
protocol: quick
split: val
metrics: {primary: {psnr: max}}
budget: {rule: equal}
"""

# --- the test ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The toy family registered, and a copy of the config rows with its own among them."""
    conf = tmp_path / "conf"
    shutil.copytree(config.CONF, conf)
    (conf / "model" / "toy.yaml").write_text(MODEL)
    (conf / "recipe" / "toy").mkdir()
    published = (config.CONF / "recipe" / RECIPE_OF).read_text()
    after_model = published[published.index("discriminator:") :]
    (conf / "recipe" / "toy" / "tiny.yaml").write_text(f"# @package _global_\nmodel:\n  width: 4\n{after_model}")
    monkeypatch.setattr(config, "CONF", conf)
    monkeypatch.setattr(registry, "FAMILIES", {**registry.FAMILIES, "toy": SPEC})
    forget()
    yield
    forget()


def forget() -> None:
    """Let the next composition look at `config.CONF` again."""
    config._compose_text.cache_clear()
    GlobalHydra.instance().clear()


def test_the_contract_of_all_families_holds_for_it(toy: None) -> None:
    asked = [check for name, check in vars(test_contract).items() if name.startswith("test_")]
    assert len(asked) > 5
    for check in asked:
        check(("toy",))


def test_from_config_to_table(toy: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from ablations.plan import lock, make_plan
    from ablations.study import parse_study
    from analysis.__main__ import main as analysis
    from pipeline.__main__ import main as pipeline
    from pipeline.progress import Quiet
    from pipeline.records import RunStore
    from pipeline.runs.run import execute

    out = tmp_path / "out"
    sizes = [override for override in TINY if not override.startswith("protocol=")]
    plan, _ = lock(make_plan(parse_study(yaml.safe_load(STUDY), "toys.yaml"), extra=sizes), out / "toys")
    run_ids = {cell.arm: cell.run_id for cell in plan.manifest.cells}
    assert pipeline(["train", "--out", str(out), *plan.manifest.cells[0].overrides]) == 0
    store = RunStore(out / "runs")
    record = store.record(run_ids["toy"])
    assert record.state == "finished" and record.identity["config"]["model"] == {"family": "toy", "width": 4}
    execute(plan.runs[run_ids["painter"]], store, progress=Quiet())

    assert pipeline(["evaluate", run_ids["toy"][:10], "--protocol", "sean_compat", "--out", str(out)]) == 0
    assert {row.protocol for row in record.metrics if row.name == "psnr"} >= {"quick"}
    assert "sean_compat" in {row.protocol for row in record.metrics}
    capsys.readouterr()
    tasks = ["--task", "style_transfer", "--task", "reconstruct"]
    assert pipeline(["edit", run_ids["toy"][:10], *tasks, "--images", "2", "--out", str(out)]) == 0
    assert len(list((out / "edits").rglob("*.png"))) == 2
    assert pipeline(["edit", run_ids["toy"][:10], "--task", "sampling", "--out", str(out)]) == 2
    assert "task sampling: the family does not sample styles" in capsys.readouterr().err

    capsys.readouterr()
    assert analysis(["table", "toys", "--out", str(out)]) == 0
    psnr = {row.state: row.value for row in record.metrics if (row.name, row.protocol) == ("psnr", "quick")}
    printed = capsys.readouterr().out
    assert f"{psnr['trained']:.2f}" in printed and "painter" in printed

"""A metric of twenty lines, added as docs/adding_a_metric.md says, goes through train, evaluate, table and a refusal."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from torch import Tensor

from pipeline.evaluation import groups
from pipeline.evaluation.parts.part import mean_row
from pipeline.evaluation.parts.reconstruction import ReconstructionPart
from pipeline.evaluation.rows import RowMaker
from pipeline.evaluation.view import View
from pipeline.metrics.accumulate import Contribution, Totals
from pipeline.metrics.images import ImageBatch
from pipeline.records import metric_specs
from pipeline.records.metric_specs import MetricSpec
from pipeline.records.rows import MetricRow
from tests.pipeline.tiny import TINY

# --- the metric: one line of the vocabulary, its arithmetic, its part ---------------------------------------------------

SPEC = MetricSpec("toy_error", "score", "", "min", 1, "mean over images of the largest absolute difference, range 1")


def largest_error(output: ImageBatch, target: ImageBatch) -> Tensor:
    """(N,) largest absolute difference of two batches, range 1."""
    return (output.unit() - target.unit()).abs().amax(dim=(1, 2, 3))


class WithToy(ReconstructionPart):
    """Group `reconstruction`, with the toy among its metrics."""

    def measure(self, view: View) -> Contribution:
        return {**super().measure(view), "each/toy_error": largest_error(view.output, view.target).cpu().numpy()}

    def rows(self, totals: Totals, make: RowMaker) -> list[MetricRow]:
        return [*super().rows(totals, make), mean_row("toy_error", totals, make)]


STUDY = """
name: toys
question: Is the toy measured?
base: [preset=tiny, data=procfaces]
design: list
reference: painter
arms:
  painter: {label: painter, overrides: [model=painter]}
  spade: {label: SPADE, overrides: [model=spade]}
seeds: [0]
protocol: quick
split: val
metrics: {primary: {toy_error: min}}
budget: {rule: equal}
"""

# --- the test ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(metric_specs.SPECS, "toy_error", SPEC)
    monkeypatch.setitem(groups.PARTS, "reconstruction", WithToy)


def test_from_record_to_table(toy: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from ablations.plan import lock, make_plan
    from ablations.study import parse_study
    from analysis.__main__ import main as analysis
    from pipeline.__main__ import main as pipeline
    from pipeline.records import RunStore

    out = tmp_path / "out"
    sizes = [override for override in TINY if not override.startswith("protocol=")]
    plan, _ = lock(make_plan(parse_study(yaml.safe_load(STUDY), "toys.yaml"), extra=sizes), out / "toys")
    for cell in plan.manifest.cells:
        assert pipeline(["train", "--out", str(out), *cell.overrides]) == 0
    painter = RunStore(out / "runs").record(plan.manifest.cells[0].run_id)
    row = next(row for row in painter.metrics if row.name == "toy_error")
    assert (row.n, row.direction, row.status) == (4, "min", "ok") and 0 < (row.value or 0) <= 1
    each = painter.per_image()
    assert each.loc[each["metric"] == "toy_error", "value"].mean() == pytest.approx(row.value)
    capsys.readouterr()
    assert analysis(["table", "toys", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "toy error ↓" in printed, "the spec says which way is better, conf/labels.yaml may say a nicer name"
    assert analysis(["compare", "toys", "--out", str(out)]) == 0
    assert "lower is better" in capsys.readouterr().out


def test_without_its_line_in_the_vocabulary_it_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    from ablations.plan import make_plan
    from ablations.study import parse_study
    from pipeline.errors import UserError

    with pytest.raises(UserError, match="unknown metric 'toy_error'"):
        make_plan(parse_study(yaml.safe_load(STUDY), "toys.yaml"))


def test_every_group_that_a_protocol_may_name_measures_something() -> None:
    from typing import get_args

    from pipeline.schema.evaluation import MetricGroup

    assert set(get_args(MetricGroup)) == set(groups.PARTS) | set(groups.STAGES)

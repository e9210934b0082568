"""What the commands show: plans, status and summaries as tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from ablations.cost import CostModel
from ablations.designs import arms_of
from ablations.plan import Plan, differences
from ablations.study import Study
from pipeline.cli import text_table
from pipeline.launch.scheduler import Outcome
from pipeline.progress import duration
from pipeline.records import atomic
from pipeline.records.manifest import Cell, StudyManifest
from pipeline.records.store import SHORT_ID, RunRecord, RunStore

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

NUMBERS = ("seed", "images", "time")
STYLES = {
    "finished": "green",
    "reused": "green",
    "running": "cyan",
    "failed": "red",
    "diverged": "red",
    "preempted": "yellow",
    "left": "yellow",
}


def studies(console: Console, found: Sequence[Study]) -> None:
    """Names and questions."""
    rows = [(study.name, study.design, str(len(arms_of(study))), " ".join(study.question.split())) for study in found]
    columns = ("study", "design", "arms", "question")
    console.print(text_table(columns, rows, width=console.width, spare=("design", "arms")))


def plan(console: Console, made: Plan, cells: Sequence[Cell], out: Path, *, diff: bool) -> None:
    """Cells, what is new, what is reused, what it costs."""
    manifest = made.manifest
    store = RunStore(out / "runs")
    costs = CostModel(store)
    console.print(f"{manifest.name}: {manifest.question}", highlight=False, soft_wrap=True)
    console.print(
        f"design {manifest.design}, {len(manifest.arms)} arms x {len(manifest.seeds)} seeds, protocol {manifest.protocol}, "
        f"split {manifest.split}, primary metric {manifest.metrics[0].name}, budget {manifest.budget}",
        highlight=False,
        soft_wrap=True,
    )
    labels = {arm.name: escape(arm.label) for arm in manifest.arms}
    rows: list[tuple[str, ...]] = []
    missing: list[Cell] = []
    reused = to_measure = diverged = 0
    for cell in cells:
        record = store.record(cell.run_id)
        state = _plain_state(record)
        expected = "-"
        if made.runs[cell.run_id].is_complete(record):
            state = "reused"
            reused += 1
        elif state == "finished":
            state = "to measure"  # trained, but not measured under the protocol as it is now
            to_measure += 1
        elif state == "diverged":  # a result: `run` leaves it
            diverged += 1
        else:
            missing.append(cell)
            seconds = costs.seconds(made.runs[cell.run_id].identity, cell.images_seen)
            expected = "unknown" if seconds is None else duration(seconds)
        budget = str(cell.images_seen) if cell.images_seen else "rule" if cell.overrides else "external"
        rows.append(
            (
                escape(cell.arm),
                labels[cell.arm],
                str(cell.seed),
                cell.run_id[:SHORT_ID],
                budget,
                _styled(state),
                expected,
            )
        )
    columns = ("arm", "label", "seed", "run", "images", "state", "expected")
    spare = ("run", "images", "label", "expected")
    console.print(text_table(columns, rows, width=console.width, spare=spare, right=NUMBERS))
    estimate = costs.estimate(made, missing)
    about = (
        f"about {duration(estimate.seconds)} of one process"
        if estimate.known
        else "cost unknown: nothing comparable recorded"
    )
    unknown = f" and {estimate.unknown} runs of unknown cost" if estimate.known and estimate.unknown else ""
    rest = f"; {about}{unknown}" if missing else ""
    measured = f"{to_measure} to measure, " if to_measure else ""
    left = f", {diverged} diverged (--again diverged)" if diverged else ""
    console.print(
        f"{len(cells)} cells: {len(missing)} to run, {measured}{reused} reused{left}{rest}",
        highlight=False,
        soft_wrap=True,
    )
    if diff:
        _diff(console, made)


def _diff(console: Console, made: Plan) -> None:
    seed = made.manifest.seeds[0]
    by_arm = {cell.arm: made.runs[cell.run_id] for cell in made.manifest.cells if cell.seed == seed}
    reference = next(arm.name for arm in made.manifest.arms if arm.reference)
    for arm in made.manifest.arms:
        changed = differences(by_arm[arm.name], by_arm[reference])
        if arm.reference:
            continue
        console.print(f"\n{arm.name}: {len(changed)} keys differ from {reference}", highlight=False)
        for key, (value, was) in changed.items():
            console.print(f"  {key}: {was} -> {value}", highlight=False, markup=False)


def status_table(manifest: StudyManifest, out: Path, width: int) -> Table:
    """Cell, seed, state, progress, time left, reason, on `width` characters."""
    store = RunStore(out / "runs")
    reasons = {row["run_id"]: row["reason"] for row in atomic.read_json_lines(out / manifest.name / "outcomes.jsonl")}
    labels = {arm.name: escape(arm.label) for arm in manifest.arms}
    rows: list[tuple[str, ...]] = []
    counts: dict[str, int] = {}
    for cell in manifest.cells:
        record = store.record(cell.run_id)
        status = record.status
        state = _plain_state(record)
        counts[state] = counts.get(state, 0) + 1
        progress = status["progress"]
        done, total = (progress["iteration"], progress["iterations"]) if progress else (0, 0)
        shown = f"{done}/{total}" if total and state != "finished" else ""
        if state == "running" and progress and progress.get("doing"):
            shown = str(progress["doing"])
        reason = "" if state in ("finished", "running") else status["reason"] or reasons.get(cell.run_id, "")
        left = _left(record, done, total) if state == "running" else ""
        attempts = str(len(status["attempts"]) or "")
        rows.append(
            (
                labels[cell.arm],
                str(cell.seed),
                cell.run_id[:SHORT_ID],
                _styled(state),
                shown,
                left,
                attempts,
                escape(reason),
            )
        )
    columns: tuple[str, ...] = ("arm", "seed", "run", "state", "progress", "left", "attempts", "reason")
    if not any(row[-1] for row in rows):  # no reasons: their room is the labels'
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    table = text_table(columns, rows, width=width, spare=("attempts", "run", "left", "progress"), right=NUMBERS)
    told = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    table.caption = f"{told}; {table.caption}" if table.caption else told
    table.title = f"{manifest.name}, revision {manifest.revision}"
    return table


def all_ended(manifest: StudyManifest, out: Path) -> bool:
    """Whether every cell is finished, failed or diverged."""
    store = RunStore(out / "runs")
    return all(store.record(cell.run_id).state in ("finished", "failed", "diverged") for cell in manifest.cells)


def any_live(manifest: StudyManifest, out: Path) -> bool:
    """Whether a process holds any cell's run."""
    store = RunStore(out / "runs")
    return any(store.record(cell.run_id).is_live for cell in manifest.cells)


def summary(
    console: Console, made: Plan, cells: Sequence[Cell], outcomes: Sequence[Outcome], out: Path, seconds: float
) -> None:
    """How every cell ended, and where things lie."""
    store = RunStore(out / "runs")
    labels = {arm.name: escape(arm.label) for arm in made.manifest.arms}
    metric = made.manifest.metrics[0]
    rows: list[tuple[str, ...]] = []
    reasons: list[str] = []
    for cell, outcome in zip(cells, outcomes, strict=True):
        value = _primary(store.record(cell.run_id), made.manifest)
        took = duration(outcome.seconds) if outcome.seconds else ""
        rows.append((labels[cell.arm], str(cell.seed), cell.run_id[:SHORT_ID], _styled(outcome.how), took, value))
        if outcome.reason:
            reasons.append(f"{outcome.task.name} ({cell.run_id[:SHORT_ID]}): {outcome.reason}")
    columns = ("arm", "seed", "run", "outcome", "time", metric.name)
    console.print(text_table(columns, rows, width=console.width, spare=("run", "time"), right=NUMBERS))
    for reason in reasons:
        console.print(reason, highlight=False, markup=False, soft_wrap=True)
    counts: dict[str, int] = {}
    for outcome in outcomes:
        counts[outcome.how] = counts.get(outcome.how, 0) + 1
    told = ", ".join(f"{count} {how}" for how, count in counts.items())
    console.print(f"{made.manifest.name}: {told} in {duration(seconds)}", highlight=False)
    console.print(
        f"plan: {out / made.manifest.name / 'plan.json'}; runs: {out / 'runs'}", highlight=False, soft_wrap=True
    )
    if any(count for how, count in counts.items() if how not in ("finished", "reused")):
        console.print(
            f"logs: {out / 'runs' / '<run>' / 'log.txt'}; the same command runs what is missing",
            highlight=False,
            soft_wrap=True,
        )


def _primary(record: RunRecord, manifest: StudyManifest) -> str:
    metric = manifest.metrics[0]
    for row in record.metrics:
        if (row.name, row.protocol, row.split, row.state) == (
            metric.name,
            manifest.protocol,
            manifest.split,
            "trained",
        ):
            return row.status if row.value is None else f"{row.value:.4g} {row.unit}".strip()
    return ""


def _plain_state(record: RunRecord) -> str:
    return record.state if record.exists else "new"


def _left(record: RunRecord, done: int, total: int) -> str:
    """Time left at the mean pace of the logged iterations."""
    rows = [row for row in record.history() if row["kind"] == "train"]
    if not rows or not rows[-1]["iteration"] or not total:
        return ""
    return duration(rows[-1]["seconds"] / rows[-1]["iteration"] * (total - done))


def _styled(state: str) -> str:
    style = STYLES.get(state)
    return f"[{style}]{state}[/{style}]" if style else state

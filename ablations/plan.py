"""The plan of a study: every cell with its run id, checked before anything runs, locked once something has.

Refused: keys the config does not know, duplicate seeds, inert levels (two arms that are one run), unequal budgets nobody declared.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ablations.designs import arms_of
from ablations.study import Study
from pipeline.config import ResolvedRun, expand_best, identify, last_wins, resolve
from pipeline.errors import UserError
from pipeline.launch.scheduler import Task
from pipeline.records.manifest import Arm, Cell, StudyManifest
from pipeline.records.metric_specs import refuse_unknown_metrics
from pipeline.schema.base import flat


@dataclass(frozen=True)
class Plan:
    """A manifest together with the resolved runs of its cells."""

    manifest: StudyManifest
    runs: dict[str, ResolvedRun]  # run id -> run

    def tasks(self, cells: Sequence[Cell] | None = None) -> list[Task]:
        """The cells (all of them, or some) as tasks of the scheduler."""
        labels = {arm.name: arm.label for arm in self.manifest.arms}
        chosen = self.manifest.cells if cells is None else cells
        return [Task(f"{labels[cell.arm]} · seed {cell.seed}", self.runs[cell.run_id]) for cell in chosen]


def make_plan(study: Study, *, extra: Sequence[str] = (), seeds: Sequence[int] | None = None) -> Plan:
    """Resolve every cell of `study`; `extra` overrides are added to its base, `seeds` replace its seeds.

    Raises UserError naming the study and the arm for the first refusal.
    """
    chosen = tuple(study.seeds if seeds is None else seeds)
    if len(set(chosen)) != len(chosen) or not chosen or min(chosen) < 0:
        raise UserError(f"study {study.name}: seeds {list(chosen)} must be different numbers from 0")
    arms = arms_of(study)
    refuse_unknown_metrics((metric.name for metric in study.metrics.rows()), f"study {study.name}")
    _refuse_base_conflicts(study, extra)
    runs: dict[str, ResolvedRun] = {}
    cells: list[Cell] = []
    owner: dict[str, Cell] = {}
    for arm in arms:
        common = last_wins(expand_best((*study.base, f"protocol={study.protocol}", *extra, *arm.overrides)))
        first: ResolvedRun | None = None
        for seed in chosen:
            overrides = (*common, f"seed={seed}")
            if first is None:
                first = _resolve(study, arm, overrides)
            # `seed` is interpolated nowhere in the config (a test holds that), so composing once an arm is enough
            resolved = identify(first.config.model_copy(update={"seed": seed}))
            cell = Cell(arm.name, seed, resolved.run_id, overrides, resolved.images_seen())
            if resolved.run_id in owner:
                _refuse_inert(study, cell, owner[resolved.run_id])
            owner[resolved.run_id] = cell
            runs[resolved.run_id] = resolved
            cells.append(cell)
    _refuse_unequal_budgets(study, arms, cells)
    manifest = StudyManifest(
        name=study.name,
        question=" ".join(study.question.split()),
        revision=1,
        protocol=study.protocol,
        split=study.split,
        metrics=study.metrics.rows(),
        arms=arms,
        cells=tuple(cells),
        seeds=chosen,
        design=study.design,
        budget="equal" if study.budget.rule == "equal" else " ".join(study.budget.reason.split()),
    )
    return Plan(manifest, runs)


def lock(plan: Plan, folder: Path) -> tuple[Plan, str]:
    """Write the plan as the study's newest revision; returns it with its number and a line to say ("" when unchanged)."""
    said = ""
    revision = 1
    if (folder / "plan.json").exists():
        before = StudyManifest.load(folder)
        revision = before.revision
        if before.digest != plan.manifest.digest:
            revision += 1
            said = f"the plan differs from revision {before.revision}: this is revision {revision}; the old one is kept"
    manifest = StudyManifest(**{**vars(plan.manifest), "revision": revision})
    if said or revision == 1:
        manifest.save(folder)
    return Plan(manifest, plan.runs), said


def differences(run: ResolvedRun, reference: ResolvedRun) -> dict[str, tuple[object, object]]:
    """Keys of the resolved configs that differ: key -> (value, value in the reference)."""
    mine, other = (flat(json.loads(item.identity)["config"]) for item in (run, reference))
    absent = "absent"
    return {
        key: (mine.get(key, absent), other.get(key, absent))
        for key in sorted({*mine, *other})
        if mine.get(key, absent) != other.get(key, absent)
    }


def _resolve(study: Study, arm: Arm, overrides: tuple[str, ...]) -> ResolvedRun:
    try:
        return resolve(overrides)
    except UserError as error:
        raise UserError(f"study {study.name}, arm {arm.name}: {error}") from error


def _refuse_base_conflicts(study: Study, extra: Sequence[str]) -> None:
    for source, overrides in (("base", study.base), ("--set", extra)):
        for override in overrides:
            key = override.partition("=")[0].lstrip("+~")
            if key in ("seed", "protocol"):
                raise UserError(f"study {study.name}, {source}: {key} is the study's own field, not an override")


def _refuse_inert(study: Study, cell: Cell, other: Cell) -> None:
    raise UserError(
        f"study {study.name}: arms {other.arm} and {cell.arm} are the same run (seed {cell.seed}); a level that changes nothing "
        "cannot be compared"
    )


def _refuse_unequal_budgets(study: Study, arms: Sequence[Arm], cells: Sequence[Cell]) -> None:
    budgets = {cell.arm: cell.images_seen for cell in cells if cell.images_seen > 0}
    if study.budget.rule == "equal" and len(set(budgets.values())) > 1:
        shown = ", ".join(f"{arm.name} {budgets[arm.name]}" for arm in arms if arm.name in budgets)
        raise UserError(
            f"study {study.name}: arms see different numbers of training images ({shown}); make them equal, or declare it: "
            "budget: {rule: declared, reason: ...}"
        )

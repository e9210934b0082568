"""The plan of a study: every cell with its run id, checked before anything runs, locked once something has.

Refused: keys the config does not know, a seed or a protocol of an arm's own, duplicate seeds, inert levels (two arms that are
one run), two arms of one label, metrics that no arm can have a value of, unequal budgets nobody declared.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ablations.designs import arms_of
from ablations.external import external_runs
from ablations.study import Study, changed
from pipeline.cli import OUT
from pipeline.config import ResolvedRun, assigned, expand_best, identify, last_wins, resolve, unreadable
from pipeline.errors import UserError
from pipeline.launch.scheduler import Task
from pipeline.records.manifest import Arm, Cell, StudyManifest
from pipeline.records.metric_specs import refuse_unknown_metrics
from pipeline.schema.base import flat
from pipeline.schema.measures import advice, cannot_start, why_not
from pipeline.schema.run import RunConfig
from pipeline.weights import missing_for


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


def make_plan(study: Study, *, extra: Sequence[str] = (), seeds: Sequence[int] | None = None, out: Path = OUT) -> Plan:
    """Resolve every cell of `study`; `extra` overrides are added to its base, `seeds` replace its seeds.

    `out`: where `+best=NAME` looks, and external records lie.

    Raises UserError naming the study and the arm for the first refusal.
    """
    if seeds is not None:
        study = changed(study, f"study {study.name}", seeds=list(seeds))
    arms = arms_of(study)
    _refuse_equal_labels(study, arms)
    refuse_unknown_metrics((metric.name for metric in study.metrics.rows()), f"study {study.name}")
    places = [("base", study.base), ("--set", extra), *((f"arm {arm.name}", arm.overrides) for arm in arms)]
    _refuse_own_fields(study, places)
    _refuse_unreadable(study, places)
    runs: dict[str, ResolvedRun] = {}
    cells: list[Cell] = []
    owner: dict[str, Cell] = {}
    for arm in arms:
        for overrides, resolved in _runs_of(study, arm, extra, out):
            cell = Cell(arm.name, resolved.config.seed, resolved.run_id, overrides, resolved.images_seen())
            if resolved.run_id in owner:
                _refuse_inert(study, cell, owner[resolved.run_id])
            owner[resolved.run_id] = cell
            runs[resolved.run_id] = resolved
            cells.append(cell)
    _refuse_hopeless(study, {cell.arm: runs[cell.run_id].config for cell in cells})
    _refuse_unmeasured(study, {cell.arm: runs[cell.run_id].config for cell in cells})
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
        seeds=study.seeds,
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


def _runs_of(study: Study, arm: Arm, extra: Sequence[str], out: Path) -> Iterator[tuple[tuple[str, ...], ResolvedRun]]:
    """An arm's runs, one a seed, with their whole overrides; what other code has made has none."""
    level = study.arms.get(arm.name)
    if level is not None and level.external is not None:
        yield from (((), resolved) for resolved in external_runs(study, arm.name, level.external, extra, out))
        return
    common = last_wins(expand_best((*study.base, f"protocol={study.protocol}", *extra, *arm.overrides), out))
    first: ResolvedRun | None = None
    for seed in study.seeds:
        overrides = (*common, f"seed={seed}")
        if first is None:
            first = _resolve(study, arm, overrides)
        # `seed` is interpolated nowhere in the config (a test holds that), so composing once an arm is enough
        yield overrides, identify(first.config.model_copy(update={"seed": seed}))


def _resolve(study: Study, arm: Arm, overrides: tuple[str, ...]) -> ResolvedRun:
    try:
        return resolve(overrides)
    except UserError as error:
        raise UserError(f"study {study.name}, arm {arm.name}: {error}") from error


def _refuse_own_fields(study: Study, places: Sequence[tuple[str, Sequence[str]]]) -> None:
    """Name the place of an override that is the study's to say: all arms have its seeds, and are measured under its protocol."""
    for place, overrides in places:
        if key := assigned(overrides, ("seed", "protocol")):
            how = "give --seeds" if key == "seed" else f"write {key}: ... into the study's file, or a copy of it"
            raise UserError(f"study {study.name}, {place}: {key} is the study's own field, not an override; {how}")


def _refuse_unreadable(study: Study, places: Sequence[tuple[str, Sequence[str]]]) -> None:
    """Name the place of an override that Hydra's grammar does not take."""
    for place, overrides in places:
        for problem in map(unreadable, overrides):
            if problem:
                raise UserError(f"study {study.name}, {place}: {problem}")


def _refuse_inert(study: Study, cell: Cell, other: Cell) -> None:
    raise UserError(
        f"study {study.name}: arms {other.arm} and {cell.arm} are the same run (seed {cell.seed}); a level that changes nothing "
        "cannot be compared"
    )


def _refuse_equal_labels(study: Study, arms: Sequence[Arm]) -> None:
    first: dict[str, str] = {}
    for arm in arms:
        if first.setdefault(arm.label, arm.name) != arm.name:
            raise UserError(
                f"study {study.name}: arms {first[arm.label]} and {arm.name} have one label, {arm.label!r}; tables could not tell "
                "them apart"
            )


def _refuse_hopeless(study: Study, configs: dict[str, RunConfig]) -> None:
    for arm, config in configs.items():
        if problem := cannot_start(config):
            raise UserError(f"study {study.name}, arm {arm}: {problem}")


def _refuse_unmeasured(study: Study, configs: dict[str, RunConfig]) -> None:
    """Nothing is trained for numbers that nobody will get: a metric must be possible in one arm at least."""
    lost: dict[str, list[str]] = {}
    names = tuple(metric.name for metric in study.metrics.rows())
    for name in names:
        reasons = [why_not(name, config, study.split) for config in configs.values()]
        if all(reasons):
            lost.setdefault("; ".join(dict.fromkeys(reasons)), []).append(name)
    if not lost:
        return
    wanted = [name for of_reason in lost.values() for name in of_reason]
    told = "; ".join(f"{', '.join(of_reason)}: {reason}" for reason, of_reason in lost.items())
    raise UserError(
        f"study {study.name}: no arm would have a value of {told}{advice(wanted, configs.values(), study.split)}"
    )


def unavailable(plan: Plan) -> list[str]:
    """What to know before starting: metrics that will have no value for want of weight files, one line each."""
    folders = {run.config.protocol.weights_dir for run in plan.runs.values()}
    lines: dict[str, list[str]] = {}
    for metric in plan.manifest.metrics:
        missing = next(filter(None, (missing_for(metric.name, folder) for folder in folders)), "")
        if missing:
            lines.setdefault(missing, []).append(metric.name)
    said = [f"{', '.join(names)} will be unavailable: {missing}" for missing, names in lines.items()]
    return said + _cannot_train(plan)


def _cannot_train(plan: Plan) -> list[str]:
    """Arms whose loss needs a weight file that is not there: a warning, since another machine may have it."""
    arms: dict[str, list[str]] = {}
    for cell in plan.manifest.cells:
        config = plan.runs[cell.run_id].config
        if (
            cell.images_seen == 0 or not config.loss.perceptual.weight
        ):  # a rule has a loss section too, and no use for it
            continue
        missing = missing_for("loss.perceptual", config.protocol.weights_dir)
        if missing and cell.arm not in arms.setdefault(missing, []):
            arms[missing].append(cell.arm)
    return [
        f"arms {', '.join(names)} cannot train: their perceptual loss needs VGG-19, and {missing}; or set loss.perceptual.weight=0"
        for missing, names in arms.items()
    ]


def _refuse_unequal_budgets(study: Study, arms: Sequence[Arm], cells: Sequence[Cell]) -> None:
    budgets = {cell.arm: cell.images_seen for cell in cells if cell.images_seen > 0}
    if study.budget.rule == "equal" and len(set(budgets.values())) > 1:
        shown = ", ".join(f"{arm.name} {budgets[arm.name]}" for arm in arms if arm.name in budgets)
        raise UserError(
            f"study {study.name}: arms see different numbers of training images ({shown}); make them equal, or declare it: "
            "budget: {rule: declared, reason: ...}"
        )

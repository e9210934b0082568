"""What a sweep has found: status, best trials as an override file, importances, plots."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
import yaml
from optuna.trial import FrozenTrial, TrialState
from rich.markup import escape

from pipeline.cli import text_table
from pipeline.errors import UserError
from pipeline.records import atomic
from pipeline.records.store import SHORT_ID
from sweeps.leases import is_gone
from sweeps.sweep import Sweep, section_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

PLOTS = {
    "history": "plot_optimization_history",
    "slice": "plot_slice",
    "parallel": "plot_parallel_coordinate",
    "contour": "plot_contour",
    "edf": "plot_edf",
    "timeline": "plot_timeline",
    "intermediate": "plot_intermediate_values",
    "pareto": "plot_pareto_front",
}
MIN_FOR_IMPORTANCE = 4  # finished trials; fewer say nothing


def proper(study: optuna.Study) -> list[FrozenTrial]:
    """The sweep's trials without those that another worker had made superfluous."""
    return [trial for trial in study.get_trials(deepcopy=False) if not trial.user_attrs.get("surplus")]


def feasible(trial: FrozenTrial) -> bool:
    """Whether a trial keeps all constraints (each told as value minus bound)."""
    return all(value <= 0 for value in trial.constraints.values())


def best_trials(study: optuna.Study, sweep: Sweep) -> list[FrozenTrial]:
    """The feasible best trial, or the feasible Pareto front ordered by the first objective; raises UserError when there is none."""
    found = [trial for trial in proper(study) if trial.state == TrialState.COMPLETE and feasible(trial)]
    if not found:
        raise UserError(
            f"sweep {sweep.name}: no finished trial keeps the constraints yet (python -m sweeps status {sweep.name})"
        )
    signs = [1.0 if direction == "max" else -1.0 for direction in sweep.objectives.values()]
    scores = {
        trial.number: tuple(sign * value for sign, value in zip(signs, trial.values, strict=True)) for trial in found
    }

    def dominated(mine: tuple[float, ...]) -> bool:
        return any(all(a >= b for a, b in zip(other, mine, strict=True)) and other != mine for other in scores.values())

    front = [trial for trial in found if not dominated(scores[trial.number])]
    front.sort(key=lambda trial: (*(-score for score in scores[trial.number]), trial.number))
    return front if len(signs) > 1 else front[:1]


def write_best(study: optuna.Study, sweep: Sweep, path: Path, number: int | None) -> FrozenTrial:
    """Write the overrides of the best trial (or of trial `number`) where `+best=SWEEP` finds them."""
    if number is None:
        trial = best_trials(study, sweep)[0]
    else:
        chosen = [item for item in proper(study) if item.number == number and item.state == TrialState.COMPLETE]
        if not chosen:
            raise UserError(f"sweep {sweep.name}: trial {number} is not a finished trial")
        trial = chosen[0]
        if not feasible(trial):
            raise UserError(f"sweep {sweep.name}: trial {number} breaks the constraints, so it is never best")
    content = {
        "sweep": sweep.name,
        "study": study.study_name,
        "trial": trial.number,
        "run": trial.user_attrs["run_id"],
        "values": dict(zip(sweep.objectives, trial.values, strict=True)),
        "split": "val",
        "overrides": [*filter(_outlives_the_sweep, sweep.base), *trial.user_attrs["overrides"]],
    }
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)
    atomic.write_text(
        path, f"# Hydra overrides of a sweep's best trial. Use: python -m pipeline train +best={sweep.name}\n{text}"
    )
    return trial


def _outlives_the_sweep(override: str) -> bool:
    """False for how the sweep was measured: a study or a training that takes the best over measures in its own way."""
    return section_of(override) != "protocol"


def status_table(study: optuna.Study, sweep: Sweep, width: int) -> Table:
    """All trials, the best ones marked, with counts by state below, on `width` characters."""
    rows: list[tuple[str, ...]] = []
    marked: set[int] = set()
    if any(trial.state == TrialState.COMPLETE and feasible(trial) for trial in proper(study)):
        marked = {trial.number for trial in best_trials(study, sweep)}
    counts: dict[str, int] = {}
    for trial in proper(study):
        state = state_of(trial)
        counts[state] = counts.get(state, 0) + 1
        values = [f"{value:.4g}" for value in trial.values] if trial.values else [""] * len(sweep.objectives)
        if trial.state == TrialState.PRUNED and len(values) == 1 and trial.value is not None:
            values = [f"({trial.value:.4g})"]
        reason = trial.user_attrs.get("reason", "")
        if trial.state == TrialState.COMPLETE and not feasible(trial):
            reason = "breaks " + ", ".join(name for name, value in trial.constraints.items() if value > 0)
        number = f"{trial.number}{' best' if trial.number in marked else ''}"
        run = str(trial.user_attrs.get("run_id", ""))[:SHORT_ID]
        chosen = escape(" ".join(trial.user_attrs.get("overrides", [])))
        rows.append((number, state, run, *values, chosen, escape(reason)))
    columns = ("trial", "state", "run", *sweep.objectives, "chosen", "reason")
    table = text_table(columns, rows, width=width, spare=("run", "reason"))
    table.title = f"{sweep.name}, revision {study.user_attrs.get('revision')}"
    told = ", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "no trials yet"
    table.caption = f"{told}; {table.caption}" if table.caption else told
    return table


def state_of(trial: FrozenTrial) -> str:
    """Optuna's state in this project's words; a running trial whose worker is gone says so."""
    if trial.state == TrialState.RUNNING:
        worker = trial.user_attrs.get("worker")
        return "orphaned" if worker == "" or (worker and is_gone(worker)) else "running"
    if trial.state == TrialState.COMPLETE:
        return "imported" if "imported_from" in trial.user_attrs else "finished"
    return {TrialState.PRUNED: "pruned", TrialState.FAIL: "failed", TrialState.WAITING: "waiting"}[trial.state]


def describe(trial: FrozenTrial, sweep: Sweep) -> str:
    """One line about an ended trial."""
    chosen = " ".join(trial.user_attrs.get("overrides", []))
    if trial.state == TrialState.COMPLETE:
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in zip(sweep.objectives, trial.values, strict=True))
        how = " (a finished run, reused)" if trial.user_attrs.get("how") == "reused" else ""
        return f"trial {trial.number}: {numbers}{how}  [{chosen}]"
    word = {TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}.get(trial.state, trial.state.name.lower())
    return f"trial {trial.number}: {word}: {trial.user_attrs.get('reason', '')}  [{chosen}]"


def importances(study: optuna.Study, sweep: Sweep, method: str) -> dict[str, dict[str, float]]:
    """Objective -> parameter -> its importance; those of one objective sum to 1.

    `method` ped-anova asks how much a parameter decides whether a trial is among the best, fanova which share of the value's
    variation it explains. Raises UserError for too few trials, and for fanova on a space with conditions: it knows nothing of
    parameters that are not in every trial, and would give their share to the others.
    """
    from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator, get_param_importances

    conditional = [key for key, parameter in sweep.space.items() if parameter.when]
    if method == "fanova" and conditional:
        raise UserError(
            f"sweep {sweep.name}: fanova leaves out parameters that are not in every trial ({', '.join(conditional)}), so its "
            "shares would mislead; use ped-anova"
        )
    finished = [trial for trial in proper(study) if trial.state == TrialState.COMPLETE]
    if len(finished) < MIN_FOR_IMPORTANCE:
        raise UserError(
            f"sweep {sweep.name}: {len(finished)} finished trials are too few for importances (at least {MIN_FOR_IMPORTANCE})"
        )
    result: dict[str, dict[str, float]] = {}
    for index, (name, direction) in enumerate(sweep.objectives.items()):
        # ped-anova asks what makes a target low; fanova asks what makes it vary, whichever way is better
        sign = -1.0 if method == "ped-anova" and direction == "max" else 1.0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            evaluator = FanovaImportanceEvaluator(seed=0) if method == "fanova" else PedAnovaImportanceEvaluator()
            try:
                result[name] = get_param_importances(
                    study,
                    evaluator=evaluator,
                    target=lambda trial, index=index, sign=sign: sign * trial.values[index],
                )
            except ImportError as error:
                raise UserError(
                    f"importance by {method} needs a package that is not installed ({error}): pip install 'ca2sis-lab[sweeps]'"
                ) from error
            except (ValueError, RuntimeError) as error:
                raise UserError(f"sweep {sweep.name}: importances of {name}: {' '.join(str(error).split())}") from error
    return result


def importance_figure(study: optuna.Study, sweep: Sweep) -> Figure:
    """The numbers of `importances` as bars, one panel an objective, the most important key on top."""
    from matplotlib.figure import Figure

    found = importances(study, sweep, "ped-anova")
    figure = Figure(layout="constrained")
    panels = figure.subplots(1, len(found), squeeze=False)
    for axis, (objective, shares) in zip(panels[0], found.items(), strict=True):
        axis.barh(list(shares), list(shares.values()))
        axis.invert_yaxis()
        axis.set(title=objective, xlabel="share of the importance (ped-anova)")
    return figure


def write_plots(study: optuna.Study, sweep: Sweep, folder: Path) -> tuple[list[Path], list[str]]:
    """Importances and Optuna's usual plots as PNG files; returns those written and, for the others, why not."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from optuna.visualization import matplotlib as plots

    written: list[Path] = []
    left: list[str] = []
    several = len(sweep.objectives) > 1

    def save(name: str, figure: Figure) -> None:
        figure.set_size_inches(8, 5)
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120, bbox_inches="tight")
        written.append(path)

    try:
        save("importances", importance_figure(study, sweep))
    except UserError as error:
        left.append(f"importances: {error}")
    for name, function in PLOTS.items():
        if (name == "pareto") != several and name in ("pareto", "intermediate"):
            continue
        kwargs = {}
        if several and name not in ("pareto", "timeline"):
            first = next(iter(sweep.objectives))
            kwargs = {"target": lambda trial: trial.values[0], "target_name": first}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                axes = vars(plots)[function](study, **kwargs)
            except (ValueError, RuntimeError, ImportError, KeyError) as error:
                left.append(f"{name}: {' '.join(str(error).split())}")
                continue
        figure = axes.figure if hasattr(axes, "figure") else axes.flat[0].figure
        save(name, figure)
        plt.close(figure)
    return written, left

"""What a trial's process does: train, report each validation to the storage, stop when the pruner says so."""

from __future__ import annotations

import math
from typing import Any

import optuna

from pipeline.config import ResolvedRun
from pipeline.launch.job import load_entry
from pipeline.progress import Progress
from pipeline.records.store import RunRecord, RunStore
from sweeps.samplers import make_pruner
from sweeps.storage import open_storage
from sweeps.sweep import Pruner

ENTRY = "sweeps.trial:execute"


def execute(
    resolved: ResolvedRun,
    store: RunStore,
    *,
    progress: Progress,
    on_validation: None = None,  # a trial listens itself
    entry: str,
    metric: str | None,
    storage: str,
    study: str,
    trial: int,
    pruner: dict[str, Any],
    iterations: int,
) -> RunRecord:
    """Run or resume one trial's run through `entry`, which carries out runs ("module:function").

    `metric` is what validations report (None with several objectives: nothing), `storage` a URL, `study` a name, `trial` Optuna's
    id, `pruner` settings, `iterations` those of the whole run.
    """
    carry_out = load_entry(entry)
    if metric is None:
        return carry_out(resolved, store, progress=progress)
    opened = open_storage(storage)
    judge = make_pruner(Pruner.model_validate(pruner), iterations)
    told = optuna.load_study(study_name=study, storage=opened, pruner=judge)

    def report(iteration: int, numbers: dict[str, float]) -> bool:
        value = numbers.get(metric, math.nan)
        if not math.isfinite(value):
            return False
        opened.set_trial_intermediate_value(trial, iteration, value)
        return judge.prune(told, opened.get_trial(trial))

    return carry_out(resolved, store, progress=progress, on_validation=report)

"""What a trial's process does: train, report each validation to the storage, stop when the pruner says so."""

from __future__ import annotations

import math
from typing import Any

import optuna

from pipeline.config import ResolvedRun
from pipeline.launch.job import load_entry
from pipeline.progress import Lines
from pipeline.records.store import RunRecord, RunStore
from sweeps.samplers import make_pruner
from sweeps.storage import open_storage
from sweeps.sweep import Pruner

ENTRY = "sweeps.trial:execute"
TRAINER = "pipeline.runs.run:execute"


def execute(resolved: ResolvedRun, store: RunStore, options: dict[str, Any]) -> RunRecord:
    """Run or resume one trial's run.

    `options`: storage (URL), study (name), trial (Optuna's id), metric (what is reported; None with several objectives), pruner
    (settings), iterations (of the whole run), trainer ("module:function").
    """
    train = load_entry(options["trainer"])
    if options["metric"] is None:
        return train(resolved, store, progress=Lines())
    storage = open_storage(options["storage"])
    pruner = make_pruner(Pruner.model_validate(options["pruner"]), options["iterations"])
    study = optuna.load_study(study_name=options["study"], storage=storage, pruner=pruner)

    def on_validation(iteration: int, numbers: dict[str, float]) -> bool:
        value = numbers.get(options["metric"], math.nan)
        if not math.isfinite(value):
            return False
        storage.set_trial_intermediate_value(options["trial"], iteration, value)
        return pruner.prune(study, storage.get_trial(options["trial"]))

    return train(resolved, store, progress=Lines(), on_validation=on_validation)

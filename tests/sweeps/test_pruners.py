"""Each pruner stops a bad trial and lets the best one run to its end."""

from __future__ import annotations

import optuna
import pytest
from optuna.trial import TrialState

from sweeps.samplers import make_pruner
from tests.sweeps.fakes import sweep

ITERATIONS = 9
GOOD, BAD = 10.0, 1.0


def length(study: optuna.Study, level: float) -> int:
    """Iterations of a trial that reports `level` times the share done, as `sweeps.trial` reports validations."""
    trial = study.ask()
    for iteration in range(1, ITERATIONS + 1):
        trial.report(level * iteration / ITERATIONS, iteration)
        if trial.should_prune():
            study.tell(trial, state=TrialState.PRUNED)
            return iteration
    study.tell(trial, level)
    return ITERATIONS


@pytest.mark.parametrize("kind", ["median", "asha", "hyperband"])
def test_each_pruner(kind: str) -> None:
    settings = {"kind": kind, "min_iterations": 2, "reduction": 3, "startup": 2}
    pruner = make_pruner(sweep(pruner=settings).pruner, ITERATIONS)
    study = optuna.create_study(study_name="w", direction="maximize", pruner=pruner)
    lengths = [(level, length(study, level)) for level in [GOOD + number / 100 for number in range(12)] + [BAD] * 12]
    bad = [done for level, done in lengths if level == BAD]
    assert min(bad) == 2 and max(done for level, done in lengths if level > BAD) == ITERATIONS
    assert sum(done < ITERATIONS for done in bad) >= 6
    assert length(study, 2 * GOOD) == ITERATIONS, "the best so far is never stopped"


def test_hyperband_spreads_its_marks_over_the_length_of_a_run() -> None:
    settings = {"kind": "hyperband", "min_iterations": 1, "reduction": 3}

    def brackets(iterations: int) -> int:
        pruner = make_pruner(sweep(pruner=settings).pruner, iterations)
        study = optuna.create_study(direction="maximize", pruner=pruner)
        length(study, GOOD)
        return pruner._n_brackets

    assert [brackets(iterations) for iterations in (0, 9, 81)] == [1, 3, 5], "0: one mark, and nothing else to spare by"


def test_no_pruner_stops_nothing() -> None:
    study = optuna.create_study(direction="maximize", pruner=make_pruner(sweep().pruner, ITERATIONS))
    assert [length(study, level) for level in (GOOD, GOOD, GOOD, BAD)] == [ITERATIONS] * 4

"""A worker on a journal, with real processes and the trainer of `fakes`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
import pytest

from pipeline.launch.local import LocalExecutor
from pipeline.launch.resources import Resources
from sweeps.storage import open_storage, open_study
from sweeps.sweep import Sweep
from sweeps.worker import Limits, Worker
from tests.sweeps.fakes import ENTRY


@pytest.fixture
def executor() -> Iterator[LocalExecutor]:
    made = LocalExecutor(Resources(2, 1, (), 1, ""), preload=("optuna", "sweeps.trial", "tests.sweeps.fakes"))
    yield made
    made.close()


@pytest.fixture
def work(executor: LocalExecutor, tmp_path: Path) -> Callable[..., tuple[optuna.Study, list[str]]]:
    """Runs a worker to its end on the journal below `tmp_path`; returns the study and what the worker said."""

    def go(made: Sweep, trials: int | None = None, max_seconds: float | None = None) -> tuple[optuna.Study, list[str]]:
        url = f"journal:{tmp_path / 'journal.log'}"
        study = open_study(open_storage(url), made)
        said: list[str] = []
        limits = Limits(trials or made.trials, max_seconds, 0.5, 3.0)
        Worker(made, study, url, tmp_path, executor, limits, said.append, ENTRY).run()
        return study, said

    return go

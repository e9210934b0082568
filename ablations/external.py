"""Arms that other code has made: the external records of a name, one a seed, held to the study's data and split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ablations.study import Study
from pipeline.config import ResolvedRun, compose, expand_best, from_yaml, identify, last_wins
from pipeline.errors import UserError, nearest
from pipeline.records.external import external_records
from pipeline.records.store import SHORT_ID, RunRecord, RunStore
from pipeline.schema.run import RunConfig


def external_runs(study: Study, arm: str, name: str, extra: Sequence[str], out: Path) -> Iterator[ResolvedRun]:
    """The run of each seed of the study, under its protocol. Raises UserError where there is none that fits, or more than one."""
    where = f"study {study.name}, arm {arm}"
    store = RunStore(out / "runs")
    known = external_records(store)
    if name not in known:
        raise UserError(
            f"{where}: no external record is called {name!r} in {store.root}{nearest(name, list(known))}; "
            f"python -m pipeline import-images {name} --images DIR makes one"
        )
    base = compose(last_wins(expand_best((*study.base, f"protocol={study.protocol}", *extra), out)))
    for seed in study.seeds:
        record = _one(known[name].get(seed, []), base, f"{where}, seed {seed}: external record {name}")
        config = from_yaml(record.config_yaml).model_copy(update={"protocol": base.protocol})
        resolved = identify(config)
        if resolved.run_id != record.id:
            raise UserError(f"{where}: the data of {name} have changed since it was imported; import it again")
        measured = record.provenance["external"]["split"]
        if measured != study.split:
            raise UserError(f"{where}: {name} holds pictures of split {measured}, the study is about {study.split}")
        yield resolved


def _one(records: Sequence[RunRecord], base: RunConfig, what: str) -> RunRecord:
    """The one of several records that is of the study's data."""
    if not records:
        raise UserError(f"{what}: there is none of this seed (one folder of --images is one seed, from 0)")
    finished = [record for record in records if record.state == "finished"]
    if not finished:
        status = records[0].status
        raise UserError(f"{what} is {records[0].state} ({status['reason'] or 'import it again'}), not finished")
    fitting = [record for record in finished if _shape(from_yaml(record.config_yaml)) == _shape(base)]
    if not fitting:
        (other, height, width), (own, rows, columns) = _shape(from_yaml(finished[0].config_yaml)), _shape(base)
        raise UserError(f"{what} is of {other} {width}x{height}, the study's base of {own} {columns}x{rows}")
    if len(fitting) > 1:
        digest = identify(base).data["digest"]
        exact = [record for record in fitting if record.identity["data"] == digest]
        if len(exact) != 1:
            ids = ", ".join(record.id[:SHORT_ID] for record in fitting)
            raise UserError(f"{what}: {len(fitting)} records fit ({ids}); import one of them under another name")
        fitting = exact
    return fitting[0]


def _shape(config: RunConfig) -> tuple[str, int, int]:
    """What pictures of two arms must share to stand in one table."""
    return (config.data.name, *config.data.hw)

"""What the records hold for one cell: a value for each seed, or the reason why there is none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from analysis.asked import one_at_a_time
from analysis.study import Study
from analysis.tables.layout import ColumnPlan
from analysis.tables.model import CellStatus
from pipeline.errors import UserError
from pipeline.records.external import EXTERNAL
from pipeline.records.metric_specs import names_of

# Run states as cell statuses; a run that ended with a word says which, one that has not ended is unfinished.
STATUS_OF_STATE: dict[str, CellStatus] = {
    "missing": "missing",
    "planned": "missing",
    "running": "unfinished",
    "preempted": "unfinished",
    "pruned": "unfinished",
    "failed": "failed",
    "diverged": "diverged",
    "damaged": "damaged",
}
NOT_TRAINED = ("rule", "released", EXTERNAL)  # kinds of runs without a training of their own
SEVERITY: tuple[CellStatus, ...] = (
    "damaged", "invalid", "diverged", "failed", "unfinished", "unavailable", "missing", "not_applicable",
)  # fmt: skip


@dataclass(frozen=True)
class Gathered:
    """One cell's raw material; seeds are those of the plan."""

    values: dict[int, float] = field(default_factory=dict)
    defects: dict[int, tuple[CellStatus, str]] = field(default_factory=dict)  # seed -> (status, reason)
    images: tuple[int, ...] = ()  # n of the metric rows
    units: tuple[str, ...] = ()
    directions: tuple[str, ...] = ()
    fingerprints: dict[str, tuple[str, ...]] = field(default_factory=dict)  # fingerprint -> run ids
    run_ids: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()  # what the rows say about their values

    @property
    def status(self) -> CellStatus:
        """The cell's status: "ok" as soon as one seed has a value, else the worst of the reasons."""
        if self.values:
            return "ok"
        found = {status for status, _ in self.defects.values()}
        return next((status for status in SEVERITY if status in found), "blank")


class Gatherer:
    """Looks cells up in a study; indexes the frame once."""

    def __init__(self, study: Study) -> None:
        self.study = study
        fields = [
            "seed",
            "value",
            "n",
            "unit",
            "direction",
            "split",
            "protocol",
            "fingerprint",
            "state",
            "status",
            "reason",
        ]
        self._runs: dict[str, list[tuple[int, str, str, str, str]]] = {}
        run_columns = ["arm", "seed", "run_id", "run_state", "run_reason", "kind"]
        for arm, *rest in study.runs[run_columns].itertuples(index=False, name=None):
            self._runs.setdefault(arm, []).append((int(rest[0]), *rest[1:]))
        self._rows: dict[tuple[str, str], list[dict[str, Any]]] = {}
        plain = study.frame[["arm", "metric", *fields]].astype(object)
        plain = plain.where(plain.notna(), None)
        for arm, metric, *values in plain.itertuples(index=False, name=None):
            self._rows.setdefault((arm, metric), []).append(dict(zip(fields, values, strict=True)))

    def gather(self, arm: str, column: ColumnPlan, fingerprint: str | None) -> Gathered:
        """The cell of an arm in a column; values of another fingerprint than the given one do not count, of None no value does."""
        rows = self._matching(arm, column, "trained", fingerprint)
        untrained = self._matching(arm, column, "untrained", fingerprint) if column.kind == "gain" else {}
        values: dict[int, float] = {}
        defects: dict[int, tuple[CellStatus, str]] = {}
        inapplicable: list[tuple[CellStatus, str]] = []  # what a seed says the arm cannot have by its nature
        unrecorded: list[int] = []  # finished seeds that say nothing
        used: list[dict[str, Any]] = []
        used_runs: dict[str, list[str]] = {}
        run_ids = []
        for seed, run_id, state, reason, kind in self._runs.get(arm, []):
            run_ids.append(run_id)
            if state != "finished":
                word = f"the run is {state}: {reason}" if reason else f"the run is {state}"
                defects[seed] = (STATUS_OF_STATE.get(state, "unfinished"), word)
                continue
            row, before = rows.get(seed), untrained.get(seed)
            if row is None or row["status"] != "ok":
                others = [other for other in self._rows.get((arm, column.metric), []) if other["seed"] == seed]
                other_version = any(_fits(other, column, "trained") for other in others if other is not row)
                defects[seed] = _defect(row, column, kind, other_version)
                if kind == EXTERNAL:
                    continue  # each has pictures of its own
                if defects[seed][0] == "not_applicable":
                    inapplicable.append(defects[seed])
                elif defects[seed][0] == "missing" and not other_version:
                    unrecorded.append(seed)
                continue
            if column.kind == "gain" and (before is None or before["status"] != "ok"):
                defects[seed] = (
                    "not_applicable" if kind in NOT_TRAINED else "missing",
                    "no value of the untrained network",
                )
                continue
            values[seed] = row["value"] - before["value"] if before is not None else row["value"]
            used.append(row)
            used_runs.setdefault(row["fingerprint"], []).append(run_id)
        if inapplicable and not values:
            # An older version left out the row that says so: no evaluation would give a value.
            defects.update(dict.fromkeys(unrecorded, inapplicable[-1]))
        return Gathered(
            values=values,
            defects=defects,
            images=tuple(row["n"] for row in used),
            units=_distinct(row["unit"] for row in used),
            directions=_distinct(row["direction"] for row in used),
            fingerprints={name: tuple(ids) for name, ids in used_runs.items()},
            run_ids=tuple(run_ids),
            notes=_distinct(row["reason"] for row in used if row["reason"]),
        )

    def settle_fingerprint(self, arms: Sequence[str], column: ColumnPlan) -> str | None:
        """The one fingerprint of a column, None when there is no value.

        A run may hold rows of an older version of the metric beside the present one: the version that *all* runs with a
        value share is taken. Raises UserError naming the runs when there is none, or more than one, and when the column asks for a
        version that nobody has. Pictures of other code that were measured otherwise are marked, and refuse no table.
        """
        own = [arm for arm in arms if any(kind != EXTERNAL for *_, kind in self._runs.get(arm, []))]
        versions = self._versions(own, column)
        foreign = not versions
        versions = versions or self._versions(arms, column)
        if not versions:
            return None
        wanted = {name: runs for name, runs in versions.items() if name.startswith(column.fingerprint)}
        if not wanted:
            there = ", ".join(f"{name[:10]} ({_some(runs)})" for name, runs in sorted(versions.items()))
            raise UserError(
                f"metric {column.metric!r}: no run has the fingerprint {column.fingerprint!r}; there are {there}"
            )
        versions = wanted
        if foreign or column.kind == "cost":  # other hardware: the larger part stands, the rest is marked
            return max(sorted(versions), key=lambda name: len(versions[name]))
        everybody = set().union(*versions.values())
        shared = [name for name, runs in versions.items() if runs == everybody]
        if len(shared) == 1:
            return shared[0]
        if apart := one_at_a_time(self.study, everybody):
            raise UserError(f"metric {column.metric!r} was measured on several data sets: {apart}")
        listed = "; ".join(f"{name[:10]}: {_some(runs)}" for name, runs in sorted(versions.items()))
        raise UserError(
            f"metric {column.metric!r} has {len(versions)} protocol fingerprints in one column ({listed}): evaluate "
            "the runs under one version (python -m pipeline evaluate RUN), or name one in the table's specification "
            "(fingerprint)"
        )

    def _versions(self, arms: Sequence[str], column: ColumnPlan) -> dict[str, set[str]]:
        """Fingerprints of the values that finished runs of these arms have in a column, each with its runs."""
        found: dict[str, set[str]] = {}
        for arm in arms:
            finished = {seed: run_id for seed, run_id, state, *_ in self._runs.get(arm, []) if state == "finished"}
            for row in self._rows.get((arm, column.metric), []):
                if row["status"] == "ok" and row["seed"] in finished and _fits(row, column, "trained"):
                    found.setdefault(row["fingerprint"], set()).add(finished[row["seed"]])
        return found

    def _matching(self, arm: str, column: ColumnPlan, state: str, fingerprint: str | None) -> dict[int, dict[str, Any]]:
        found: dict[int, dict[str, Any]] = {}
        for row in self._rows.get((arm, column.metric), []):
            if not _fits(row, column, state):
                continue
            if row["status"] == "ok" and row["fingerprint"] != fingerprint:
                continue
            old = found.get(row["seed"])
            if old is None or (old["status"] != "ok" and row["status"] == "ok"):
                found[row["seed"]] = row
        return found


def _defect(
    row: Mapping[str, Any] | None, column: ColumnPlan, kind: str, other_version: bool
) -> tuple[CellStatus, str]:
    """Why a finished run has no value in a column."""
    if row is not None:
        status: CellStatus = row["status"] if row["status"] in SEVERITY else "invalid"
        if status == "missing" and column.metric in names_of("training") and kind in NOT_TRAINED:
            return "not_applicable", "not trained here"
        return status, row["reason"]
    if other_version and kind == EXTERNAL:
        return "missing", (
            "measured otherwise than the other rows (pictures resized, or of other images): not comparable; a table of this arm "
            "alone (arms, in its specification) shows the number"
        )
    if other_version:
        return "missing", "recorded under another protocol fingerprint only (other hardware or version): not comparable"
    if column.metric in names_of("training") and kind in NOT_TRAINED:
        return "not_applicable", "not trained here"
    protocol = f" under protocol {column.protocol} on split {column.split}" if column.protocol else ""
    return "missing", f"the run has no such metric{protocol}"


def _fits(row: Mapping[str, Any], column: ColumnPlan, state: str) -> bool:
    if row["state"] != state:
        return False
    if not column.split:
        return not row["split"]
    return (row["protocol"], row["split"]) == (column.protocol, column.split)


def describe_defects(defects: Mapping[int, tuple[CellStatus, str]], seeds: int) -> str:
    """One line for a footnote: "out of memory (seeds 1, 2)"; the seeds are left out when all are meant."""
    by_reason: dict[str, list[int]] = {}
    for seed, (_, reason) in sorted(defects.items()):
        by_reason.setdefault(reason, []).append(seed)
    parts = []
    for reason, of_reason in by_reason.items():
        named = f" (seed{'s' if len(of_reason) > 1 else ''} {', '.join(map(str, of_reason))})"
        parts.append(reason if len(of_reason) == seeds else reason + named)
    return "; ".join(parts)


def _distinct(items: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(Counter(items)))


def _some(runs: Iterable[str], most: int = 4) -> str:
    short = sorted(run[:10] for run in runs)
    return ", ".join(short[:most]) + (f" and {len(short) - most} more" if len(short) > most else "")

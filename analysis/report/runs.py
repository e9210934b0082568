"""Every run of a study for the report: state, numbers, config against the reference run, attempts, environment, cost."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from analysis.figures.style import number
from analysis.labels import metric_label
from analysis.study import Study
from analysis.tables.numbers import scale_of
from pipeline.errors import UserError
from pipeline.records import RunRecord
from pipeline.records.external import EXTERNAL, import_command, origin
from pipeline.records.store import SHORT_ID
from pipeline.schema.base import flat
from pipeline.schema.families import FAMILIES

MAX_RUNS = 240  # a larger study's report names its defects and the first runs; the frame holds all
ABSENT = "(absent)"
PAINTED = 3  # arms that the command for painting names
PAINTED_TOGETHER = ("size", "data.name", "data.label_space", "data.aspect", "data.root")  # what these arms must share


@dataclass(frozen=True)
class Change:
    """One key of the config that differs from the reference run."""

    key: str
    reference: str
    here: str


@dataclass(frozen=True)
class RunView:
    """One run as the report shows it."""

    id: str
    short_id: str
    arm: str
    label: str
    seed: int
    state: str
    reason: str
    score: str  # primary metric, "" without
    wall: str
    changes: tuple[Change, ...]
    changes_note: str  # what the changes are against, or why there are none
    metrics: tuple[tuple[str, str, str], ...]  # (label, value or status, reason)
    facts: tuple[tuple[str, str], ...]
    attempts: tuple[tuple[str, str, str], ...]  # (started, outcome, reason)
    command: str


def run_views(study: Study) -> list[RunView]:
    """Views of the study's runs: unfinished ones first, then in the order of the plan, at most `MAX_RUNS`."""
    rows: list[dict[str, Any]] = [{str(k): v for k, v in row.items()} for row in study.runs.to_dict("records")]
    rows.sort(key=lambda row: row["run_state"] == "finished")  # stable
    references = _reference_configs(study)
    commands = {cell.run_id: train_command(cell.overrides) for cell in study.manifest.cells}
    return [_view(study, row, references, commands) for row in rows[:MAX_RUNS]]


def train_command(overrides: Sequence[str]) -> str:
    """The command that trains one run by itself."""
    return " ".join(["python -m pipeline train", *(shlex.quote(item) for item in overrides)])


def paint_command(study: Study) -> str:
    """The command that opens the arms' pictures for painting: a finished run an arm, the reference first; "" without any.

    Left out are families that draw their layout themselves, and arms of another size or data than the first.
    """
    named: list[str] = []
    alike: tuple[str | None, ...] | None = None
    reference = study.reference.name if study.reference is not None else ""
    finished = set(study.runs.loc[study.runs["run_state"] == "finished", "run_id"])
    arms: set[str] = set()
    for cell in sorted(study.manifest.cells, key=lambda cell: cell.arm != reference):  # stable
        config = config_of(study.store.record(cell.run_id)) if cell.run_id in finished else None
        if config is None or cell.arm in arms or config.get("model.family") not in FAMILIES:
            continue
        if FAMILIES[config["model.family"]].inverts:
            continue
        here = tuple(config.get(key) for key in PAINTED_TOGETHER)
        alike = here if alike is None else alike
        if here == alike and len(named) < PAINTED:
            arms.add(cell.arm)
            named.append(cell.run_id[:SHORT_ID])
    return " ".join(["python -m pipeline paint", *named]) if named else ""


def config_of(run: RunRecord) -> dict[str, str] | None:
    """The resolved config as dotted keys with printed values; None when it is missing or damaged."""
    try:
        value = yaml.safe_load(run.config_yaml)
    except (UserError, yaml.YAMLError, UnicodeDecodeError):
        return None
    return {key: _printed(part) for key, part in flat(value).items()} if isinstance(value, dict) else None


def _printed(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10_000).splitlines()[0]


def config_changes(reference: Mapping[str, str], here: Mapping[str, str]) -> tuple[Change, ...]:
    """Keys whose values differ, in the order of the reference and then of `here`."""
    keys = [*reference, *(key for key in here if key not in reference)]
    return tuple(
        Change(key, reference.get(key, ABSENT), here.get(key, ABSENT))
        for key in keys
        if reference.get(key, ABSENT) != here.get(key, ABSENT)
    )


def _reference_configs(study: Study) -> dict[int, tuple[str, dict[str, str]]]:
    """Config of the reference arm's run by seed, with its id."""
    found = {}
    if study.reference is not None:
        for cell in study.manifest.cells:
            if cell.arm == study.reference.name:
                config = config_of(study.store.record(cell.run_id))
                if config is not None:
                    found[cell.seed] = (cell.run_id, config)
    return found


def _view(
    study: Study, row: dict[str, Any], references: dict[int, tuple[str, dict[str, str]]], commands: dict[str, str]
) -> RunView:
    run_id = str(row["run_id"])
    record = study.store.record(run_id)
    changes, note = _changes(record, int(row["seed"]), references)
    external = record.provenance.get("external", {}) if row["kind"] == EXTERNAL else {}
    frame = study.frame[study.frame["run_id"] == run_id]
    return RunView(
        id=run_id,
        short_id=run_id[:SHORT_ID],
        arm=str(row["arm"]),
        label=str(row["arm_label"]),
        seed=int(row["seed"]),
        state=str(row["run_state"]),
        reason=_text(row["run_reason"]),
        score=_score(study, frame),
        wall=duration(row["wall_seconds"]),
        changes=changes,
        changes_note=note,
        metrics=_metrics(frame),
        facts=(*((("pictures", origin(external)),) if external else ()), *_facts(row)),
        attempts=_attempts(record),
        command=import_command(external) if external else commands.get(run_id, ""),
    )


def _changes(
    record: RunRecord, seed: int, references: dict[int, tuple[str, dict[str, str]]]
) -> tuple[tuple[Change, ...], str]:
    here = config_of(record)
    if here is None:
        return (), "The run has no readable config yet."
    if not references:
        return (), "There is no reference run with a readable config to compare with."
    reference_seed = seed if seed in references else min(references)
    reference_id, reference = references[reference_seed]
    if reference_id == record.id:
        return (), "This is the reference run."
    changes = config_changes(reference, here)
    against = f"reference run {reference_id[:SHORT_ID]} (seed {reference_seed})"
    return changes, f"Against {against}." if changes else f"The same config as {against}."


def _score(study: Study, frame: Any) -> str:
    if study.primary is None:
        return ""
    rows = frame[
        (frame["metric"] == study.primary.name)
        & (frame["state"] == "trained")
        & (frame["protocol"] == study.manifest.protocol)
        & (frame["split"] == study.manifest.split)
        & frame["value"].notna()
    ]
    if rows.empty:
        return ""
    unit = str(rows["unit"].iloc[0])
    return f"{number(float(rows['value'].iloc[0]))}{f' {unit}' if unit else ''}"


def _metrics(frame: Any) -> tuple[tuple[str, str, str], ...]:
    rows = []
    columns = ["metric", "value", "unit", "status", "reason", "state", "split", "protocol", "n"]
    for metric, value, unit, status, reason, state, split, protocol, n in frame[columns].itertuples(
        index=False, name=None
    ):
        label = metric_label(str(metric)) + (" (untrained)" if state == "untrained" else "")
        if status == "ok":
            where = ", ".join(part for part in (str(protocol), str(split), f"n = {n}" if split else "") if part)
            rows.append((label, _big(value, str(unit)), where))
        else:
            rows.append((label, str(status).replace("_", " "), _text(reason)))
    return tuple(rows)


def _facts(row: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    commit = _text(row["commit"])
    facts = [
        ("code", f"{commit[:12]}{' with uncommitted changes' if row['dirty'] is True else ''}" if commit else ""),
        ("torch", _text(row["torch"])),
        ("device", _text(row["device"])),
        ("data", _text(row["data_description"])),
        ("wall time", duration(row["wall_seconds"])),
        ("device time", duration(row["device_seconds"])),
        ("images seen", _count(row["images_seen"])),
        ("parameters", _count(row["params"])),
        ("compute per image", _big(row["flops_per_image"], "FLOP")),
        ("peak memory", f"{number(float(row['peak_mem_gib']), 3)} GiB" if _known(row["peak_mem_gib"]) else ""),
    ]
    return tuple((name, value) for name, value in facts if value)


def _attempts(record: RunRecord) -> tuple[tuple[str, str, str], ...]:
    attempts = record.status.get("attempts")
    if not isinstance(attempts, list):
        return ()
    return tuple(
        (str(item.get("started") or ""), str(item.get("outcome") or "open"), str(item.get("reason") or ""))
        for item in attempts
        if isinstance(item, dict)
    )


def duration(seconds: Any) -> str:
    """Seconds in words people use: "42 s", "3 min 20 s", "5 h 12 min"; "" for an unknown time."""
    if not _known(seconds):
        return ""
    total = round(float(seconds))
    if total < 60:
        return f"{number(float(seconds), 2)} s" if total < 10 else f"{total} s"
    if total < 3600:
        return f"{total // 60} min {total % 60} s"
    return f"{total // 3600} h {total % 3600 // 60} min"


def _known(value: Any) -> bool:
    import pandas as pd

    return not pd.isna(value)


def _text(value: Any) -> str:
    return str(value) if _known(value) else ""


def _count(value: Any) -> str:
    return f"{float(value):,.0f}".replace(",", " ") if _known(value) else ""


def _big(value: Any, unit: str) -> str:
    if not _known(value):
        return ""
    factor, prefixed = scale_of([float(value)], unit)
    return f"{number(float(value) / factor)}{f' {prefixed}' if prefixed else ''}"

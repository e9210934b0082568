"""Which rows and columns a table has, before any number is looked at."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

import pandas as pd

from analysis.labels import metric_label
from analysis.study import Study
from analysis.tables.model import ColumnKind, RowKind
from analysis.tables.spec import ColumnSpec, TableSpec
from pipeline.errors import UserError, nearest
from pipeline.records import Arm, StudyMetric
from pipeline.records.metric_specs import is_cost


@dataclass(frozen=True)
class RowPlan:
    """A row: the arm that fills it, one for each level of the pivot factor ("" without pivot)."""

    key: str
    label: str
    kind: RowKind
    group: str
    reference: bool
    arms: dict[str, str]  # pivot level -> arm


@dataclass(frozen=True)
class ColumnPlan:
    """A column: which metric rows fill it."""

    key: str
    metric: str
    label: str
    kind: ColumnKind
    group: str
    level: str  # pivot level, "" without pivot
    protocol: str  # "" where it does not matter
    split: str
    direction: str  # which way is better, "" where the plan does not name the metric: its rows say it then
    fingerprint: str  # wanted start of the fingerprint
    decimals: int | None


def plan_rows(study: Study, spec: TableSpec) -> list[RowPlan]:
    """The study's arms as rows, in the order of the plan or of the groups.

    Raises UserError for unknown arms and factors.
    """
    by_name = {arm.name: arm for arm in study.manifest.arms}
    _refuse_twice("groups", [group.label for group in spec.groups])
    _refuse_twice("groups", [name for group in spec.groups for name in group.arms])
    _refuse_twice("arms", spec.arms or [])
    grouped = {name: group.label for group in spec.groups for name in group.arms}
    places = {group.label: place for place, group in enumerate(spec.groups)}
    asked = spec.arms if spec.arms is not None else list(dict.fromkeys([*grouped, *by_name]))
    # group by group; arms that no group names stand below
    wanted = sorted(asked, key=lambda name: places[grouped[name]] if name in grouped else len(places))
    for name in [*wanted, *grouped, *([spec.reference] if spec.reference else [])]:
        if name not in by_name:
            raise UserError(f"study {study.name!r} has no arm {name!r}{nearest(name, list(by_name))}")
    for factor in (spec.pivot, spec.group_by):
        factors = sorted({item for arm in by_name.values() for item in arm.levels})
        if factor is not None and factor not in factors:
            raise UserError(f"study {study.name!r} has no factor {factor!r}; it has: {', '.join(factors) or 'none'}")
    reference = reference_of(study, spec)
    kinds = _kinds(study)
    rows: dict[str, RowPlan] = {}
    labels: dict[str, list[str]] = {}
    for name in wanted:
        arm = by_name[name]
        key, label, level = _row_of(arm, spec.pivot)
        if key in rows and level in rows[key].arms:
            raise UserError(
                f"arms {rows[key].arms[level]!r} and {name!r} fall into one cell: {spec.pivot} does not tell them apart"
            )
        old = rows.get(key)
        group = grouped.get(name) or (arm.levels.get(spec.group_by, "") if spec.group_by else old.group if old else "")
        arms = {**old.arms, level: name} if old else {level: name}
        is_reference = name == reference or (old is not None and old.reference)
        labels.setdefault(key, []).append(arm.label)
        label = _in_common(labels[key]) or label
        rows[key] = RowPlan(key, label, kinds[name], group, is_reference, arms)
    return _with_baselines(list(rows.values()), spec)


def reference_of(study: Study, spec: TableSpec) -> str:
    """The arm that the others are compared with; "" where neither the specification nor the plan names one."""
    return spec.reference or (study.reference.name if study.reference else "")


def _refuse_twice(key: str, names: list[str]) -> None:
    twice = next((name for index, name in enumerate(names) if name in names[:index]), None)
    if twice is not None:
        raise UserError(f"the table's specification names {twice!r} twice ({key})")


def _row_of(arm: Arm, pivot: str | None) -> tuple[str, str, str]:
    if pivot is None:
        return arm.name, arm.label, ""
    rest = {factor: level for factor, level in arm.levels.items() if factor != pivot}
    key = ",".join(f"{factor}={level}" for factor, level in sorted(rest.items())) or arm.name
    return key, ", ".join(rest.values()) or arm.label, arm.levels.get(pivot, "")


def _in_common(labels: list[str]) -> str:
    """The parts that all labels of a row share: "street, SPADE" and "faces, SPADE" are SPADE; "" of a single label."""
    first, *others = ([*label.split(", ")] for label in labels)
    return ", ".join(part for part in first if others and all(part in other for other in others))


def _kinds(study: Study) -> dict[str, RowKind]:
    kinds: dict[str, RowKind] = {}
    recorded = study.runs.groupby("arm")["kind"].agg(set)
    budget: dict[str, int] = {}
    for cell in study.manifest.cells:
        if cell.overrides:  # what other code has made has none
            budget[cell.arm] = max(cell.images_seen, budget.get(cell.arm, 0))
    for arm in study.manifest.arms:
        of_arm = set(recorded.get(arm.name, set())) - {""}
        kind: RowKind = "arm"
        if of_arm == {"rule"} or (
            not of_arm and budget.get(arm.name) == 0
        ):  # a rule that has not run yet has no images to see
            kind = "baseline"
        elif of_arm == {"released"}:
            kind = "released"
        elif of_arm == {"external"}:
            kind = "external"
        elif of_arm == {"imported"}:
            kind = "imported"
        kinds[arm.name] = kind
    return kinds


def _with_baselines(rows: list[RowPlan], spec: TableSpec) -> list[RowPlan]:
    baselines = [row for row in rows if row.kind == "baseline"]
    others = [row for row in rows if row.kind not in ("baseline", "imported")]
    elsewhere = [row for row in rows if row.kind == "imported"]
    if spec.baselines == "top":
        return baselines + others + elsewhere
    return others + (baselines if spec.baselines == "bottom" else []) + elsewhere


def plan_columns(study: Study, spec: TableSpec, rows: list[RowPlan]) -> tuple[list[ColumnPlan], list[str]]:
    """The columns, and the patterns and costs for which nothing was recorded.

    Raises UserError when no column is left.
    """
    levels = list(dict.fromkeys(level for row in rows for level in row.arms))
    recorded = study.frame[study.frame["run_state"] == "finished"]
    known = recorded[["metric", "protocol", "split", "state"]].drop_duplicates()
    absent: list[str] = []
    columns: list[ColumnPlan] = []
    for level in levels:
        for column in _specs(study, spec):
            matches = _matches(study, column, known)
            if not matches:
                absent.append(column.metric)
            columns += [_column(study, column, level, *match, several=len(matches) > 1) for match in matches]
    columns = list(dict.fromkeys(columns))  # asked for twice in the same way
    keys = [column.key for column in columns]
    twice = next((key for index, key in enumerate(keys) if key in keys[:index]), None)
    if twice is not None:
        raise UserError(f"the table's specification gives column {twice} twice, in different ways")
    if spec.show.gain:
        untrained = set(known.loc[known["state"] == "untrained", "metric"])
        gains = [_gain_of(column) for column in columns if column.kind == "metric" and column.metric in untrained]
        columns = [
            item
            for column in columns
            for item in (column, *(gain for gain in gains if gain.key == f"{column.key}:gain"))
        ]
    if not columns:
        raise UserError(
            f"study {study.name!r} has no recorded metric for this table (looked for: {', '.join(sorted(set(absent)))})"
        )
    return columns, sorted(set(absent))


def _specs(study: Study, spec: TableSpec) -> Iterable[ColumnSpec]:
    named = set()
    for item in spec.metrics:
        if isinstance(item, ColumnSpec):
            named.add(item.metric)
            yield item
        elif item == "study":
            ordered = sorted(study.metrics, key=_place)
            named |= {metric.name for metric in ordered}
            yield from (ColumnSpec(metric=metric.name) for metric in ordered)
        else:
            named.add(item)
            yield ColumnSpec(metric=item)
    yield from (ColumnSpec(metric=name, cost=True) for name in spec.cost if name not in named)


def _place(metric: StudyMetric) -> int:
    """Primary metrics first, costs last."""
    if is_cost(metric.name):
        return 2
    return 0 if metric.role == "primary" else 1


def _matches(study: Study, column: ColumnSpec, known: pd.DataFrame) -> list[tuple[str, str, str]]:
    """(metric, protocol, split) that the column's pattern matches; a metric of the plan counts even without any row."""
    protocol = study.manifest.protocol if column.protocol == "study" else column.protocol
    split = study.manifest.split if column.split == "study" else column.split
    rows = {
        (str(metric), str(row_protocol), str(row_split))
        for metric, row_protocol, row_split in known[["metric", "protocol", "split"]].itertuples(index=False, name=None)
        if fnmatchcase(str(metric), column.metric)
    }
    found = {row for row in rows if fnmatchcase(row[1], protocol) and fnmatchcase(row[2], split)}
    # costs of training belong to no split and no protocol
    found |= {(metric, "", "") for metric, _, row_split in rows if not row_split and not _has(found, metric)}
    planned = {metric.name for metric in study.metrics}
    if not found and column.metric in planned and "*" not in protocol + split:
        found = {(column.metric, protocol, split)}
    return sorted(found)


def _has(found: set[tuple[str, str, str]], metric: str) -> bool:
    return any(name == metric for name, _, _ in found)


def _column(
    study: Study, column: ColumnSpec, level: str, metric: str, protocol: str, split: str, *, several: bool
) -> ColumnPlan:
    kind: ColumnKind = "cost" if column.cost or is_cost(metric) or not split else "metric"
    foreign = is_foreign(study, protocol, split)
    key = f"{metric}@{protocol}/{split}" if foreign else metric
    direction = next((item.direction for item in study.metrics if item.name == metric), "")
    label = column.label if column.label is not None and not several else metric_label(metric)
    beginning, star, _ = column.metric.partition("*")
    if star and column.group and len(metric) > len(beginning):  # the group's heading says the rest
        label = metric.removeprefix(beginning).replace("_", " ")
    if foreign:  # also beside a label of the specification's own: the notes speak of the study's protocol
        label = f"{label} ({protocol}, {split})"
    return ColumnPlan(
        key=f"{level}/{key}" if level else key,
        metric=metric,
        label=label,
        kind=kind,
        group=level or column.group,
        level=level,
        protocol=protocol,
        split=split,
        direction=direction,
        fingerprint=column.fingerprint,
        decimals=column.decimals,
    )


def is_foreign(study: Study, protocol: str, split: str) -> bool:
    """Whether rows were measured under another protocol, or on another split, than the study's; those of no split were not."""
    return bool(split) and (protocol, split) != (study.manifest.protocol, study.manifest.split)


def _gain_of(column: ColumnPlan) -> ColumnPlan:
    values = {**column.__dict__, "key": f"{column.key}:gain", "label": f"{column.label} gain", "kind": "gain"}
    return ColumnPlan(**values)

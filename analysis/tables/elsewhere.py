"""Rows of published and imported numbers, neither ranked nor tested.

The numbers of one label share a row, unless two of them are for the same thing: then each source has a row of its own. Only what a
source itself calls repeats is averaged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import pandas as pd

from analysis.labels import metric_label
from analysis.published import load_published
from analysis.statistics.summary import summarise
from analysis.study import Study
from analysis.tables.layout import ColumnPlan
from analysis.tables.model import MARKS, Column, Row, RowKind, TableCell
from analysis.tables.numbers import factor_of, number, unscaled
from analysis.tables.spec import TableSpec
from pipeline.records.metric_specs import direction_of, find_spec

SOURCE = ("source", "protocol", "split")  # and the data set, unless the table has a group of columns for each
WORDS = {"published": "published number, not measured here"}
OTHERWISE = "logged by other code, not measured here"


def rows_from_elsewhere(
    imported: pd.DataFrame, columns: Sequence[tuple[Column, ColumnPlan]], footnote: Callable[[str], str]
) -> list[Row]:
    """The imported numbers (columns `analysis.columns.IMPORTED`) as rows; `footnote` gives a text its letter."""
    pivoted = any(plan.level for _, plan in columns)
    rows: list[Row] = []
    for (group, label, kind), of_label in _plain(imported, pivoted).groupby(["group", "label", "kind"], sort=False):
        row_kind: RowKind = "published" if kind == "published" else "imported"
        for nth, (of_row, alone) in enumerate(_apart(of_label)):
            cells = tuple(_cell(of_row, column, plan.level) for column, plan in columns)
            if any(cell.status != "blank" for cell in cells):
                key = f"{kind}:{label}:{nth + 1}" if nth else f"{kind}:{label}"
                marks = [footnote(_words(of_row, pivoted, alone=alone))]
                marks += [footnote(text) for text in dict.fromkeys(of_row["caveat"]) if text]
                rows.append(Row(key, str(label), row_kind, str(group), False, cells, tuple(marks)))
    return rows


def numbers_from_elsewhere(study: Study, spec: TableSpec) -> pd.DataFrame:
    """What a table shows beside the study's own rows: its imports, and the shipped groups that the specification names."""
    if spec.published is False:
        return study.imported.iloc[:0]
    groups = spec.published if isinstance(spec.published, list) else []
    described = study.runs["data_description"].dropna()
    shipped = load_published(groups, study.manifest.protocol, str(described.iloc[0]) if len(described) else "")
    return pd.concat([study.imported, shipped], ignore_index=True) if len(shipped) else study.imported


def column_of_published(metric: str, numbers: pd.DataFrame) -> tuple[ColumnPlan, Column]:
    """A column for a metric that only numbers from elsewhere have; the study's rows leave it empty."""
    spec = find_spec(metric)
    unit = spec.unit if spec is not None else str(numbers["unit"].iloc[0])
    direction, label, decimals = direction_of(metric, "none"), metric_label(metric), int(numbers["decimals"].max())
    plan = ColumnPlan(metric, metric, label, "metric", "", "", "", "", direction, "", decimals)
    return plan, Column(metric, metric, label, unit, direction, "metric", "", 1.0, decimals, "")


def _plain(imported: pd.DataFrame, pivoted: bool) -> pd.DataFrame:
    """With a column `origin` that tells apart what may not be averaged: sources, and numbers that are not called repeats."""
    plain = imported.copy()
    texts = [*SOURCE, "data", "run", "group", "caveat"]
    plain[texts] = plain[texts].fillna("")
    names = [*SOURCE, *(() if pivoted else ("data",))]
    repeats = plain["run"].ne("") | plain["seed"].notna()
    nth = plain.groupby(["label", "kind", "metric", *SOURCE, "data"]).cumcount().where(~repeats, 0)
    plain["origin"] = list(zip(*(plain[name] for name in names), nth, strict=True))
    return plain


def _apart(of_label: pd.DataFrame) -> Iterator[tuple[pd.DataFrame, bool]]:
    """The rows of a label, and whether there is but one."""
    if (of_label.groupby("metric")["origin"].nunique() <= 1).all():
        yield of_label, True
        return
    for _, of_origin in of_label.groupby("origin", sort=False):
        yield of_origin, False


def _words(of_row: pd.DataFrame, pivoted: bool, *, alone: bool) -> str:
    word = WORDS.get(str(of_row["kind"].iloc[0]), OTHERWISE)
    sources = "; ".join(dict.fromkeys(source for source in of_row["source"] if source))
    said = f"{word}: {sources}" if sources else word
    first = of_row.iloc[0]
    facts = [f"{name} {first[name]}" for name in ("data", "protocol", "split") if first[name]]
    return said if alone or pivoted or first["group"] or not facts else f"{said} ({', '.join(facts)})"


def _cell(of_row: pd.DataFrame, column: Column, level: str) -> TableCell:
    chosen = of_row[of_row["metric"] == column.metric]
    if level:
        chosen = chosen[chosen["data"] == level]
    chosen = chosen[[value is not pd.NA and math.isfinite(value) for value in chosen["value"]]]
    if chosen.empty or column.kind == "gain":
        return TableCell("blank", MARKS["blank"])
    factors = _factors(chosen, column)
    summary = summarise([float(value) * factor for value, factor in zip(chosen["value"], factors, strict=True)])
    std, n = summary.std, summary.n
    if summary.n == 1:
        given = chosen[["std", "n"]].iloc[0].dropna()
        n = int(given.get("n", 1))
        # a spread over nobody knows how many says nothing
        std = given["std"] * factors[0] if "n" in given and "std" in given else None
    printed = chosen["decimals"].dropna()
    as_printed = column.scale == 1.0 and set(factors) == {1.0}
    decimals = int(printed.max()) if len(printed) and as_printed else column.decimals
    spread = number(std / column.scale, decimals) if std is not None else ""
    return TableCell("ok", number(summary.mean / column.scale, decimals), spread, value=summary.mean, std=std, n=n)


def _factors(chosen: pd.DataFrame, column: Column) -> list[float]:
    """What turns each number into the column's unit before scaling. Raises UserError for a unit that says nothing of that."""
    spec = find_spec(column.metric)  # says the unit where no run of ours has a value
    base = unscaled(column.unit, column.scale) or (spec.unit if spec is not None else "")
    given = chosen[["unit", "reference_id"]].fillna("").itertuples(index=False, name=None)
    return [factor_of(unit, base, origin, column.metric) for unit, origin in given]

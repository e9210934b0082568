"""Rows of published and imported numbers, neither ranked nor tested.

The numbers of one label share a row, unless two of them are for the same thing: then each source has a row of its own. Only what a
source itself calls repeats is averaged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import pandas as pd

from analysis.statistics.summary import summarise
from analysis.tables.layout import ColumnPlan
from analysis.tables.model import MARKS, Column, Row, RowKind, TableCell
from analysis.tables.numbers import number

SOURCE = ("source", "protocol", "split")  # and the data set, unless the table has a group of columns for each
WORDS = {"published": "published number, not measured here"}
OTHERWISE = "logged by other code, not measured here"


def rows_from_elsewhere(
    imported: pd.DataFrame, columns: Sequence[tuple[Column, ColumnPlan]], footnote: Callable[[str], str]
) -> list[Row]:
    """The imported numbers (columns `analysis.columns.IMPORTED`) as rows; `footnote` gives a text its letter."""
    pivoted = any(plan.level for _, plan in columns)
    rows: list[Row] = []
    for (label, kind), of_label in _plain(imported, pivoted).groupby(["label", "kind"], sort=False):
        row_kind: RowKind = "published" if kind == "published" else "imported"
        for nth, (of_row, alone) in enumerate(_apart(of_label)):
            cells = tuple(_cell(of_row, column, plan.level) for column, plan in columns)
            if any(cell.status != "blank" for cell in cells):
                key = f"{kind}:{label}:{nth + 1}" if nth else f"{kind}:{label}"
                mark = footnote(_words(of_row, pivoted, alone=alone))
                rows.append(Row(key, str(label), row_kind, "", False, cells, (mark,)))
    return rows


def _plain(imported: pd.DataFrame, pivoted: bool) -> pd.DataFrame:
    """With a column `origin` that tells apart what may not be averaged: sources, and numbers that are not called repeats."""
    plain = imported.copy()
    texts = [*SOURCE, "data", "run"]
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
    return said if alone or pivoted or not facts else f"{said} ({', '.join(facts)})"


def _cell(of_row: pd.DataFrame, column: Column, level: str) -> TableCell:
    chosen = of_row[of_row["metric"] == column.metric]
    if level:
        chosen = chosen[chosen["data"] == level]
    chosen = chosen[[value is not pd.NA and math.isfinite(value) for value in chosen["value"]]]
    if chosen.empty or column.kind == "gain":
        return TableCell("blank", MARKS["blank"])
    summary = summarise([float(value) for value in chosen["value"]])
    std, n = summary.std, summary.n
    if summary.n == 1:
        given = chosen[["std", "n"]].iloc[0].dropna()
        n = int(given.get("n", 1))
        std = given.get("std") if "n" in given else None  # a spread over nobody knows how many says nothing
    spread = number(std / column.scale, column.decimals) if std is not None else ""
    return TableCell(
        "ok", number(summary.mean / column.scale, column.decimals), spread, value=summary.mean, std=std, n=n
    )

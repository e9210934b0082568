"""A finished column's cells: values with spread, ranks, differences, marks and the footnotes behind them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from analysis.comparisons import Comparison
from analysis.statistics.summary import Summary
from analysis.study import Study
from analysis.tables import notes
from analysis.tables.gather import Gathered, describe_defects
from analysis.tables.layout import ColumnPlan, RowPlan
from analysis.tables.model import MARKS, MEASURED, Column, Rank, TableCell, letter
from analysis.tables.numbers import number
from analysis.tables.spec import TableSpec


@dataclass
class Footnotes:
    """Letters in order of first use; equal texts share a letter."""

    letters: dict[str, str] = field(default_factory=dict)

    def add(self, text: str) -> str:
        """The letter of a text."""
        return self.letters.setdefault(text, letter(len(self.letters)))


@dataclass
class Filled:
    """One column with everything that is known of its cells, by row key."""

    plan: ColumnPlan
    column: Column
    gathered: dict[str, Gathered]
    summaries: dict[str, Summary]
    ranks: dict[str, Rank] = field(default_factory=dict)
    ties: set[str] = field(default_factory=set)
    untested: set[str] = field(default_factory=set)  # without a test against the best, in a column that has tests
    lone: set[str] = field(default_factory=set)  # ranked by one seed among rows of more
    comparisons: dict[str, Comparison] = field(default_factory=dict)
    unjudged: str = ""  # why nothing in the column is ranked or compared


def below_trivial_baseline(study: Study, filled: list[Filled], rows: list[RowPlan]) -> dict[tuple[str, str], str]:
    """Footnotes for rows that do not beat the trivial baseline on the primary metric, by (row, column)."""
    primary = study.primary
    found: dict[tuple[str, str], str] = {}
    if primary is None:
        return found
    for part in filled:
        if part.plan.metric != primary.name or part.plan.kind != "metric" or part.column.direction == "none":
            continue
        if part.unjudged:
            continue  # what beats the baseline there says nothing
        sign = -1 if part.column.direction == "min" else 1
        for baseline in (row for row in rows if row.kind == "baseline" and row.key in part.summaries):
            floor = part.summaries[baseline.key].mean
            for row in rows:
                if row.kind in MEASURED and row.key in part.summaries:
                    mean = part.summaries[row.key].mean
                    if sign * (mean - floor) <= 0:
                        found[row.key, part.column.key] = f"does not beat the trivial baseline ({baseline.label})"
    return found


def common_notes(gathered: list[Gathered]) -> tuple[str, ...]:
    """What several cells of a row say about their values: said once, of the row."""
    counts = Counter(text for cell in gathered for text in cell.notes)
    return tuple(text for text, count in counts.items() if count > 1)


def cell_of(
    part: Filled,
    row: RowPlan,
    spec: TableSpec,
    usual_n: int,
    footnotes: Footnotes,
    below: str,
    of_row: tuple[str, ...],
) -> TableCell:
    """The cell of a row in a finished column. `usual_n`: seeds behind most cells; `of_row`: notes said of the whole row."""
    gathered, summary, column = part.gathered[row.key], part.summaries.get(row.key), part.column
    seeds = len(gathered.values) + len(gathered.defects)
    if summary is None:
        status = gathered.status
        mark = (footnotes.add(describe_defects(gathered.defects, seeds)),) if gathered.defects else ()
        return TableCell(status, MARKS[status], notes=mark, run_ids=gathered.run_ids)
    marks = []
    if gathered.defects:
        text = describe_defects(gathered.defects, seeds)
        marks.append(footnotes.add(f"{summary.n} of {seeds} seeds: {text}"))
    if below:
        marks.append(footnotes.add(below))
    marks += [footnotes.add(text) for text in gathered.notes if text not in of_row]
    signed = part.plan.kind == "gain"
    constant_cost = part.plan.kind == "cost" and not summary.std
    spread = ""
    if spec.show.std and summary.std is not None and not constant_cost:
        spread = number(summary.std / column.scale, column.decimals)
    comparison = part.comparisons.get(row.key)
    interval = comparison.interval if comparison is not None else None
    return TableCell(
        status="ok",
        main=number(summary.mean / column.scale, column.decimals, sign=signed),
        spread=spread,
        details=_details(comparison, column, spec),
        value=summary.mean,
        std=summary.std,
        n=summary.n,
        show_n=summary.n != usual_n and not constant_cost,
        rank=part.ranks.get(row.key, ""),
        tie=row.key in part.ties,
        notes=tuple(marks),
        lower=interval.lower if interval is not None else None,
        upper=interval.upper if interval is not None else None,
        difference=comparison.difference if comparison is not None else None,
        p_value=comparison.p_holm if comparison is not None else None,
        run_ids=gathered.run_ids,
    )


def _details(comparison: Comparison | None, column: Column, spec: TableSpec) -> tuple[str, ...]:
    if comparison is None:
        return ()
    parts = []
    if spec.show.delta:
        parts.append(f"Δ {number(comparison.difference / column.scale, column.decimals, sign=True)}")
    if spec.show.interval and comparison.interval is not None:
        ends = (comparison.interval.lower, comparison.interval.upper)
        parts.append("[" + ", ".join(number(end / column.scale, column.decimals, sign=True) for end in ends) + "]")
    if spec.show.stars and comparison.stars:
        parts.append(comparison.stars)
    return (" ".join(parts),) if parts else ()


def row_notes(row: RowPlan, study: Study, footnotes: Footnotes) -> tuple[str, ...]:
    """Letters of what is to be known of a whole row."""
    marks = []
    if row.kind == "baseline":
        marks.append(footnotes.add("trivial baseline: learns nothing, and is not ranked"))
    if row.kind == "released":
        marks.append(
            footnotes.add("released weights of the authors, evaluated here; not trained under this study's budget")
        )
    if row.kind == "external":
        marks.append(
            footnotes.add(
                "made by other code, measured here from its pictures: how it was trained, and on what, is not known"
            )
        )
    budget = notes.budget_note(study, list(row.arms.values()))
    if budget and row.kind == "arm":
        marks.append(footnotes.add(budget))
    return tuple(marks)

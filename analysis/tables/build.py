"""From a study and a specification to a `Table`: mean ± std with n, ranks, ties, differences, marks and footnotes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pandas as pd

from analysis.comparisons import Comparison, compare, correct
from analysis.judging import why_unjudged
from analysis.statistics.summary import summarise
from analysis.study import Study
from analysis.tables import notes
from analysis.tables.cells import Filled, Footnotes, below_trivial_baseline, cell_of, common_notes, row_notes
from analysis.tables.elsewhere import column_of_published, numbers_from_elsewhere, rows_from_elsewhere
from analysis.tables.gather import Gathered, Gatherer
from analysis.tables.layout import ColumnPlan, RowPlan, is_foreign, plan_columns, plan_rows, reference_of
from analysis.tables.model import DEFECTS, MEASURED, Column, Row, Table
from analysis.tables.numbers import decimals_of, scale_of
from analysis.tables.ranking import of_one_seed, rank, ties_with_best, untested
from analysis.tables.spec import TableSpec
from pipeline.errors import UserError


def build_table(study: Study, spec: TableSpec, name: str = "main") -> Table:
    """Build a table. Raises UserError where numbers that do not belong together would share a column."""
    if study.runs.empty:
        raise UserError(f"study {study.name!r} has no runs in its plan")
    rows = plan_rows(study, spec)
    plans, absent = plan_columns(study, spec, rows)
    gatherer = Gatherer(study)
    filled = [_fill(gatherer, plan, rows, spec) for plan in plans]
    elsewhere = numbers_from_elsewhere(study, spec)
    filled, unavailable = _without_unavailable(study, filled, elsewhere)
    filled = _with_published_columns(filled, elsewhere, rows, spec)
    if spec.show.delta or spec.show.stars or spec.show.interval:
        _compare(study, filled, rows, spec)
    seeds_of_table = _usual_n(filled)
    footnotes = Footnotes()
    for part in filled:
        if part.unjudged:
            part.column = replace(part.column, notes=(footnotes.add(f"not ranked: {part.unjudged}"),))
    below_baseline = below_trivial_baseline(study, filled, rows)
    built = []
    for row in rows:
        of_row = common_notes([part.gathered[row.key] for part in filled])
        marks = (*row_notes(row, study, footnotes), *(footnotes.add(text) for text in of_row))
        cells = tuple(
            cell_of(
                part, row, spec, seeds_of_table, footnotes, below_baseline.get((row.key, part.column.key), ""), of_row
            )
            for part in filled
        )
        built.append(Row(row.key, row.label, row.kind, row.group, row.reference, cells, marks))
    if len(elsewhere):
        built += rows_from_elsewhere(elsewhere, [(part.column, part.plan) for part in filled], footnotes.add)
    lone = [row.label for row in rows if any(row.key in part.lone for part in filled)]
    warnings = notes.warnings(study, rows, seeds_of_table, lone)
    problems = _problems(filled, rows, built) + unavailable + notes.defects_of_provenance(study, rows)
    return Table(
        name=name,
        title=spec.title or f"Study {study.title}",
        study=study.name,
        columns=tuple(part.column for part in filled),
        rows=tuple(built),
        footnotes=tuple((mark, text) for text, mark in footnotes.letters.items()),
        notes=(
            *notes.general(study, spec, _facts(study, spec, filled, seeds_of_table, absent), rows),
            *(f"No column for {text}." for text in unavailable),
            *notes.bounds(study, [(part.column, part.plan) for part in filled], rows),
        ),
        warnings=tuple(warnings),
        problems=tuple(problems),
        alarms=_alarms(study, filled),
    )


def _without_unavailable(study: Study, filled: list[Filled], elsewhere: pd.DataFrame) -> tuple[list[Filled], list[str]]:
    """The columns without those that no run could measure for want of weights or data, and what these lack, in words.

    The primary metric keeps its column, and so does one that has numbers from elsewhere, or that would leave no column at all.
    """
    kept, words = [], []
    shown = {study.primary.name if study.primary else "", *elsewhere["metric"]}
    for part in filled:
        found = {status for item in part.gathered.values() for status, _ in item.defects.values()}
        if part.summaries or found - {"not_applicable"} != {"unavailable"} or part.plan.metric in shown:
            kept.append(part)
            continue
        reasons = {
            text: None
            for item in part.gathered.values()
            for status, text in item.defects.values()
            if status == "unavailable"
        }
        words.append(f"{part.column.label}: unavailable in every run ({'; '.join(reasons)})")
    return (kept, list(dict.fromkeys(words))) if kept else (filled, [])


def _with_published_columns(
    filled: list[Filled], elsewhere: pd.DataFrame, rows: list[RowPlan], spec: TableSpec
) -> list[Filled]:
    """The columns with one more, before the costs, for each metric that a shipped group asked for alone has numbers of."""
    if not isinstance(spec.published, list) or spec.pivot is not None:
        return filled
    shown = {part.plan.metric for part in filled}
    asked = elsewhere[elsewhere["group"].fillna("") != ""]
    added = [
        Filled(*column_of_published(str(metric), of_metric), {row.key: Gathered() for row in rows}, {})
        for metric, of_metric in asked.groupby("metric", sort=False)
        if metric not in shown
    ]
    scores = [part for part in filled if part.plan.kind != "cost"]
    return [*scores, *added, *(part for part in filled if part.plan.kind == "cost")]


def _alarms(study: Study, filled: list[Filled]) -> tuple[str, ...]:
    """Metrics of the plan that nothing in the table has a value of."""
    planned = {metric.name for metric in study.manifest.metrics}
    empty = [
        f"{part.column.label} ({', '.join(sorted({item.status.replace('_', ' ') for item in part.gathered.values()}))})"
        for part in filled
        if part.plan.metric in planned and part.plan.kind != "gain" and not part.summaries
    ]
    return (f"No value in any cell: {', '.join(empty)}.",) if empty else ()


def _problems(filled: list[Filled], rows: list[RowPlan], built: list[Row]) -> list[str]:
    """Cells that are no sound number, and cells that lack some of their seeds, in words."""
    found = []
    for done in built:
        for part, cell in zip(filled, done.cells, strict=True):
            if cell.status in DEFECTS:
                found.append(f"{done.label}, {part.column.label}: {cell.status}")
    for row in rows:
        for part in filled:
            gathered = part.gathered[row.key]
            if gathered.values and gathered.defects:
                found.append(f"{row.label}, {part.column.label}: {len(gathered.defects)} of its seeds have no value")
    return found


def _facts(study: Study, spec: TableSpec, filled: list[Filled], n: int, absent: list[str]) -> notes.TableFacts:
    """What the general notes need to know of the finished columns."""
    families: Counter[str] = Counter()
    by_image: dict[str, set[bool]] = {}
    for part in filled:
        families[_family(part, spec)] += sum(item.test is not None for item in part.comparisons.values())
        group = part.column.group if not part.plan.level else ""  # one name for a metric's columns on all data sets
        found = {item.images > 1 for item in part.comparisons.values() if item.interval is not None}
        if found:
            by_image.setdefault(f"{group}, {part.column.label}" if group else part.column.label, set()).update(found)
    comparisons = [item for part in filled for item in part.comparisons.values()]
    measured = [item for part in filled if part.plan.kind != "cost" for item in part.gathered.values()]
    return notes.TableFacts(
        n=n,
        images=tuple(sorted({count for item in measured for count in item.images})),
        ranked=any(part.ranks for part in filled),
        tied=any(part.ties for part in filled),
        untested=any(part.untested for part in filled),
        spread=any(item.std is not None for part in filled for item in part.summaries.values()),
        families=tuple(count for count in families.values() if count),
        tests=tuple(sorted({item.test.name for item in comparisons if item.test is not None})),
        by_image=by_image,
        images_only=any(item.interval is not None and len(item.seeds) == 1 for item in comparisons),
        absent=tuple(absent),
        gains=any(part.plan.kind == "gain" for part in filled),
        foreign=any(is_foreign(study, part.plan.protocol, part.plan.split) for part in filled),
    )


def _fill(gatherer: Gatherer, plan: ColumnPlan, rows: list[RowPlan], spec: TableSpec) -> Filled:
    arms = [row.arms[plan.level] for row in rows if plan.level in row.arms]
    fingerprint = gatherer.settle_fingerprint(arms, plan)
    gathered = {
        row.key: gatherer.gather(row.arms[plan.level], plan, fingerprint) if plan.level in row.arms else Gathered()
        for row in rows
    }
    summaries = {key: summarise(item.values.values()) for key, item in gathered.items() if item.values}
    units = sorted({unit for item in gathered.values() for unit in item.units})
    directions = sorted({word for item in gathered.values() for word in item.directions})
    if len(units) > 1 or len(directions) > 1:
        raise UserError(
            f"metric {plan.metric!r} has several units or directions in one column: {', '.join(units + directions)}"
        )
    means = [item.mean for item in summaries.values()]
    scale, unit = scale_of(means, units[0] if units else "")
    spreads = [item.std / scale for item in summaries.values() if item.std is not None]
    decimals = plan.decimals if plan.decimals is not None else decimals_of([mean / scale for mean in means], spreads)
    recorded = directions[0] if directions else "none"
    direction = plan.direction if plan.direction not in ("", "none") else recorded
    column = Column(
        plan.key, plan.metric, plan.label, unit, direction, plan.kind, plan.group, scale, decimals, fingerprint or ""
    )
    part = Filled(plan, column, gathered, summaries)
    part.unjudged = why_unjudged(gatherer.study, plan.metric, arms, protocol=plan.protocol, split=plan.split)
    if plan.kind == "metric" and spec.mark_best and not part.unjudged:
        ranked = {row.key for row in rows if row.kind in MEASURED}
        part.ranks = rank(
            {key: item.mean for key, item in summaries.items() if key in ranked}, direction, decimals, scale
        )
        values = {key: gathered[key].values for key in summaries if key in ranked}
        part.lone = of_one_seed(values) if part.ranks else set()
        if spec.show.ties:
            names = (gatherer.study.name, plan.key)
            part.ties = ties_with_best(values, part.ranks, names, alpha=spec.alpha, method=spec.test)
            tested = any(len(seeds) > 1 for seeds in values.values())
            part.untested = untested(values, part.ranks) if tested else set()
    return part


def _compare(study: Study, filled: list[Filled], rows: list[RowPlan], spec: TableSpec) -> None:
    """Compare every learned row with the reference in every metric column; Holm within the declared family."""
    reference = next((row for row in rows if row.reference), None)
    if reference is None:
        raise UserError(_no_reference(study, spec))
    family: list[tuple[Filled, str, Comparison]] = []
    for part in filled:
        if part.plan.kind != "metric" or part.unjudged:
            continue
        home = not is_foreign(study, part.plan.protocol, part.plan.split)
        for row in rows:
            if row.key == reference.key or row.kind not in MEASURED or part.plan.level not in row.arms:
                continue
            if part.plan.level not in reference.arms:
                continue
            arm, against = row.arms[part.plan.level], reference.arms[part.plan.level]
            values = {arm: part.gathered[row.key].values, against: part.gathered[reference.key].values}
            found = compare(
                study, part.plan.metric, part.column.direction, arm, against, values,
                fingerprint=part.column.fingerprint, level=spec.level, method=spec.test, images=home,
            )  # fmt: skip
            if found is not None:
                family.append((part, row.key, found))
    groups: dict[str, list[tuple[Filled, str, Comparison]]] = {}
    for item in family:
        groups.setdefault(_family(item[0], spec), []).append(item)
    for group in groups.values():
        corrected = correct([item for _, _, item in group])
        for (part, key, _), comparison in zip(group, corrected, strict=True):
            part.comparisons[key] = comparison


def _no_reference(study: Study, spec: TableSpec) -> str:
    """Why no row is the reference, and what to do."""
    name = reference_of(study, spec)
    if not name:
        return f"study {study.name!r} declares no reference arm; name one in the table's specification (reference)"
    if spec.arms is None or name in spec.arms:
        return (
            f"reference arm {name!r} is a trivial baseline, which the table's specification hides (baselines: hide): show them, "
            "or name another arm (reference)"
        )
    return f"reference arm {name!r} is not among `arms` of the table's specification: add it there, or name one of them (reference)"


def _family(part: Filled, spec: TableSpec) -> str:
    """What the comparisons of a column are corrected with: all of the table, or all of the metric, on whichever data set."""
    return part.plan.metric if spec.family == "metric" else ""


def _usual_n(filled: list[Filled]) -> int:
    """Seeds behind most cells; the larger of equally frequent numbers."""
    counts: dict[int, int] = {}
    for part in filled:
        for item in part.summaries.values():
            counts[item.n] = counts.get(item.n, 0) + 1
    return max(counts, key=lambda n: (counts[n], n), default=0)

"""HTML: a fragment for the report (classes and data attributes, no style of its own) and a small whole page."""

from __future__ import annotations

from html import escape

from analysis.tables.model import Column, Row, Table, TableCell, arrow, side

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;margin:2rem}table{border-collapse:collapse}"
    "th,td{padding:.3rem .8rem;text-align:right}th:first-child{text-align:left}"
    "thead tr:last-child th{border-bottom:1px solid}table{border-top:2px solid;border-bottom:2px solid}"
    "tbody+tbody tr:first-child>*{border-top:1px solid}.best .value{font-weight:bold}"
    ".second .value{text-decoration:underline}"
    "tr.published,tr.imported,tr.baseline{font-style:italic}.detail{display:block;font-size:.8em}.notes{font-size:.85em}"
)


def to_html(table: Table) -> str:
    """The table as a page of its own, without scripts and without anything to load."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(table.title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"{html_fragment(table)}</body>\n</html>\n"
    )


def html_fragment(table: Table) -> str:
    """`<table>` and notes. Cells carry `data-value` (raw mean), `data-status` and `data-column`.

    Rows `data-row` and `data-kind`.
    """
    alarms = [f'<p class="warning">⚠ {escape(text)}</p>' for text in table.alarms]
    lines = ['<div class="study-table">', *alarms, "<table>", f"<caption>{escape(table.title)}</caption>", "<thead>"]
    if any(group for group, _ in table.column_groups):
        groups = "".join(
            f'<th colspan="{width}" scope="colgroup">{escape(group)}</th>' for group, width in table.column_groups
        )
        lines.append(f"<tr><td></td>{groups}</tr>")
    heads = "".join(map(_head, table.columns))
    lines += [f'<tr><th scope="col" data-column="row">Arm</th>{heads}</tr>', "</thead>"]
    for group, rows in table.row_groups:
        lines.append(f'<tbody data-group="{escape(group)}" data-side="{side(rows[0].kind)}">')
        if group:
            lines.append(
                f'<tr class="group"><th scope="rowgroup" colspan="{len(table.columns) + 1}">{escape(group)}</th></tr>'
            )
        lines += [_row(table, row) for row in rows]
        lines.append("</tbody>")
    lines += ["</table>", '<div class="notes">']
    lines += [f"<p><sup>{mark}</sup> {escape(text)}</p>" for mark, text in table.footnotes]
    lines += [f"<p>{escape(text)}</p>" for text in table.notes]
    lines += [f'<p class="warning">⚠ {escape(text)}</p>' for text in table.warnings]
    return "\n".join([*lines, "</div>", "</div>"]) + "\n"


def _head(column: Column) -> str:
    text = escape(column.label)
    if column.unit:
        text += f' <span class="unit">[{escape(column.unit)}]</span>'
    if arrow(column.direction):
        better = "higher" if column.direction == "max" else "lower"
        text += f' <span class="arrow" title="{better} is better">{arrow(column.direction)}</span>'
    text += _sup(column.notes)
    return f'<th scope="col" data-column="{escape(column.key)}" data-direction="{escape(column.direction)}">{text}</th>'


def _row(table: Table, row: Row) -> str:
    classes = " ".join([row.kind, *(["reference"] if row.reference else [])])
    cells = "".join(_cell(column.key, cell) for column, cell in zip(table.columns, row.cells, strict=True))
    label = f'<th scope="row">{escape(row.label)}{_sup(row.notes)}</th>'
    return f'<tr class="{classes}" data-row="{escape(row.key)}" data-kind="{row.kind}">{label}{cells}</tr>'


def _cell(column: str, cell: TableCell) -> str:
    text = escape(f"{cell.main} ± {cell.spread}" if cell.spread else cell.main)
    tie = ' <span class="tie" title="not distinguishable from the best">≈</span>' if cell.tie else ""
    n = f' <span class="n">(n = {cell.n})</span>' if cell.show_n else ""
    details = "".join(f'<span class="detail">{escape(detail)}</span>' for detail in cell.details)
    value = f' data-value="{cell.value:.12g}"' if cell.value is not None else ""
    classes = f' class="{cell.rank}"' if cell.rank else ""
    attributes = f'{classes} data-column="{escape(column)}" data-status="{cell.status}"{value}'
    return f'<td{attributes}><span class="value">{text}</span>{tie}{n}{_sup(cell.notes)}{details}</td>'


def _sup(marks: tuple[str, ...]) -> str:
    return f"<sup>{','.join(marks)}</sup>" if marks else ""

r"""LaTeX with booktabs: what a paper takes over with \input. Needs the packages booktabs and graphicx.

Text is escaped completely; characters that pdfLaTeX cannot set become their nearest letters or their code point, so
that the table always compiles. A table too wide for a page goes on below, in columns that fit, and one too long on the next page.
"""

from __future__ import annotations

import unicodedata

from analysis.tables.model import Column, Row, Table, TableCell
from analysis.tables.render.tiles import COLUMN_WIDTH, PAGE_LINES, TEXT_WIDTH, head_lines, text_lines, tiles

_SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_", "%": r"\%",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}", "[": r"{[}", "]": r"{]}", "`": r"\textasciigrave{}",
    "±": r"$\pm$", "−": r"$-$", "≈": r"$\approx$", "≥": r"$\geq$", "≤": r"$\leq$", "×": r"$\times$",
    "→": r"$\rightarrow$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "·": r"$\cdot$", "∞": r"$\infty$",
    "…": r"\ldots{}", "—": r"\textemdash{}", "–": r"\textendash{}", "“": "``", "”": "''", "‘": "`", "’": "'",
    "²": r"\textsuperscript{2}", "³": r"\textsuperscript{3}", "¹": r"\textsuperscript{1}", "°": r"\textdegree{}",
    "\u00a0": "~", "µ": r"$\mu$",
}  # fmt: skip
_GREEK = {
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "varepsilon", "ζ": "zeta", "η": "eta", "θ": "theta",
    "ι": "iota", "κ": "kappa", "λ": "lambda", "μ": "mu", "ν": "nu", "ξ": "xi", "π": "pi", "ρ": "rho", "σ": "sigma",
    "τ": "tau", "υ": "upsilon", "φ": "varphi", "χ": "chi", "ψ": "psi", "ω": "omega", "Γ": "Gamma", "Δ": "Delta",
    "Θ": "Theta", "Λ": "Lambda", "Ξ": "Xi", "Π": "Pi", "Σ": "Sigma", "Φ": "Phi", "Ψ": "Psi", "Ω": "Omega",
}  # fmt: skip
_LATIN = range(0xC0, 0x180)  # letters with accents that T1 sets


def escape(text: str) -> str:
    """Text as LaTeX that shows exactly it, as far as pdfLaTeX can."""
    return "".join(map(_character, " ".join(text.split())))


def _character(character: str) -> str:
    if character in _SPECIAL:
        return _SPECIAL[character]
    if character in _GREEK:
        return rf"$\{_GREEK[character]}$"
    if " " <= character <= "~" or (ord(character) in _LATIN and character.isalpha()):
        return character
    plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    if plain and unicodedata.category(character)[0] in "LN":
        return "".join(map(_character, plain))
    if unicodedata.category(character) in ("Cc", "Cf", "Mn"):
        return ""
    return f"{{[}}U+{ord(character):04X}{{]}}"


def to_latex(table: Table) -> str:
    """The table as one floating `table` with its footnotes below, or as several where a page does not hold it.

    A table wider than a column of a two-column paper is a `table*`.
    """
    pieces = tiles(table)
    foot = [text for _, text in table.footnotes] + [*table.notes, *table.alarms, *table.warnings]
    floats: list[list[str]] = []
    left = 0
    for piece in pieces:
        if piece.lines > left:
            floats.append([])
            left = PAGE_LINES
        floats[-1] += [r"  \par\medskip"] * bool(floats[-1]) + _piece(piece.table)
        left -= piece.lines + 1
    kind, width = (
        ("table", COLUMN_WIDTH) if max(piece.width for piece in pieces) <= COLUMN_WIDTH else ("table*", TEXT_WIDTH)
    )
    if foot and text_lines(foot, width) > left:
        floats.append([])
    floats[-1] += _foot(table)
    lines = [
        *(f"% {_comment(text, ' .,():')}" for text in table.alarms),
        f"% Study {_comment(table.study)}, table {_comment(table.name)}; made by `python -m analysis table`.",
        "% Packages: booktabs, graphicx, [T1]{fontenc}, textcomp.",
    ]
    for number, content in enumerate(floats):
        lines += [
            rf"\begin{{{kind}}}[tp]",
            r"  \centering\footnotesize\setlength{\tabcolsep}{3pt}",
            rf"  \caption{{{escape(table.title)}{' (continued)' if number else ''}}}",
            *([] if number else [rf"  \label{{tab:{_comment(table.study)}-{_comment(table.name)}}}"]),
            *content,
            rf"\end{{{kind}}}",
        ]
    return "\n".join(lines) + "\n"


def _piece(table: Table) -> list[str]:
    """One tabular, shrunk to the width of the text where it is wider."""
    return [
        r"  \resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"  \begin{{tabular}}{{l{'r' * len(table.columns)}}}",
        r"    \toprule",
        *_heads(table),
        r"    \midrule",
        *_body(table),
        r"    \bottomrule",
        r"  \end{tabular}}",
    ]


def _comment(text: str, more: str = "") -> str:
    """Text that cannot end a comment or break a label; characters in `more` are kept too."""
    return "".join(
        character if character.isascii() and (character.isalnum() or character in f"-.{more}") else "-"
        for character in text
    )


def _heads(table: Table) -> list[str]:
    lines = []
    if any(group for group, _ in table.column_groups):
        heads, rules, position = [], [], 2
        for group, width in table.column_groups:
            heads.append(rf"\multicolumn{{{width}}}{{c}}{{{escape(group)}}}")
            if group:
                rules.append(rf"\cmidrule(lr){{{position}-{position + width - 1}}}")
            position += width
        lines += [f"    & {' & '.join(heads)} \\\\", f"    {' '.join(rules)}"]
    lines.append(f"    & {' & '.join(map(_head, table.columns))} \\\\")
    return lines


def _head(column: Column) -> str:
    lines = [escape(line) for line in head_lines(column)]
    lines[-1] += _sup(column.notes)
    if len(lines) == 1:
        return lines[0]
    return r"\begin{tabular}[b]{@{}r@{}}" + r"\\".join(lines) + r"\end{tabular}"


def _body(table: Table) -> list[str]:
    lines: list[str] = []
    for index, (group, rows) in enumerate(table.row_groups):
        if index:
            lines.append(r"    \midrule")
        if group:
            lines.append(rf"    \multicolumn{{{len(table.columns) + 1}}}{{l}}{{\textit{{{escape(group)}}}}} \\")
        for row in rows:
            lines += _row(row, indent=bool(group))
    return lines


def _row(row: Row, *, indent: bool) -> list[str]:
    label = escape(row.label)
    if row.kind in ("baseline", "published", "imported"):
        label = rf"\textit{{{label}}}"
    label = (r"\quad " if indent else "") + label + _sup(row.notes)
    depth = 1 + max((len(cell.details) for cell in row.cells), default=0)
    lines = [f"    {label} & {' & '.join(map(_cell, row.cells))} \\\\"]
    for line in range(depth - 1):
        parts = [
            rf"{{\scriptsize {escape(cell.details[line])}}}" if line < len(cell.details) else "" for cell in row.cells
        ]
        lines.append(f"    & {' & '.join(parts)} \\\\")
    return lines


def _cell(cell: TableCell) -> str:
    text = escape(cell.main)
    if cell.spread:
        text += rf" {{\scriptsize $\pm$ {escape(cell.spread)}}}"
    if cell.rank == "best":
        text = rf"\textbf{{{text}}}"
    elif cell.rank == "second":
        text = rf"\underline{{{text}}}"
    if cell.tie:
        text += r" $\approx$"
    if cell.show_n:
        text += rf" {{\scriptsize ($n = {cell.n}$)}}"
    return text + _sup(cell.notes)


def _sup(marks: tuple[str, ...]) -> str:
    return rf"\textsuperscript{{{','.join(marks)}}}" if marks else ""


def _foot(table: Table) -> list[str]:
    texts = [rf"\textsuperscript{{{mark}}} {escape(text)}" for mark, text in table.footnotes]
    texts += [escape(text) for text in table.notes]
    texts += [rf"\textbf{{Note:}} {escape(text)}" for text in (*table.alarms, *table.warnings)]
    if not texts:
        return []
    body = [rf"    {text}\par" for text in texts]
    return [r"  \par\smallskip", r"  \begin{minipage}{\linewidth}\scriptsize", *body, r"  \end{minipage}"]

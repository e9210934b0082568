"""A study in a program's hands: its frames, and its tables as objects that a notebook shows by themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from analysis.part import load_part
from analysis.study import Study
from analysis.tables.build import build_table
from analysis.tables.model import Table
from analysis.tables.render import FORMATS, render
from analysis.tables.render.html import html_fragment
from analysis.tables.spec import load_spec
from pipeline.errors import UserError, nearest
from pipeline.records.atomic import write_text
from pipeline.schema.files import find_folder

# What the marks of a table look like where no page brings a style of its own.
STYLE = (
    "<style>.study-table .best .value{font-weight:bold}.study-table .second .value{text-decoration:underline}"
    ".study-table tr.published>*,.study-table tr.imported>*,.study-table tr.baseline>*{font-style:italic}"
    ".study-table .detail{display:block;font-size:.8em}.study-table .notes{font-size:.85em}</style>\n"
)


@dataclass(frozen=True)
class OpenStudy:
    """What `analysis.load_study` gives: `frame` (one row a number), `runs` (one a run), tables, per-image values."""

    study: Study

    @property
    def frame(self) -> pd.DataFrame:
        """One row per arm, seed, metric, split, protocol and state; the columns of docs/analysis.md."""
        return self.study.frame

    @property
    def runs(self) -> pd.DataFrame:
        """One row per planned run."""
        return self.study.runs

    def per_image(self, metric: str) -> pd.DataFrame:
        """Per-image values of a metric on the study's split: columns arm, seed, key, value."""
        return self.study.per_image(metric)

    def table(self, spec: str = "main", published: Sequence[str] = ()) -> ShownTable:
        """A table by the name or file of its specification, with groups of published numbers if any are named.

        Raises UserError as `python -m analysis table` does.
        """
        name, loaded = load_spec(spec)
        return ShownTable(build_table(self.study, loaded.with_published(published), name))

    def __repr__(self) -> str:
        manifest = self.study.manifest
        return f"study {manifest.name}: {len(manifest.arms)} arms x {len(manifest.seeds)} seeds, {len(self.runs)} runs"

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


@dataclass(frozen=True)
class ShownTable:
    """A table that shows itself: in a notebook as HTML, printed as in a terminal."""

    table: Table

    def text(self, form: str = "md") -> str:
        """The table in one of the formats of `python -m analysis table --format`; UserError for any other."""
        known = [*FORMATS, "terminal"]
        if form not in known:
            raise UserError(f"format {form!r}: unknown{nearest(form, known)}; there are: {', '.join(known)}")
        return render(self.table, form)

    def save(self, path: Path | str) -> None:
        """Write the table; the ending of the name says the format (.md, .tex, .csv, .html)."""
        write_text(Path(path), self.text(Path(path).suffix.lstrip(".")))

    def __str__(self) -> str:
        return self.text("terminal")

    def _repr_html_(self) -> str:
        return STYLE + html_fragment(self.table)


def open_study(study: str, out: Path, only: Sequence[str] = ()) -> OpenStudy:
    """The study that a word means, or the part of it that `only` chooses, as the commands understand both."""
    return OpenStudy(load_part(*find_folder(study, out), only))

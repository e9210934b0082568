"""Figures of synthetic studies, drawn without being encoded."""

from __future__ import annotations

from pathlib import Path

from analysis.figures.build import Options, _plan
from analysis.figures.load import figure_data
from analysis.figures.model import NotDrawable
from analysis.figures.study_data import StudyData
from analysis.figures.style import figure_style
from analysis.frame import load_study
from tests.analysis.synthetic import make_study

OPTIONS = Options(pick="spread", rows=3)


def study(out: Path, **settings: object) -> StudyData:
    """Write a synthetic study and load it as figures do."""
    make_study(out, **settings)  # type: ignore[arg-type]
    return figure_data(load_study(out, "synthetic"))


def drawn_and_left_out(data: StudyData) -> tuple[list[str], dict[str, str]]:
    """Draw (without encoding, which is slow) everything that a build would; returns names drawn and reasons by name."""
    drawn, left_out = [], {}
    for plan in _plan(data, OPTIONS):
        with figure_style():
            try:
                plan.draw().figure.draw_without_rendering()
            except NotDrawable as reason:
                left_out[plan.name] = str(reason)
            else:
                drawn.append(plan.name)
    return drawn, left_out

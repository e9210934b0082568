"""Which data a run was to see, as the plan says it: data that differ by design are told from data that have moved on.

Levels of a factor do not tell: in a study of one factor each level has one data set, whichever that is.
"""

from __future__ import annotations

from analysis.frame import Study

CHOOSING = ("data", "preset", "size")  # config keys, with all below them, that choose what a run sees


def data_settings(study: Study) -> dict[str, str]:
    """{run id: overrides of its cell that choose its data, "" where none does}: equal ones ask for the same data.

    Pictures of other code have no overrides of their own: they are of what the plan says of all other runs.
    """
    said = {
        cell.run_id: {item for item in cell.overrides if item.partition("=")[0].lstrip("+~").split(".")[0] in CHOOSING}
        for cell in study.manifest.cells
        if cell.overrides
    }
    common: set[str] = set.intersection(*said.values()) if said else set()
    return {cell.run_id: " ".join(sorted(said.get(cell.run_id, common))) for cell in study.manifest.cells}

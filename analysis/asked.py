"""Which data a run was to see, as the plan says it: data that differ by design are told from data that have moved on.

Levels of a factor do not tell: in a study of one factor each level has one data set, whichever that is.
"""

from __future__ import annotations

from collections.abc import Collection

from analysis.study import Study

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


def one_at_a_time(study: Study, run_ids: Collection[str]) -> str:
    """What to ask for where these runs were to see several data: a part for each, by the factor that varies them.

    "" where they were to see the same, or no factor alone tells their data apart.
    """
    settings = data_settings(study)
    if len({settings[run_id] for run_id in run_ids}) < 2:
        return ""
    arm_of = {cell.run_id: cell.arm for cell in study.manifest.cells}
    levels_of = {arm.name: arm.levels for arm in study.manifest.arms}
    told: dict[str, dict[str, set[str]]] = {}  # factor -> level -> data settings
    in_order = [cell.run_id for cell in study.manifest.cells if cell.run_id in run_ids]  # and so the levels
    for run_id in in_order:
        for factor, level in levels_of[arm_of[run_id]].items():
            told.setdefault(factor, {}).setdefault(level, set()).add(settings[run_id])
    for factor, of_level in told.items():
        if len(of_level) > 1 and all(len(found) == 1 for found in of_level.values()):
            parts = " or ".join(f"--only {factor}={level}" for level in of_level)
            return (
                f"one at a time ({parts}), or a group of columns each (pivot: {factor}, in the table's specification)"
            )
    return ""

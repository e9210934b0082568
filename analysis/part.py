"""A part of a study: the arms that `--only` chooses, compared among themselves.

Arms that were measured on different photos have no column, no figure and no comparison in common; the arms on one data set have.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

from analysis.frame import load_study
from analysis.kept import kept_part
from analysis.study import Study
from pipeline.records import Arm


def load_part(out: Path, name: str, only: Sequence[str] = ()) -> Study:
    """The study `name` below `out`, or the part of it that `only` chooses. Raises UserError as `load_study` and `part_of` do."""
    study = load_study(out, name)
    if study.kept:
        study = part_of(study, kept_part(study.folder))
    return part_of(study, only)


def part_of(study: Study, only: Sequence[str]) -> Study:
    """The study as if it had only the arms that `only` chooses (`StudyManifest.matching`); the study itself without words.

    Where the plan's reference arm is not among them, the arm with its levels of all that varies there takes its place, if there
    is one. Labels lose what all these arms share. Raises UserError as `matching` does.
    """
    if not only:
        return study
    whole = study.manifest
    chosen = whole.matching(only)
    arms = [arm for arm in whole.arms if arm.name in chosen]
    reference = _reference(study.reference, arms)
    labels = _labels(whole.arms, arms)
    manifest = dataclasses.replace(
        whole,
        arms=tuple(dataclasses.replace(arm, label=labels[arm.name], reference=arm.name == reference) for arm in arms),
        cells=tuple(cell for cell in whole.cells if cell.arm in chosen),
    )
    frame, runs = (table[table["arm"].isin(chosen)].reset_index(drop=True) for table in (study.frame, study.runs))
    for table in (frame, runs):
        table["arm_label"] = table["arm"].map(labels).astype(table["arm_label"].dtype)
        table["reference"] = (table["arm"] == reference).astype(table["reference"].dtype)
    return dataclasses.replace(
        study,
        manifest=manifest,
        frame=frame,
        runs=runs,
        only=tuple(dict.fromkeys((*study.only, *only))),
        whole=study.whole or whole,
    )


def _reference(planned: Arm | None, arms: Sequence[Arm]) -> str | None:
    """Name of the part's reference arm: the plan's, or else the one arm like it in every factor that varies in the part."""
    if planned is None or planned in arms:
        return planned.name if planned is not None else None
    varied = {name for name in planned.levels if len({arm.levels.get(name) for arm in arms}) > 1}
    alike = [arm.name for arm in arms if all(arm.levels.get(name) == planned.levels[name] for name in varied)]
    return alike[0] if len(alike) == 1 else None


def _labels(planned: Iterable[Arm], arms: Sequence[Arm]) -> dict[str, str]:
    """Labels of the part's arms without the words for levels that all of them have: "SPADE, faces" is SPADE among faces.

    The plan does not say which word is a level's: it is one that every label of that level has and no other label.
    """
    # A reference arm is called by the study, not by its levels.
    named = [(arm, arm.label.split(", ")) for arm in planned if not arm.reference]
    shared: set[str] = set()
    for factor, level in arms[0].levels.items():
        if any(arm.levels.get(factor) != level for arm in arms):
            continue
        having = [set(words) for arm, words in named if arm.levels.get(factor) == level]
        others = {word for arm, words in named if arm.levels.get(factor) != level for word in words}
        shared |= set.intersection(*having) - others if having else set()
    short = {
        arm.name: ", ".join(word for word in arm.label.split(", ") if word not in shared) or arm.label for arm in arms
    }
    apart = len(set(short.values())) == len(short)
    return short if apart else {arm.name: arm.label for arm in arms}

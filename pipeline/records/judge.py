"""Whether the judge behind a score can judge, as the records say: its ceiling on the real photos against a trivial floor.

A segmenter that reads the real photos no better than one class everywhere says nothing about generated ones. What rests on it
is shown and marked, and neither ranked nor tested.
"""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.records.metric_specs import find_spec

# The lower 95 % bound of `seg_skill` must exceed it. Skill is agreement beyond chance, as a kappa is; 0.2 is where Landis and Koch
# (Biometrics 33, 1977) end "slight" agreement.
LEAST_SKILL = 0.2
LEAST_SKILL_ROW = "seg_skill_low"


def rests_on_segmenter(row_name: str) -> bool:
    """Whether a score is read off the pictures by the segmenter."""
    spec = find_spec(row_name)
    return spec is not None and spec.judge == "segmenter"


def cannot_judge(bounds: Mapping[str, float]) -> str:
    """Why the segmenter with these bounds (row name -> value, from one evaluation) cannot judge.

    "" where it can, and where the record is older than the row `seg_skill_low`: nothing is known then.
    """
    low = bounds.get(LEAST_SKILL_ROW)
    if low is None or low > LEAST_SKILL:
        return ""
    real, floor = (f"{bounds[name]:.3f}" if name in bounds else "?" for name in ("seg_miou_real", "seg_miou_floor"))
    return (
        f"the segmenter cannot judge these photos: mIoU {real} on the real ones, {floor} by one class everywhere "
        f"(skill at least {low:.2f}; more than {LEAST_SKILL:g} is needed)"
    )

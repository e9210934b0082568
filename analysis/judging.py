"""Which columns rest on a segmenter that cannot judge: shown and marked, neither ranked nor tested nor claimed with."""

from __future__ import annotations

from collections.abc import Iterable

from analysis.study import Study
from pipeline.records.judge import LEAST_SKILL_ROW, cannot_judge, rests_on_segmenter

UNKNOWN_FLOOR = "whether the segmenter can judge these photos is not known, because its floor was not measured"


def why_unjudged(study: Study, metric: str, arms: Iterable[str], *, protocol: str = "", split: str = "") -> str:
    """Why a metric of these arms is not ranked: the segmenter it rests on cannot judge. "" where it can, or nothing is known.

    `protocol` and `split` as the study's, where they are left out. All runs with a value must know it: one that was evaluated
    before floors were measured had another segmenter. Where a run knows several segmenters, one that can judge is enough.
    """
    of_runs = _bounds(study, metric, arms, protocol or study.manifest.protocol, split or study.manifest.split)
    known = [bounds for bounds in of_runs if LEAST_SKILL_ROW in bounds]
    if not known or len(known) < len(of_runs):
        return ""
    reasons = [cannot_judge(bounds) for bounds in known]
    return reasons[0] if all(reasons) else ""


def floor_unknown(study: Study, metric: str, arms: Iterable[str], *, protocol: str = "", split: str = "") -> bool:
    """Whether some run has a value of a metric that rests on the segmenter, and no word on whether that can judge."""
    of_runs = _bounds(study, metric, arms, protocol or study.manifest.protocol, split or study.manifest.split)
    return any(LEAST_SKILL_ROW not in bounds for bounds in of_runs)


def _bounds(study: Study, metric: str, arms: Iterable[str], protocol: str, split: str) -> list[dict[str, float]]:
    """Of each finished run of the arms that has a value of the metric: its rows about the segmenter, the best where several."""
    if not rests_on_segmenter(metric):
        return []
    frame = study.frame
    home = frame[
        (frame["status"] == "ok")
        & (frame["state"] == "trained")
        & (frame["run_state"] == "finished")
        & (frame["protocol"] == protocol)
        & (frame["split"] == split)
        & frame["arm"].isin(list(arms))
    ]
    measured = set(home.loc[home["metric"] == metric, "run_id"])
    bounds: dict[str, dict[str, float]] = {run_id: {} for run_id in sorted(measured)}
    about = home[
        home["run_id"].isin(measured) & home["metric"].isin(["seg_miou_real", "seg_miou_floor", LEAST_SKILL_ROW])
    ]
    for run_id, name, value in about[["run_id", "metric", "value"]].itertuples(index=False, name=None):
        bounds[run_id][name] = max(bounds[run_id].get(name, float("-inf")), float(value))
    return list(bounds.values())

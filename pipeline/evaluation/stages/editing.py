"""The edit tasks as a stage of an evaluation: cases in batches, rows `edit_<metric>_<task>`, values per case."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from pipeline.editing.cases import Case, choose_cases, no_cases, picture_name, step_names
from pipeline.editing.tasks import TASKS, refusal
from pipeline.evaluation.context import Context
from pipeline.evaluation.rows import RowMaker
from pipeline.evaluation.stages.edit_scores import score
from pipeline.identity import canonical_json, digest
from pipeline.metrics.accumulate import Totals
from pipeline.metrics.segmentation import Confusion
from pipeline.models.external import ExternalPictures
from pipeline.records.rows import MetricRow
from pipeline.schema.evaluation import EditTask

TRUTH_METRICS = ("psnr", "ssim", "lpips_alex", "region_error", "light_consistency")


def editing_stage(context: Context, make: RowMaker) -> tuple[list[MetricRow], list[pd.DataFrame]]:
    """Rows and per-case values of every task of the protocol."""
    rows: list[MetricRow] = []
    frames: list[pd.DataFrame] = []
    for task in context.protocol.editing.tasks:
        cases, reason = _cases(task, context)
        if not cases:
            rows += [make.not_applicable(f"edit_{name}_{task}", reason) for name in TASKS[task].metrics]
            continue
        totals = context.collect(
            f"edit_{task}", len(cases), context.protocol.batch_size, partial(score, task, context, cases), title=f"edit {task}"
        )  # fmt: skip
        task_rows, frame = _rows(task, cases, totals, context, make)
        rows += task_rows
        frames.append(frame)
    return rows, frames


def _cases(task: EditTask, context: Context) -> tuple[list[Case], str]:
    """The cases of a task, or none and why."""
    cfg, generator, keys = context.protocol.editing, context.generator, context.dataset.keys
    external = generator if isinstance(generator, ExternalPictures) else None
    reason = refusal(task, generator.capabilities) if external is None else ""
    cases = [] if reason else choose_cases(task, cfg, context.dataset, context.total)
    if not cases:
        return [], reason or no_cases(context.total)
    if external is not None:
        names = [picture_name(task, case, keys[case.content], keys[case.reference]) for case in cases]
        needed = [step for name in names for step in step_names(task, name, cfg.steps)]
        lacking = external.pictures.lacks(task, needed) if TASKS[task].edits else []
        if lacking:
            return (
                [],
                f"no picture of {len(lacking)} of the {len(needed)} edits that protocol {context.protocol.name} asks for",
            )
    return cases, ""


def _rows(
    task: EditTask,
    cases: list[Case],
    totals: Totals,
    context: Context,
    make: RowMaker,
) -> tuple[list[MetricRow], pd.DataFrame]:
    cfg = context.protocol.editing
    lpips, missing = context.lpips
    settings: dict[str, Any] = {
        "task": task,
        "cases": digest(canonical_json([[c.content, c.reference, c.region, list(c.classes)] for c in cases])),
        "steps": cfg.steps,
        "seed": cfg.seed,
        "aggregation": "mean over cases",
    }
    if TASKS[task].style_from == "noise":
        settings["batch_size"] = context.protocol.batch_size  # the noise is drawn batch by batch
    rows: list[MetricRow] = []
    frames: list[pd.DataFrame] = []
    keys = [_case_key(case, context) for case in cases]
    for name, values in totals.each().items():
        row_name = f"edit_{name}_{task}"
        counted = values[~np.isnan(values)]
        extra = {"weights": lpips.weights_digest} if name == "lpips_alex" and lpips is not None else {}
        if not len(counted):
            rows.append(make.not_applicable(row_name, "no case of this protocol says anything about it", **settings))
            continue
        rows.append(make.ok(row_name, float(counted.mean()), len(counted), **settings, **extra))
        frame = pd.DataFrame({"key": keys, "metric": row_name, "value": values.astype(float), "split": make.split})
        frames.append(frame[~np.isnan(values)].assign(fingerprint=make.fingerprints[row_name]))
    if not totals.has("each/psnr"):
        untold = [name for name in TASKS[task].metrics if name in TRUTH_METRICS]
        rows += [
            make.not_applicable(f"edit_{name}_{task}", "the data have no ground truth of edits") for name in untold
        ]
    elif lpips is None:
        rows.append(make.unavailable(f"edit_lpips_alex_{task}", missing))
    if totals.has("sum/confusion"):
        segmenter, _ = context.segmenter
        assert segmenter is not None, "a confusion was counted with a segmenter"
        agreement = Confusion.of(totals.sums["sum/confusion"]).mean_iou()
        rows.append(
            make.ok(f"edit_mask_agreement_{task}", agreement, len(cases), **settings, segmenter=segmenter.digest)
        )
    return rows, pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def _case_key(case: Case, context: Context) -> str:
    """For people and for pairing arms: content<reference:region."""
    keys = context.dataset.keys
    return f"{keys[case.content]}<{keys[case.reference]}:{case.region}"

"""The edit tasks as a stage of an evaluation: cases in batches, rows `edit_<metric>_<task>`, values per case."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from pipeline.editing.batches import load_case_batches
from pipeline.editing.cases import Case, choose_cases, no_cases
from pipeline.editing.tasks import refusal
from pipeline.editing.truth import renderer_of
from pipeline.evaluation.context import Context
from pipeline.evaluation.rows import RowMaker
from pipeline.evaluation.stages.edit_scores import score
from pipeline.identity import canonical_json, digest
from pipeline.metrics.accumulate import Totals
from pipeline.metrics.perceptual import SMALLEST_SIDE, Lpips, PerceptualDistance
from pipeline.metrics.segmentation import Confusion
from pipeline.records.rows import MetricRow
from pipeline.schema.evaluation import EditTask
from pipeline.weights import WeightsMissing

TRUTH_METRICS = ("psnr", "ssim", "region_error", "light_consistency")


def editing_stage(context: Context, make: RowMaker) -> tuple[list[MetricRow], list[pd.DataFrame]]:
    """Rows and per-case values of every task of the protocol."""
    rows: list[MetricRow] = []
    frames: list[pd.DataFrame] = []
    lpips, missing = _lpips(context)
    for task in context.protocol.editing.tasks:
        reason = refusal(task, context.generator.capabilities)
        if reason:
            rows += [make.not_applicable(f"edit_{name}_{task}", reason) for name in _headline(task)]
            continue
        cases = choose_cases(task, context.protocol.editing, context.dataset, context.total)
        if not cases:
            reason = no_cases(context.total)
            rows += [make.not_applicable(f"edit_{name}_{task}", reason) for name in _headline(task)]
            continue
        totals = _measure(task, cases, context, lpips)
        task_rows, frame = _rows(task, cases, totals, context, make, lpips, missing)
        rows += task_rows
        frames.append(frame)
    return rows, frames


def _measure(task: EditTask, cases: list[Case], context: Context, lpips: PerceptualDistance | None) -> Totals:
    totals = Totals()
    size, cfg = context.protocol.batch_size, context.protocol.editing
    renderer = renderer_of(context.dataset, context.cache)
    segmenter = context.segmenter()[0] if "semantic" in context.groups else None
    context.progress.start(f"edit {task}", len(cases))
    for number, start in enumerate(range(0, len(cases), size)):
        chunk = cases[start : start + size]
        stored = context.resume.get(f"edit_{task}", number)
        if stored is None:
            content, reference = load_case_batches(task, context.dataset, chunk, renderer, context.device)
            stored = score(
                task, context.generator, content, reference, chunk, renderer=renderer, segmenter=segmenter, lpips=lpips,
                steps=cfg.steps, seed=cfg.seed + number, ignore=context.dataset.label_space.unknown,
            )  # fmt: skip
            context.resume.put(f"edit_{task}", number, stored)
        totals.add(stored)
        context.progress.update(start + len(chunk))
    context.progress.stop()
    return totals


def _rows(
    task: EditTask,
    cases: list[Case],
    totals: Totals,
    context: Context,
    make: RowMaker,
    lpips: PerceptualDistance | None,
    missing: str,
) -> tuple[list[MetricRow], pd.DataFrame]:
    cfg = context.protocol.editing
    settings: dict[str, Any] = {
        "task": task,
        "cases": digest(canonical_json([[c.content, c.reference, c.region, list(c.classes)] for c in cases])),
        "steps": cfg.steps,
        "seed": cfg.seed,
        "aggregation": "mean over cases",
    }
    if task == "sampling":
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
        untold = [name for name in _headline(task) if name in TRUTH_METRICS]
        rows += [
            make.not_applicable(f"edit_{name}_{task}", "the data have no ground truth of edits") for name in untold
        ]
    elif lpips is None:
        rows.append(make.unavailable(f"edit_lpips_alex_{task}", missing))
    if totals.has("sum/confusion"):
        segmenter, _ = context.segmenter()
        assert segmenter is not None, "a confusion was counted with a segmenter"
        agreement = Confusion.of(totals.sums["sum/confusion"]).mean_iou()
        rows.append(
            make.ok(f"edit_mask_agreement_{task}", agreement, len(cases), **settings, segmenter=segmenter.digest)
        )
    return rows, pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def _headline(task: EditTask) -> tuple[str, ...]:
    """Metrics that stand for a task where a family cannot do it."""
    if task in ("sampling",):
        return ("mask_agreement",)
    if task == "shape_interpolation":
        return ("smoothness", "mask_agreement")
    light = ("light_consistency",) if task in ("style_transfer", "style_and_shape_transfer") else ()
    smooth = ("smoothness",) if task == "style_interpolation" else ()
    return ("psnr", "ssim", "region_error", "style_distance", "mask_agreement", *light, *smooth)


def _case_key(case: Case, context: Context) -> str:
    """For people and for pairing arms: content<reference:region."""
    keys = context.dataset.keys
    return f"{keys[case.content]}<{keys[case.reference]}:{case.region}"


def _lpips(context: Context) -> tuple[PerceptualDistance | None, str]:
    if min(context.dataset.height, context.dataset.width) < SMALLEST_SIDE:
        return None, f"images are smaller than {SMALLEST_SIDE} pixels"
    try:
        return Lpips("alex", context.protocol.weights_dir, context.device), ""
    except WeightsMissing as error:
        return None, str(error)

"""Mask noise at graded levels, and what reconstruction loses under it (paper: robustness to mask noise).

Both the style encoder and the generator see the damaged mask; the target is the untouched photo. Damage is a function of
(seed, kind, level, image), the same for every family, and never leaves a pixel without a class.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from pipeline.data.batch import Batch, damaged_batch
from pipeline.evaluation.context import Context
from pipeline.evaluation.inversion import Inverted
from pipeline.evaluation.rows import RowMaker
from pipeline.evaluation.view import reconstruct
from pipeline.metrics import reconstruction
from pipeline.metrics.accumulate import Contribution
from pipeline.records.rows import MetricRow
from pipeline.schema.evaluation import RobustnessConfig


def robustness_stage(context: Context, make: RowMaker) -> tuple[list[MetricRow], list[pd.DataFrame]]:
    """Curve points `robust_<metric>_<kind>_<level>`, losses and areas `..._loss_<kind>`, `..._area_<kind>`, and mean areas."""
    cfg = context.protocol.robustness
    total = min(cfg.images, context.total)
    levels = (0.0, *cfg.levels)
    unknown = context.dataset.label_space.unknown
    generator, note = context.generator, ""
    if isinstance(generator, Inverted):
        generator = generator.under_damage()
        note = generator.note

    def measure(start: int, stop: int) -> Contribution:
        clean = context.batch(start, stop)
        variants: list[tuple[str, Batch]] = [("clean", clean)]
        for kind in cfg.kinds:
            variants += [
                (f"{kind}_{level:g}", damaged_batch(clean, kind, level, seed=cfg.seed, unknown=unknown))
                for level in cfg.levels
            ]
        found: Contribution = {}
        for name, batch in variants:
            view = reconstruct(generator, batch, context.device, start)
            if isinstance(generator, Inverted) and generator.pivots is not None:
                generator.pivots.forget()  # no other picture is drawn with the weights tuned for this damage
            found[f"each/psnr_{name}"] = reconstruction.psnr(view.output, view.target).cpu().numpy()
            if reconstruction.has_ssim(view.output):
                found[f"each/ssim_{name}"] = reconstruction.ssim(view.output, view.target).cpu().numpy()
        return found

    totals = context.collect("robustness", total, context.protocol.batch_size, measure)
    rows: list[MetricRow] = []
    common: dict[str, Any] = {"note": note, "seed": cfg.seed, "aggregation": "mean over images"}
    values = {name: float(array.mean()) for name, array in totals.each().items()}
    for metric in ("psnr", "ssim"):
        if f"{metric}_clean" not in values:
            rows.append(make.not_applicable(f"robust_{metric}_area", "images are smaller than the SSIM window"))
            continue
        areas = []
        for kind in cfg.kinds:
            curve = [values[f"{metric}_clean"], *(values[f"{metric}_{kind}_{level:g}"] for level in cfg.levels)]
            for level, value in zip(levels, curve, strict=True):  # level 0, the clean mask, begins every curve
                rows.append(
                    make.ok(f"robust_{metric}_{kind}_{level:g}", value, total, kind=kind, level=level, **common)
                )
            worst: dict[str, Any] = {"kind": kind, "level": levels[-1], **common}
            rows.append(make.ok(f"robust_{metric}_loss_{kind}", curve[0] - curve[-1], total, **worst))
            areas.append(area(levels, curve))
            rows.append(
                make.ok(f"robust_{metric}_area_{kind}", areas[-1], total, kind=kind, levels=list(levels), **common)
            )
        mean = float(np.mean(areas))
        rows.append(make.ok(f"robust_{metric}_area", mean, total, kinds=list(cfg.kinds), levels=list(levels), **common))
    return rows, []


def robustness_names(cfg: RobustnessConfig) -> list[str]:
    """Names of the rows that the stage gives."""
    names: list[str] = []
    for metric in ("psnr", "ssim"):
        for kind in cfg.kinds:
            names += [f"robust_{metric}_{kind}_{level:g}" for level in (0.0, *cfg.levels)]
            names += [f"robust_{metric}_loss_{kind}", f"robust_{metric}_area_{kind}"]
        names.append(f"robust_{metric}_area")
    return names


def area(levels: Sequence[float], values: Sequence[float]) -> float:
    """Area under the piecewise linear curve over its width: the mean value between the first and the last level."""
    x, y = np.asarray(levels), np.asarray(values)
    return float((np.diff(x) * (y[1:] + y[:-1]) / 2).sum() / (x[-1] - x[0]))

"""Spread between samples of one layout: higher is more diverse, under names no reconstruction metric has."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from pipeline.data.batch import Batch
from pipeline.evaluation.context import Context
from pipeline.evaluation.rows import RowMaker
from pipeline.evaluation.view import as_images
from pipeline.metrics import reconstruction
from pipeline.metrics.accumulate import Contribution
from pipeline.metrics.images import ImageBatch
from pipeline.metrics.perceptual import PerceptualDistance
from pipeline.models.contract import Generator
from pipeline.records.rows import MetricRow

NAMES = ("pixel_div", "lpips_div_alex")


def diversity_stage(context: Context, make: RowMaker) -> tuple[list[MetricRow], list[pd.DataFrame]]:
    """`pixel_div` and `lpips_div_alex` for families that sample styles."""
    if not context.generator.capabilities.sampling:
        return [make.not_applicable(name, "the family does not sample styles") for name in NAMES], []
    cfg = context.protocol.diversity
    total = min(cfg.images, context.total)
    lpips, missing = context.lpips

    def measure(index: int, stop: int) -> Contribution:
        batch = context.batch(index, stop).to(context.device)
        images = sampled_images(
            context.generator, batch, cfg.samples, seed=cfg.seed + index, at_once=context.protocol.batch_size
        )
        found = {"each/pixel_div": np.array([pairwise_pixel(images)])}
        if lpips is not None:
            found["each/lpips_div_alex"] = np.array([pairwise_perceptual(images, lpips)])
        return found

    found = context.collect("diversity", total, 1, measure).each()
    own = context.generator.capabilities.layout == "own"
    note = "each sample has a layout of its own: the family cannot be told one" if own else ""
    settings: dict[str, Any] = {
        "note": note,
        "samples": cfg.samples,
        "seed": cfg.seed,
        "aggregation": "mean over layouts and pairs",
    }
    rows = [make.ok("pixel_div", float(found["pixel_div"].mean()), total, **settings)]
    if lpips is None:
        rows.append(make.unavailable("lpips_div_alex", missing))
    else:
        value = float(found["lpips_div_alex"].mean())
        rows.append(make.ok("lpips_div_alex", value, total, weights=lpips.weights_digest, **settings))
    return rows, []


def sampled_images(generator: Generator, batch: Batch, samples: int, *, seed: int, at_once: int) -> ImageBatch:
    """`samples` images (samples,3,H,W) of the one layout in `batch`, from noise drawn on the CPU with `seed`.

    Not more than `at_once` are in memory as feature maps.
    """
    width = generator.capabilities.noise_width
    noise = torch.randn(samples, width, generator=torch.Generator().manual_seed(seed)).to(batch.image.device)
    images = []
    for part in noise.split(at_once):
        mask = batch.mask.expand(len(part), -1, -1, -1)
        images.append(generator.synthesize(mask, generator.sample_style(mask, part), attention=False).image)
    return as_images(torch.cat(images))


def pairwise_pixel(images: ImageBatch) -> float:
    """Mean RMSE over all pairs, range 1; 0 when all samples are equal."""
    first, second = _pairs(images)
    return float(reconstruction.rmse(first, second).mean())


def pairwise_perceptual(images: ImageBatch, metric: PerceptualDistance) -> float:
    """Mean perceptual distance over all pairs."""
    first, second = _pairs(images)
    return float(metric.distance(first, second).mean())


def _pairs(images: ImageBatch) -> tuple[ImageBatch, ImageBatch]:
    index: NDArray[np.intp] = np.array(list(combinations(range(len(images)), 2)))
    return (
        ImageBatch(images.tensor[index[:, 0]], images.range),
        ImageBatch(images.tensor[index[:, 1]], images.range),
    )

"""Numbers of edit tasks, a batch of cases at a time.

Against the ground-truth edit where the renderer gives one, and on any data set what an edit changes outside its region, how near
the style inside comes to its source, and whether the result still shows the layout.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.data.batch import Batch
from pipeline.editing.batches import load_case_batches
from pipeline.editing.cases import Case
from pipeline.editing.perform import Edited, perform
from pipeline.editing.tasks import TASKS
from pipeline.editing.truth import Renderer, renderer_of
from pipeline.evaluation.context import Context
from pipeline.evaluation.view import as_images
from pipeline.metrics import reconstruction
from pipeline.metrics.accumulate import Contribution
from pipeline.metrics.images import ImageBatch, from_uint8
from pipeline.metrics.segmentation import Confusion
from pipeline.schema.evaluation import EditTask

ALIKE_LIGHTS = 0.02  # RMSE: where two lights draw the region this much alike, following one says nothing


def score(task: EditTask, context: Context, every: list[Case], start: int, stop: int) -> Contribution:
    """Values of the cases `start` to `stop` (left out) of `every`, which go through the generator together.

    `each/<metric>` (N,), NaN where a metric says nothing about a case, and `sum/confusion` of the segmenter. Raises RunFailed when
    an edit is not finite.
    """
    row, cases = TASKS[task], every[start:stop]
    renderer = renderer_of(context.dataset, context.cache)
    content, reference, edited = carry_out(task, context, cases, start)
    output, own = as_images(edited.image), as_images(edited.reconstruction)
    found: dict[str, NDArray] = {}
    if renderer is not None:
        found.update(_against_truth(task, edited, output, cases, renderer, context))
    if not row.whole:
        found["outside_change"] = region_rmse(output, own, ~edited.region)
    if row.steps:
        found["smoothness"] = smoothness([as_images(step) for step in edited.steps])
    if row.right:
        style_batch = reference if row.borrows_style else content
        source = ImageBatch(style_batch.image, "signed")
        found["style_distance"] = np.array(
            [
                style_distance(output.unit()[i], edited.label[i], source.unit()[i], style_batch.label[i], case.classes)
                for i, case in enumerate(cases)
            ]
        )
    contribution: Contribution = {f"each/{name}": value for name, value in found.items()}
    segmenter = context.segmenter[0] if "semantic" in context.groups else None
    if segmenter is not None:
        confusion = Confusion(context.num_classes, context.dataset.label_space.unknown)
        confusion.update(segmenter.labels(output.quantised()), edited.label)
        contribution["sum/confusion"] = confusion.counts.numpy()
    return contribution


def carry_out(task: EditTask, context: Context, cases: list[Case], start: int) -> tuple[Batch, Batch, Edited]:
    """Content, reference and edits of a batch of `cases`, the first of which is number `start` of the task's."""
    cfg, renderer = context.protocol.editing, renderer_of(context.dataset, context.cache)
    content, reference = load_case_batches(task, context.dataset, cases, renderer, context.device)
    seed = cfg.seed + start // context.protocol.batch_size
    return content, reference, perform(task, context.generator, content, reference, cases, steps=cfg.steps, seed=seed)


def _against_truth(
    task: EditTask,
    edited: Edited,
    output: ImageBatch,
    cases: list[Case],
    renderer: Renderer,
    context: Context,
) -> dict[str, NDArray]:
    labels = edited.label.cpu().numpy()
    pictures = renderer.truths(task, cases, labels)
    if pictures is None:
        return {}
    truth = from_uint8(pictures).to(output.tensor.device)
    found = {
        "psnr": reconstruction.psnr(output, truth).cpu().numpy(),
        "region_error": region_rmse(output, truth, edited.region),
    }
    if reconstruction.has_ssim(output):
        found["ssim"] = reconstruction.ssim(output, truth).cpu().numpy()
    lpips, _ = context.lpips
    if lpips is not None:
        found["lpips_alex"] = lpips.distance(output, truth).cpu().numpy()
    lit = renderer.under_reference_lights(task, cases, labels)
    if lit is not None:
        wrong = from_uint8(lit).to(output.tensor.device)
        to_truth, to_wrong = found["region_error"], region_rmse(output, wrong, edited.region)
        telling = region_rmse(truth, wrong, edited.region) >= ALIKE_LIGHTS
        with np.errstate(invalid="ignore", divide="ignore"):
            found["light_consistency"] = np.where(telling, to_wrong / (to_truth + to_wrong), math.nan)
    return found


def region_rmse(a: ImageBatch, b: ImageBatch, region: NDArray[np.bool_]) -> NDArray[np.float64]:
    """RMSE over the pixels of `region` (N,H,W), range 1; NaN for an empty region. Returns (N,)."""
    inside_ = torch.from_numpy(region).to(a.tensor.device).unsqueeze(1).double()
    squared = (a.unit().double() - b.unit().double()).square() * inside_
    pixels = inside_.sum(dim=(1, 2, 3)) * a.tensor.shape[1]
    return (squared.sum(dim=(1, 2, 3)) / pixels.where(pixels > 0, torch.nan)).sqrt().cpu().numpy()


def style_distance(
    image: Tensor, label: Tensor, source: Tensor, source_label: Tensor, classes: tuple[int, ...]
) -> float:
    """Difference of a class's colours in two images, mean over `classes` (empty: all) that occur in both.

    RMS over the means and standard deviations of the three channels.

    image, source (3,H,W) in [0, 1]; label, source_label (H,W) int64. NaN when no class occurs in both.
    """
    shared = set(label.unique().tolist()) & set(source_label.unique().tolist())
    chosen = sorted(shared & set(classes) if classes else shared)
    distances = []
    for k in chosen:
        first, second = _moments(image[:, label == k]), _moments(source[:, source_label == k])
        distances.append(float((first - second).square().mean().sqrt()))
    return float(np.mean(distances)) if distances else math.nan


def smoothness(steps: list[ImageBatch]) -> NDArray[np.float64]:
    """Smallest over largest RMSE between neighbouring positions, (N,) in [0, 1]: 1 for even steps, 0 for a jump.

    A standstill, at which nothing moves at all, counts as 0 too.
    """
    moves = torch.stack([reconstruction.rmse(a, b) for a, b in pairwise(steps)])
    smallest, largest = moves.amin(dim=0), moves.amax(dim=0)
    return torch.where(largest > 1e-6, smallest / largest.clamp_min(1e-12), torch.zeros_like(largest)).cpu().numpy()


def _moments(pixels: Tensor) -> Tensor:
    """(3,P) -> (6,): means and population standard deviations."""
    values = pixels.double()
    return torch.cat([values.mean(dim=1), values.std(dim=1, correction=0)])

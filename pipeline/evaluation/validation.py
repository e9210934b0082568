"""The quick look at the validation split that learning curves are made of."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from pipeline.data.batch import Batch, collate
from pipeline.data.types import Dataset
from pipeline.evaluation.view import reconstruct
from pipeline.metrics import reconstruction
from pipeline.metrics.attention import AttentionAgreement
from pipeline.models.contract import Generator


def quick_validation(
    generator: Generator, dataset: Dataset, images: int, batch_size: int, device: torch.device
) -> dict[str, float]:
    """PSNR (dB), SSIM and, where the family has attention, attention mIoU over the first `images` samples: learning curves."""
    was_training = generator.training
    generator.eval()
    values: dict[str, list[float]] = {"psnr": [], "ssim": []}
    agreement = AttentionAgreement(dataset.label_space.num_classes)
    try:
        with torch.no_grad():
            for batch in first_batches(dataset, images, batch_size):
                view = reconstruct(generator, batch, device)
                values["psnr"] += reconstruction.psnr(view.output, view.target).tolist()
                if reconstruction.has_ssim(view.output):
                    values["ssim"] += reconstruction.ssim(view.output, view.target).tolist()
                if view.attention:
                    agreement.update(view.attention, view.label)
    finally:
        generator.train(was_training)
    found = {name: float(np.mean(numbers)) for name, numbers in values.items() if numbers}
    if agreement.images:
        found["attention_miou"] = agreement.values()["attention_miou"]
    return found


def first_batches(dataset: Dataset, images: int, batch_size: int) -> Iterator[Batch]:
    """Batches of the first `images` samples, in order."""
    total = min(images, len(dataset))
    for start in range(0, total, batch_size):
        items = [dataset[i] for i in range(start, min(start + batch_size, total))]
        yield collate(items, dataset.label_space.num_classes)

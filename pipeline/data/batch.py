"""A batch of samples as tensors: the only module of the data room, beside the loader, that knows torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from pipeline.data.label_noise import damaged, noise_stream
from pipeline.data.types import Sample
from pipeline.schema.data import NoiseKind


@dataclass(frozen=True)
class Batch:
    """N samples of one size."""

    image: Tensor  # (N,3,H,W) float32 in [-1, 1]: x / 127.5 - 1
    label: Tensor  # (N,H,W) int64 class index 0..K-1
    mask: Tensor  # (N,K,H,W) float32 one-hot of label
    keys: tuple[str, ...]
    instance: Tensor | None  # (N,H,W) int64 instance ids, numbered from 0 within each sample

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on `device`."""
        return replace(
            self,
            image=self.image.to(device),
            label=self.label.to(device),
            mask=self.mask.to(device),
            instance=None if self.instance is None else self.instance.to(device),
        )


def image_tensor(images: np.ndarray) -> Tensor:
    """(N,H,W,3) uint8 -> (N,3,H,W) float32 in [-1, 1] by x / 127.5 - 1."""
    return (
        torch.from_numpy(np.ascontiguousarray(images))
        .permute(0, 3, 1, 2)
        .to(torch.float32)
        .div(127.5)
        .sub(1.0)
        .contiguous()
    )


def image_array(images: Tensor) -> np.ndarray:
    """(N,3,H,W) float32 in [-1, 1] -> (N,H,W,3) uint8: the inverse of `image_tensor`."""
    return eight_bit((images + 1.0) / 2.0)


def eight_bit(images: Tensor) -> np.ndarray:
    """(N,3,H,W) float32 in [0, 1] -> (N,H,W,3) uint8, rounded to nearest and clipped: what a PNG of the images holds."""
    scaled = images.detach().mul(255.0).round().clamp(0, 255).to(torch.uint8)
    return scaled.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def one_hot(label: Tensor, num_classes: int) -> Tensor:
    """(N,H,W) int64 -> (N,K,H,W) float32; ids outside 0..K-1 raise ValueError with the offending ids."""
    low, high = int(label.min()), int(label.max())
    if low < 0 or high >= num_classes:
        raise ValueError(f"label ids {low}..{high} outside 0..{num_classes - 1}")
    mask = torch.zeros(label.shape[0], num_classes, *label.shape[1:], dtype=torch.float32, device=label.device)
    return mask.scatter_(1, label.unsqueeze(1), 1.0)


def collate(samples: Sequence[Sample], num_classes: int) -> Batch:
    """Stack samples of one size into a batch of `num_classes` mask channels."""
    label = torch.from_numpy(np.stack([sample.label for sample in samples]).astype(np.int64))
    instances = [sample.instance for sample in samples if sample.instance is not None]
    if instances and len(instances) != len(samples):
        raise ValueError("some samples of one batch have instance maps and some have none")
    return Batch(
        image=image_tensor(np.stack([sample.image for sample in samples])),
        label=label,
        mask=one_hot(label, num_classes),
        keys=tuple(sample.key for sample in samples),
        instance=torch.from_numpy(np.stack([numbered(instance) for instance in instances])) if instances else None,
    )


def numbered(instance: np.ndarray) -> np.ndarray:
    """Instance ids (H,W), whatever numbers a data set gives them (Cityscapes: 26001), as 0, 1, 2, ... int64 in their order."""
    return np.unique(instance, return_inverse=True)[1].reshape(instance.shape).astype(np.int64)


def damaged_batch(batch: Batch, kind: NoiseKind, level: float, *, seed: int, unknown: int | None = None) -> Batch:
    """The batch with damaged labels and masks and untouched images (`label_noise.damaged`)."""
    classes = batch.mask.shape[1]
    maps = [
        damaged(one, kind, level, num_classes=classes, rng=noise_stream(seed, kind, key), unknown=unknown)
        for one, key in zip(batch.label.cpu().numpy(), batch.keys, strict=True)
    ]
    label = torch.from_numpy(np.stack(maps)).to(batch.label.device)
    return replace(batch, label=label, mask=one_hot(label, classes))

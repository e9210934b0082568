"""Agreement of a generator's class attention with the mask (paper: attention loss and attention maps).

A level's attention is the head-averaged, pre-softmax logit of every class at every pixel. Three questions: does the argmax
reproduce the mask (mIoU), how much probability leaks into other classes, and how undecided is it (entropy).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.metrics.accumulate import Contribution, Totals
from pipeline.metrics.segmentation import Confusion
from pipeline.models.conditioning import resize_nearest
from pipeline.models.head_maps import level_names


@dataclass
class AttentionAgreement:
    """Running sums over batches; nothing of the images is kept."""

    num_classes: int
    names: list[str] = field(default_factory=list)  # one a level; unless given: its height, "_2" where a height repeats
    confusions: list[Confusion] = field(default_factory=list)
    leakage: list[float] = field(default_factory=list)  # sums over images of per-image means
    entropy: list[float] = field(default_factory=list)
    images: int = 0

    def update(self, attention: list[Tensor], label: Tensor) -> None:
        """Add one batch: `attention` per level (N,K,h,w) float logits, `label` (N,H,W) int64."""
        if not attention:
            raise ValueError("attention agreement of a generator that returned no attention")
        if not self.confusions:
            self.names = self.names or level_names(logits.shape[-2] for logits in attention)
            self.confusions = [Confusion(self.num_classes) for _ in attention]
            self.leakage, self.entropy = [0.0] * len(attention), [0.0] * len(attention)
        for level, logits in enumerate(attention):
            target = nearest_label(label, logits.shape[-2], logits.shape[-1])
            classes = logits.permute(0, 2, 3, 1).argmax(dim=-1)  # a pixel's logits lie together
            self.confusions[level].update(classes, target)
            leak, entropy = leakage_and_entropy(logits, target)
            self.leakage[level] += float(leak.sum())
            self.entropy[level] += float(entropy.sum())
        self.images += int(label.shape[0])

    def contribution(self, prefix: str) -> Contribution:
        """The sums as arrays, for adding up over batches (see `of`)."""
        return {
            f"sum/{prefix}_confusion": np.stack([confusion.counts.numpy() for confusion in self.confusions]),
            f"sum/{prefix}_leakage": np.array(self.leakage),
            f"sum/{prefix}_entropy": np.array(self.entropy),
            f"sum/{prefix}_images": np.array(self.images),
            f"feat/{prefix}_levels": np.array(self.names),
        }

    @classmethod
    def of(cls, totals: Totals, prefix: str, num_classes: int) -> AttentionAgreement:
        """From added-up contributions."""
        names = [str(name) for name in totals.parts[f"feat/{prefix}_levels"][0]]
        return cls(
            num_classes,
            names=names,
            confusions=[Confusion.of(counts) for counts in totals.sums[f"sum/{prefix}_confusion"]],
            leakage=[float(value) for value in totals.sums[f"sum/{prefix}_leakage"]],
            entropy=[float(value) for value in totals.sums[f"sum/{prefix}_entropy"]],
            images=int(totals.sums[f"sum/{prefix}_images"]),
        )

    def values(self) -> dict[str, float]:
        """`attention_{miou,leakage,entropy}` as means over levels, and each with `_<level name>` appended."""
        if not self.images:
            return {}
        per_level = {
            "attention_miou": [confusion.mean_iou() for confusion in self.confusions],
            "attention_leakage": [value / self.images for value in self.leakage],
            "attention_entropy": [value / self.images for value in self.entropy],
        }
        result: dict[str, float] = {}
        for name, numbers in per_level.items():
            result[name] = sum(numbers) / len(numbers)
            result.update({f"{name}_{level}": value for level, value in zip(self.names, numbers, strict=True)})
        return result


def leakage_and_entropy(logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Per-image leakage and entropy of the softmax over classes.

    logits (N,K,h,w), label (N,h,w) int64. Leakage = mean over pixels of 1 - p(own class), in [0, 1]; entropy = mean over
    pixels of -sum p ln p / ln K, in [0, 1]. Both (N,) float64; lower is sharper.
    """
    log_p = F.log_softmax(logits.double(), dim=1)
    own = log_p.gather(1, label.unsqueeze(1)).exp().squeeze(1)
    classes = logits.shape[1]
    entropy = -(log_p.exp() * log_p).sum(dim=1) / math.log(classes) if classes > 1 else torch.zeros_like(own)
    return (1.0 - own).mean(dim=(1, 2)), entropy.mean(dim=(1, 2))


def nearest_label(label: Tensor, height: int, width: int) -> Tensor:
    """(N,H,W) int64 -> (N,height,width) int64, as the attention loss resizes the mask."""
    return resize_nearest(label.unsqueeze(1).to(torch.float32), (height, width)).squeeze(1).long()

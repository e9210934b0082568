"""The segmenter that judges images: trained by the project on the real training split, cached with its digest.

Its networks (`segmenter_networks`) are trained from scratch (`segmenter_training`), so no downloaded weights are needed. An
external TorchScript segmenter may be named instead.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.data.content import content_digest
from pipeline.data.label_spaces import LabelSpace
from pipeline.data.types import Dataset
from pipeline.errors import UserError
from pipeline.identity import file_digest
from pipeline.metrics.images import ImageBatch
from pipeline.metrics.segmenter_networks import build_network, class_logits, feature_width, pooled_features
from pipeline.metrics.segmenter_training import standardised, train_segmenter
from pipeline.progress import Progress
from pipeline.records import atomic
from pipeline.records.kept import kept_at
from pipeline.schema.evaluation import SegmenterConfig

VERSION = 3  # of architecture and training rule


@dataclass(frozen=True)
class Segmenter:
    """A segmenter ready to judge."""

    network: nn.Module
    digest: str  # of weights and architecture
    feature_width: int | None  # None for an external one
    device: torch.device
    record: dict[str, Any]  # how it was made
    feature_mean: Tensor | None = None  # (feature_width,) over the training images: features are standardised by it
    feature_std: Tensor | None = None

    def labels(self, images: ImageBatch) -> Tensor:
        """(N,H,W) int64: the most likely class of every pixel."""
        with torch.no_grad():
            logits = class_logits(self.network, self._input(images))
            return logits.permute(0, 2, 3, 1).argmax(dim=-1)  # a pixel's logits lie together

    def features(self, images: ImageBatch) -> NDArray[np.float32]:
        """(N, feature_width) float32: innermost features averaged over positions, standardised over the training images."""
        assert self.feature_mean is not None and self.feature_std is not None, "an external segmenter has no features"
        with torch.no_grad():
            pooled = pooled_features(self.network, self._input(images)).cpu()
        return standardised(pooled, self.feature_mean, self.feature_std).numpy()

    def _input(self, images: ImageBatch) -> Tensor:
        """Channels last, as `load` puts the weights: two thirds of the time on a CPU."""
        return images.signed().to(self.device).contiguous(memory_format=torch.channels_last)


def external_segmenter(path: Path, num_classes: int, device: torch.device) -> Segmenter:
    """A TorchScript file as segmenter. Raises UserError when it cannot be read or gives other than K logits a pixel."""
    try:
        network = torch.jit.load(str(path), map_location=device).eval()
        sha = file_digest(path)
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"segmenter.external = {path}: not a readable TorchScript file") from error
    with torch.no_grad():
        logits = class_logits(network, torch.zeros(1, 3, 64, 64, device=device))
    if tuple(logits.shape) != (1, num_classes, 64, 64):
        raise UserError(
            f"segmenter.external = {path}: gives {tuple(logits.shape)} for a 64x64 image, not (1, {num_classes}, 64, 64)"
        )
    return Segmenter(network, sha, None, device, {"external": path.name})


def trained_segmenter(
    cfg: SegmenterConfig, train: Dataset, device: torch.device, cache: Path | None, progress: Progress
) -> Segmenter:
    """The project's own segmenter for a data set: from the cache, or trained now and kept there.

    Two processes that want the same one do not train it twice: the second waits. The cache file holds tensors and plain types.
    """
    total, space = _learned_from(cfg, train), train.label_space
    if cache is None:
        return _ready(train_segmenter(cfg, train, total, device, progress), cfg, space, device)
    path = kept_segmenter(cfg, train, cache)
    if not path.exists():
        with atomic.patient_lock(path.with_suffix(".lock")):
            if not path.exists():
                trained = train_segmenter(cfg, train, total, device, progress)
                atomic.write_with(path, lambda file: torch.save(trained, file))
    return _ready(torch.load(path, map_location="cpu", weights_only=True), cfg, space, device)


def kept_segmenter(cfg: SegmenterConfig, train: Dataset, cache: Path) -> Path:
    """Where the own segmenter for a data set is kept, whether or not it is there: it follows from config, pixels and labels."""
    space = train.label_space
    depends_on = [
        VERSION, cfg.identity_values(), content_digest(train, _learned_from(cfg, train), cache), space.name,
        list(space.classes), [train.height, train.width],
    ]  # fmt: skip
    return kept_at(cache / "segmenter", depends_on, suffix=".pt")


def _learned_from(cfg: SegmenterConfig, train: Dataset) -> int:
    return len(train) if cfg.train_images is None else min(cfg.train_images, len(train))


def _ready(saved: dict[str, Any], cfg: SegmenterConfig, space: LabelSpace, device: torch.device) -> Segmenter:
    with torch.random.fork_rng(devices=[]):
        network = build_network(cfg, space.num_classes)
    network.load_state_dict(saved["state"])
    hasher = hashlib.sha256(cfg.architecture.encode())
    for name, tensor in sorted(saved["state"].items()):
        hasher.update(name.encode())
        hasher.update(tensor.contiguous().numpy().tobytes())
    width = feature_width(network)
    network = network.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)  # type: ignore[call-overload]
    weights_digest = hasher.hexdigest()
    return Segmenter(
        network, weights_digest, width, device, saved["record"], saved["feature_mean"], saved["feature_std"]
    )

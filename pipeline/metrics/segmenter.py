"""The segmenter that judges images: trained by the project on the real training split, cached with its digest.

Architectures: "unet", a compact U-Net for small images, and torchvision's DeepLabV3-ResNet50 for large ones, both from scratch,
so no downloaded weights are needed. An external TorchScript segmenter may be named instead.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.data.batch import collate
from pipeline.data.content import content_digest
from pipeline.data.label_spaces import LabelSpace
from pipeline.data.types import Dataset
from pipeline.errors import UserError
from pipeline.identity import file_digest
from pipeline.metrics.images import ImageBatch
from pipeline.models.norms import GroupNorm
from pipeline.progress import Progress
from pipeline.records import atomic
from pipeline.records.kept import kept_at
from pipeline.schema.evaluation import SegmenterConfig

VERSION = 2  # of architecture and training rule
# Loss weight of a class = frequency ** -CLASS_BALANCE: small parts of a face count, large ones still more.
CLASS_BALANCE = 0.5
CHANNEL_CAP = 4  # widest level of the U-Net in units of its first: keeps the features few enough for small sets


class UNet(nn.Module):
    """U-Net with group normalisation: (N,3,H,W) in [-1,1] -> logits (N,K,H,W); any size."""

    def __init__(self, num_classes: int, width: int, depth: int) -> None:
        super().__init__()
        channels = [min(2**level, CHANNEL_CAP) * width for level in range(depth + 1)]
        self.down = nn.ModuleList(_block(a, b) for a, b in zip([3, *channels[:-1]], channels, strict=True))
        self.up = nn.ModuleList(_block(a + b, b) for a, b in zip(channels[:0:-1], channels[-2::-1], strict=True))
        self.head = nn.Conv2d(channels[0], num_classes, 1)
        self.feature_width = channels[-1]

    def inner(self, x: Tensor) -> list[Tensor]:
        """Features of every level, finest first."""
        found: list[Tensor] = []
        for block in self.down:
            x = block(F.max_pool2d(x, 2, ceil_mode=True) if found else x)
            found.append(x)
        return found

    def forward(self, x: Tensor) -> Tensor:
        """Logits at the image's size."""
        levels = self.inner(x)
        x = levels.pop()
        for block in self.up:
            skip = levels.pop()
            x = block(torch.cat([F.interpolate(x, size=skip.shape[-2:], mode="nearest"), skip], dim=1))
        return self.head(x)


def _block(inputs: int, outputs: int) -> nn.Sequential:
    groups = next(g for g in (8, 4, 2, 1) if outputs % g == 0)
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), GroupNorm(groups, outputs), nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), GroupNorm(groups, outputs), nn.ReLU(),
    )  # fmt: skip


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
            logits = _logits(self.network, self._input(images))
            return logits.permute(0, 2, 3, 1).argmax(dim=-1)  # a pixel's logits lie together

    def features(self, images: ImageBatch) -> NDArray[np.float32]:
        """(N, feature_width) float32: innermost features averaged over positions, standardised over the training images."""
        assert self.feature_mean is not None and self.feature_std is not None, "an external segmenter has no features"
        with torch.no_grad():
            pooled = _pooled(self.network, self._input(images)).cpu()
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
        logits = _logits(network, torch.zeros(1, 3, 64, 64, device=device))
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
    total = len(train) if cfg.train_images is None else min(cfg.train_images, len(train))
    space = train.label_space
    if cache is None:
        return _ready(_train(cfg, train, total, device, progress), cfg, space, device)
    depends_on = [
        VERSION, cfg.identity_values(), content_digest(train, total, cache), space.name, list(space.classes),
        [train.height, train.width],
    ]  # fmt: skip
    path = kept_at(cache / "segmenter", depends_on, suffix=".pt")
    if not path.exists():
        with atomic.patient_lock(path.with_suffix(".lock")):
            if not path.exists():
                trained = _train(cfg, train, total, device, progress)
                atomic.write_with(path, lambda file: torch.save(trained, file))
    return _ready(torch.load(path, map_location="cpu", weights_only=True), cfg, space, device)


def build_network(cfg: SegmenterConfig, num_classes: int) -> nn.Module:
    """The untrained network a config names."""
    if cfg.architecture == "unet":
        return UNet(num_classes, cfg.width, cfg.depth)
    from torchvision.models.segmentation import deeplabv3_resnet50

    network: nn.Module = deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=num_classes)
    return network


def _train(
    cfg: SegmenterConfig, train: Dataset, total: int, device: torch.device, progress: Progress
) -> dict[str, Any]:
    """Adam with a one-cycle rate and a class-balanced loss; mirrored at random, left and right classes exchanged.

    A function of config and data alone.
    """
    space = train.label_space
    rng = np.random.default_rng(cfg.seed)
    mirror = torch.tensor(space.mirror_permutation, device=device)
    ignore = -100 if space.unknown is None else space.unknown
    with torch.enable_grad(), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(cfg.seed)
        network = build_network(cfg, space.num_classes).to(device).train()
        optimiser = torch.optim.Adam(network.parameters(), lr=cfg.lr)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, cfg.lr, total_steps=cfg.iterations + 1, pct_start=0.1)
        weight = _class_weights(train, total).to(device)
        progress.start("segmenter, once for all runs here:", cfg.iterations)
        order = np.empty(0, dtype=np.int64)
        for step in range(cfg.iterations):
            while len(order) < cfg.batch_size:
                order = np.concatenate([order, rng.permutation(total)])
            chosen, order = order[: cfg.batch_size], order[cfg.batch_size :]
            batch = collate([train[int(i)] for i in chosen], space.num_classes).to(device)
            image, label = batch.image, batch.label
            flipped = torch.from_numpy(rng.random(len(chosen)) < 0.5).to(device)
            image = torch.where(flipped.view(-1, 1, 1, 1), image.flip(-1), image)
            label = torch.where(flipped.view(-1, 1, 1), mirror[label].flip(-1), label)
            loss = F.cross_entropy(_logits(network, image), label, weight=weight, ignore_index=ignore)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            progress.update(step + 1, loss=float(loss.detach()))
        progress.stop()
    network.eval()
    pooled = []
    with torch.no_grad():
        for start in range(0, total, cfg.batch_size):
            items = [train[i] for i in range(start, min(start + cfg.batch_size, total))]
            pooled.append(_pooled(network, collate(items, space.num_classes).to(device).image).cpu())
    features = torch.cat(pooled)
    mean, std = standards(features)
    return {
        "state": network.cpu().state_dict(),
        "feature_mean": mean,
        "feature_std": std,
        "record": {"images": total, "final_loss": float(loss.detach())},
    }


def standards(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (d,) of feature rows (n,d); the latter at least 1e-6."""
    return features.mean(dim=0), features.std(dim=0, correction=0).clamp_min(1e-6)


def standardised(features: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Rows (n,d) at mean 0 and deviation 1 where `mean` and `std` (d,) are their own."""
    return (features - mean) / std


def _class_weights(train: Dataset, total: int) -> Tensor:
    """(K,) float32 loss weights, 1 on average over pixels; classes that do not occur get the weight of the rarest."""
    classes = train.label_space.num_classes
    counts = np.zeros(classes)
    for index in range(total):
        counts += np.bincount(train[index].label.reshape(-1), minlength=classes)
    frequency = counts / counts.sum()
    weight = np.maximum(frequency, frequency[frequency > 0].min()) ** -CLASS_BALANCE
    return torch.from_numpy(weight / (weight @ frequency)).float()


def _pooled(network: nn.Module, image: Tensor) -> Tensor:
    """(N, feature_width) innermost features averaged over positions, of either architecture."""
    if isinstance(network, UNet):
        inner = network.inner(image)[-1]
    else:
        backbone: Callable[[Tensor], dict[str, Tensor]] = network.get_submodule("backbone")
        inner = backbone(image)["out"]
    return inner.mean(dim=(2, 3))


def _ready(saved: dict[str, Any], cfg: SegmenterConfig, space: LabelSpace, device: torch.device) -> Segmenter:
    with torch.random.fork_rng(devices=[]):
        network = build_network(cfg, space.num_classes)
    network.load_state_dict(saved["state"])
    hasher = hashlib.sha256(cfg.architecture.encode())
    for name, tensor in sorted(saved["state"].items()):
        hasher.update(name.encode())
        hasher.update(tensor.contiguous().numpy().tobytes())
    width = network.feature_width if isinstance(network, UNet) else 2048
    network = network.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)  # type: ignore[call-overload]
    weights_digest = hasher.hexdigest()
    return Segmenter(
        network, weights_digest, width, device, saved["record"], saved["feature_mean"], saved["feature_std"]
    )


def _logits(network: nn.Module, image: Tensor) -> Tensor:
    found = network(image)
    return found["out"] if isinstance(found, dict) else found

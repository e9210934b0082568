"""How the project's own segmenter is trained: on the train split, watched on a part of it, until that gets no better.

The part comes from the train split because nothing else is sure to be free: many data sets publish two splits only, and validation
then is the test split. It is taken in stretches of neighbouring names, since neighbours may be frames of one video.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.data.batch import Batch, collate
from pipeline.data.types import Dataset
from pipeline.metrics.segmenter_networks import build_network, class_logits, pooled_features
from pipeline.metrics.skill import mean_iou, tallies
from pipeline.progress import Progress
from pipeline.schema.evaluation import AugmentationConfig, SegmenterConfig

# Loss weight of a class = frequency ** -CLASS_BALANCE: small parts of a face count, large ones still more.
CLASS_BALANCE = 0.5
STRETCHES = 4  # of names, at the end of each of which images are held back
LEAST_SHARE = 0.1  # of the root mean square of all deviations; from 0.01 to 0.3 distances move by 4 %
WARM_UP = 50  # updates over which the rate of a training with `stopping` rises to its constant value
STRETCHING = 0.1  # of augmentation: height against width, exp(u)
LOOK = 32  # images at once where nothing is learnt


@dataclass
class Watch:
    """The best of what was looked at so far; `patience` looks without one better by `gain` are the end."""

    patience: int
    gain: float
    best: float = -1.0
    at: int = 0
    mark: float = -1.0  # what has to be beaten by `gain`
    waited: int = 0  # looks since it was
    curve: list[tuple[int, float]] = field(default_factory=list)
    state: dict[str, Tensor] = field(default_factory=dict)

    def look(self, step: int, score: float, network: nn.Module) -> bool:
        """Note the score after `step` updates and keep the weights if it is the best. Returns whether to stop."""
        self.curve.append((step, score))
        if score > self.best:
            self.best, self.at = score, step
            self.state = {key: value.clone() for key, value in network.state_dict().items()}
        self.mark, self.waited = (score, 0) if score > self.mark + self.gain else (self.mark, self.waited + 1)
        return self.waited >= self.patience


def train_segmenter(
    cfg: SegmenterConfig, train: Dataset, total: int, device: torch.device, progress: Progress
) -> dict[str, Any]:
    """Weights, standards of the features and how they came about, as plain types and tensors on the CPU.

    A function of config and data alone. Adam and a class-balanced loss; images are mirrored at random, left and right classes
    exchanged. With `stopping` a constant rate and a running mean of the weights, without it one cycle of `iterations` updates.
    """
    space = train.label_space
    rng = np.random.default_rng(cfg.seed)
    mirror = torch.tensor(space.mirror_permutation, device=device)
    stopping = cfg.stopping
    learnt, held = (np.arange(total), np.arange(0)) if stopping is None else held_back(total, stopping.held_back)
    watch = Watch(stopping.patience, stopping.gain) if stopping is not None else Watch(0, 0.0)

    def batch_of(chosen: NDArray[np.int64]) -> Batch:
        return collate([train[int(i)] for i in chosen], space.num_classes).to(device)

    with torch.enable_grad(), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(cfg.seed)
        network = _built(cfg, space.num_classes, device)
        running = network
        if stopping is not None:
            running = _built(cfg, space.num_classes, device)
            running.load_state_dict(network.state_dict())
        optimiser = torch.optim.Adam(network.parameters(), lr=cfg.lr, fused=True)
        schedule = _schedule(cfg, optimiser)
        weight = class_weights(train, learnt).to(device)
        progress.start("segmenter, once for all runs here:", cfg.iterations)
        for step, chosen in enumerate(_batches(learnt, cfg.batch_size, cfg.iterations, rng), start=1):
            batch = batch_of(chosen)
            flipped = torch.from_numpy(rng.random(len(chosen)) < 0.5).to(device)
            image = torch.where(flipped.view(-1, 1, 1, 1), batch.image.flip(-1), batch.image)
            label = torch.where(flipped.view(-1, 1, 1), mirror[batch.label].flip(-1), batch.label)
            if cfg.augmentation is not None:
                image, label = augmented(image, label, cfg.augmentation, rng)
            logits = class_logits(network, image.contiguous(memory_format=torch.channels_last))
            loss = balanced_loss(logits, label, weight, space.unknown, cfg.dice)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            progress.update(step, loss=float(loss.detach()))
            if stopping is None:
                continue
            _follow(running, network, min(stopping.average, step / (step + 10)))
            if step % stopping.every == 0 or step == cfg.iterations:
                score = _score(running, held, batch_of, space.unknown)
                if watch.look(step, score, running):
                    break
        progress.stop()
    if stopping is not None:
        running.load_state_dict(watch.state)
        progress.say(
            f"segmenter: {step} updates, best after {watch.at}: mIoU {watch.best:.3f} on {len(held)} training photos held back"
        )
    mean, std = standards(_features(running.eval(), total, batch_of))
    return {
        "state": running.cpu().state_dict(),
        "feature_mean": mean,
        "feature_std": std,
        "record": {
            "images": total, "final_loss": float(loss.detach()), "updates": step, "best_at": watch.at or step,
            "held_back": len(held), "held_back_miou": [[at, value] for at, value in watch.curve],
        },
    }  # fmt: skip


def _built(cfg: SegmenterConfig, num_classes: int, device: torch.device) -> nn.Module:
    # Built twice rather than deep-copied: a deep copy of simulated tensors (tests without a GPU) corrupts memory.
    network = build_network(cfg, num_classes).train()
    moved: nn.Module = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return moved


def held_back(total: int, share: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Images to learn from and those to watch, of `total`: `share` of them, at least one, at the ends of equal stretches.

    A single image is both.
    """
    if total < 2:
        return np.arange(total), np.arange(total)
    count = min(max(1, round(total * share)), total - 1)
    stretches = min(STRETCHES, count, total // 2)
    ends = [(part + 1) * total // stretches for part in range(stretches)]
    shares = [(part + 1) * count // stretches - part * count // stretches for part in range(stretches)]
    held = np.concatenate([np.arange(end - wanted, end) for end, wanted in zip(ends, shares, strict=True)])
    return np.setdiff1d(np.arange(total), held), held


def class_weights(train: Dataset, indices: NDArray[np.int64]) -> Tensor:
    """(K,) float32 loss weights, 1 on average over labelled pixels; classes that do not occur get the weight of the rarest."""
    space = train.label_space
    counts = np.zeros(space.num_classes)
    for index in indices:
        counts += np.bincount(train[int(index)].label.reshape(-1), minlength=space.num_classes)
    if space.unknown is not None:
        counts[space.unknown] = 0
    if not counts.any():
        return torch.ones(space.num_classes)
    frequency = counts / counts.sum()
    weight = np.maximum(frequency, frequency[frequency > 0].min()) ** -CLASS_BALANCE
    return torch.from_numpy(weight / (weight @ frequency)).float()


def balanced_loss(logits: Tensor, label: Tensor, weight: Tensor, unknown: int | None, dice: float) -> Tensor:
    """Cross-entropy weighted by class, and `dice` times one minus soft Dice, averaged over the classes of the batch.

    logits (N,K,H,W), label (N,H,W), weight (K,); pixels of class `unknown` do not count, and a batch without others gives 0.
    """
    counted = torch.ones_like(label, dtype=torch.bool) if unknown is None else label != unknown
    each = F.cross_entropy(logits, label, weight=weight, reduction="none") * counted
    loss = each.sum() / (weight[label] * counted).sum().clamp_min(1e-12)
    if dice == 0:
        return loss
    truth = F.one_hot(label, logits.shape[1]).permute(0, 3, 1, 2) * counted.unsqueeze(1)
    found = logits.softmax(dim=1) * counted.unsqueeze(1)
    pixels = truth.sum(dim=(0, 2, 3))
    overlap = 2 * (found * truth).sum(dim=(0, 2, 3)) / (found.sum(dim=(0, 2, 3)) + pixels).clamp_min(1e-12)
    present = (pixels > 0).float()
    return loss + dice * ((1 - overlap) * present).sum() / present.sum().clamp_min(1.0)


def augmented(image: Tensor, label: Tensor, cfg: AugmentationConfig, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Images (N,3,H,W) in [-1,1] and labels (N,H,W), each zoomed and moved together, and the colours of images changed."""
    n = len(image)

    def drawn(bound: float, *shape: int) -> Tensor:
        return torch.from_numpy(rng.uniform(-bound, bound, (n, *shape))).to(image)

    if cfg.scale:
        zoom, stretch = drawn(cfg.scale).exp(), drawn(STRETCHING).exp()
        sides = torch.stack([zoom * stretch, zoom / stretch], dim=1)  # of what is seen, in sides of the image
        affine = torch.cat([torch.diag_embed(sides), (drawn(1.0, 2) * (1 - sides).abs()).unsqueeze(2)], dim=2)
        grid = F.affine_grid(affine, list(image.shape), align_corners=False)
        image = F.grid_sample(image, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
        turned = F.grid_sample(
            label.unsqueeze(1).float(), grid, mode="nearest", padding_mode="reflection", align_corners=False
        )
        label = turned.squeeze(1).round().long()
    if cfg.colour:
        image = (image + 1) * drawn(cfg.colour, 3, 1, 1).exp() - 1 + drawn(cfg.colour, 1, 1, 1)
        image = image.clamp(-1, 1)
    return image, label


def standards(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (d,) of feature rows (n,d); the latter at least 1e-6."""
    return features.mean(dim=0), features.std(dim=0, correction=0).clamp_min(1e-6)


def standardised(features: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Rows (n,d) at mean 0 and deviation 1 where `mean` and `std` (d,) are their own; less where a feature hardly varies.

    No deviation counts as less than `LEAST_SHARE` of their root mean square: after training half of the features are dead on real
    images, and one that stirs in a single generated image by a ten thousandth would be the whole distance.
    """
    return (features - mean) / torch.maximum(std, LEAST_SHARE * std.square().mean().sqrt())


def _batches(learnt: NDArray[np.int64], size: int, count: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """`count` batches of image numbers: shuffled epochs, end to end."""
    order = np.empty(0, dtype=np.int64)
    for _ in range(count):
        while len(order) < size:
            order = np.concatenate([order, learnt[rng.permutation(len(learnt))]])
        chosen, order = order[:size], order[size:]
        yield chosen


def _schedule(cfg: SegmenterConfig, optimiser: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
    if cfg.stopping is None:
        return torch.optim.lr_scheduler.OneCycleLR(optimiser, cfg.lr, total_steps=cfg.iterations + 1, pct_start=0.1)
    return torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: min(1.0, (step + 1) / WARM_UP))


@torch.no_grad()
def _follow(running: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the running mean of the weights towards the present ones; statistics of batch norm are taken as they are."""
    for mean, now in zip(running.parameters(), network.parameters(), strict=True):
        mean.lerp_(now, 1 - decay)
    for kept, seen in zip(running.buffers(), network.buffers(), strict=True):
        kept.copy_(seen)


@torch.no_grad()
def _score(
    network: nn.Module, held: NDArray[np.int64], batch_of: Callable[[NDArray[np.int64]], Batch], unknown: int | None
) -> float:
    """Mean IoU on the images held back."""
    network.eval()
    counts = 0
    for start in range(0, len(held), LOOK):
        batch = batch_of(held[start : start + LOOK])
        seen = class_logits(network, batch.image).argmax(dim=1)
        counts = counts + tallies(seen, batch.label, batch.mask.shape[1], unknown).sum(axis=0)
    return float(mean_iou(np.asarray(counts)))


@torch.no_grad()
def _features(network: nn.Module, total: int, batch_of: Callable[[NDArray[np.int64]], Batch]) -> Tensor:
    """(total, width) pooled features of the training images."""
    parts = [
        pooled_features(network, batch_of(np.arange(start, min(start + LOOK, total))).image).cpu()
        for start in range(0, total, LOOK)
    ]
    return torch.cat(parts)

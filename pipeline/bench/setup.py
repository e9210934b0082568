"""What is measured: a trainer and a batch as a run of the same overrides would have them, and the facts of the machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from pipeline import provenance
from pipeline.config import compose
from pipeline.data.batch import Batch
from pipeline.data.build import build_dataset
from pipeline.data.loader import batches
from pipeline.models.build import build_discriminator, build_generator
from pipeline.schema.run import RunConfig
from pipeline.training.devices import choose_device, device_name, set_numerics
from pipeline.training.trainer import Trainer

# A benchmark needs batches, not a data set or an account: few images of whatever data the overrides name, unless they say how many.
FEW_IMAGES = (
    "data.train_images=32",
    "data.val_images=8",
    "data.test_images=8",
    "data.cache=memory",
    "tracking.mode=disabled",
)
ENDLESS = 10**9  # updates a benchmark's trainer believes in: the learning rate stays constant


def configure(overrides: Sequence[str]) -> tuple[RunConfig, torch.device]:
    """Validated config of `overrides` on few images, and its device; sets torch's numerics as a run does."""
    cfg = compose([*FEW_IMAGES, *overrides])
    device = choose_device(cfg.device)
    set_numerics(cfg, device)
    return cfg, device


def prepare(cfg: RunConfig, device: torch.device, kind: type[Trainer] = Trainer) -> tuple[Trainer, Batch]:
    """Trainer with weights drawn from the seed, and the first training batch, on `device`.

    Parameters that start at zero (output projections of the transformer blocks) are drawn too: a block that adds nothing
    would hide how its two forms differ.
    """
    data = build_dataset(cfg.data, "train")
    classes = data.label_space.num_classes
    torch.manual_seed(cfg.seed)
    generator = build_generator(cfg.model, classes, cfg.data.hw)
    discriminator = build_discriminator(cfg.discriminator, classes, data.label_space.unknown)
    with torch.no_grad():
        for parameter in generator.parameters():
            if parameter.dim() > 1 and not bool(parameter.any()):
                nn.init.normal_(parameter, std=0.02)
    trainer = kind(cfg, generator, discriminator, iterations=ENDLESS, device=device)
    feed = batches(data, batch_size=cfg.train.batch_size, seed=0, epoch=0, augment=cfg.data.augment, workers=0)
    return trainer, next(iter(feed)).to(device)


def machine(device: torch.device) -> dict[str, Any]:
    """What numbers were made on."""
    return {
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "versions": provenance.versions(),
        "host": host(),
    }


def host() -> dict[str, Any]:
    """Processor, cores and memory; names of machines are nobody's business."""
    return {key: value for key, value in provenance.host_facts().items() if key in ("processor", "cores", "memory_gib")}

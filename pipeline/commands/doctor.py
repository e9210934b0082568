"""Is this installation sound? Versions, device, output folder, and one tiny forward pass of every family."""

from __future__ import annotations

import importlib.metadata
import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Finding:
    """One thing looked at."""

    what: str
    sound: bool
    text: str


def examine(out: Path) -> list[Finding]:
    """Look at everything; never raises for what it finds."""
    return [*_versions(), _folder(out), *_families()]


def _versions() -> list[Finding]:
    findings = []
    for name in (
        "torch",
        "torchvision",
        "hydra-core",
        "optuna",
        "pandas",
        "torchmetrics",
        "lpips",
        "clean-fid",
        "wandb",
    ):
        try:
            findings.append(Finding(name, True, importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            findings.append(Finding(name, False, "not installed"))
    return findings


def _folder(out: Path) -> Finding:
    parent = next(path for path in (out, *out.resolve().parents) if path.exists())
    writable = os.access(parent, os.W_OK)
    return Finding("output folder", writable, f"{out} {'can' if writable else 'cannot'} be written")


def _families() -> list[Finding]:
    import torch

    from pipeline.config import choices, compose
    from pipeline.data import build_dataset
    from pipeline.data.batch import collate
    from pipeline.models.build import build_generator

    device = "cuda: " + torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    findings = [Finding("device", True, device)]
    for family in choices("model"):
        config = compose([f"model={family}", "data.cache=none"])
        dataset = build_dataset(config.data, "val")
        batch = collate([dataset[0]], dataset.label_space.num_classes)
        generator = build_generator(config.model, dataset.label_space.num_classes, config.data.hw).eval()
        with torch.no_grad():
            image = generator.synthesize(batch.mask, generator.encode_style(batch.image, batch.mask)).image
        sound = image.shape == batch.image.shape and bool(torch.isfinite(image).all())
        findings.append(Finding(f"model {family}", sound, f"one image, {tuple(image.shape)}"))
    return findings

"""Is this installation sound? Versions, machine, output folder, weight files, and one tiny forward pass of every family."""

from __future__ import annotations

import importlib.metadata
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.provenance import host_facts
from pipeline.weights import check_all, how_to_get


@dataclass(frozen=True)
class Finding:
    """One thing looked at."""

    what: str
    state: Literal["ok", "absent", "PROBLEM"]  # absent: a file that not everybody needs
    text: str


def examine(out: Path) -> list[Finding]:
    """Look at everything; never raises for what it finds."""
    return [*_versions(), _folder(out), *_machine(), *_weights(), *_families()]


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
            findings.append(Finding(name, "ok", importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            findings.append(Finding(name, "PROBLEM", "not installed"))
    return findings


def _folder(out: Path) -> Finding:
    parent = next(path for path in (out, *out.resolve().parents) if path.exists())
    writable = os.access(parent, os.W_OK)
    return Finding(
        "output folder", "ok" if writable else "PROBLEM", f"{out} {'can' if writable else 'cannot'} be written"
    )


def _machine() -> list[Finding]:
    import torch

    host = host_facts()
    cpu = f"cpu: {host['processor']}, {host['cores']} cores for this process, {host['memory_gib']:g} GiB"
    # Devices of a driver that is too old are counted and cannot be asked.
    devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    cuda = [f"cuda: {torch.cuda.get_device_name(number)}" for number in range(devices)]
    return [Finding("device", "ok", text) for text in (*cuda, cpu)]


def _weights() -> list[Finding]:
    """What each file is for, what else that takes, and how to get the file where it is missing."""
    checks = check_all(None)
    findings = []
    for check in checks:
        file, what = check.file, f"weights {check.file.name}"
        users = ", ".join(file.used_by)
        others = [
            other.file.name
            for other in checks
            if other.state != "ok" and other.file is not file and set(other.file.used_by) & set(file.used_by)
        ]
        if check.state == "refused":
            findings.append(Finding(what, "PROBLEM", check.detail))
        elif check.state == "missing":
            findings.append(Finding(what, "absent", f"needed by {users}; {how_to_get(file)}"))
        else:
            lacking = f", which lack weights {', '.join(others)}" if others else ""
            findings.append(Finding(what, "ok", f"for {users}{lacking}"))
    return findings


def _families() -> list[Finding]:
    import torch

    from pipeline.config import choices, compose
    from pipeline.data import build_dataset
    from pipeline.data.batch import collate
    from pipeline.models.build import build_generator

    findings = []
    for family in choices("model"):
        config = compose([f"model={family}", "data.cache=none"])
        dataset = build_dataset(config.data, "val")
        batch = collate([dataset[0]], dataset.label_space.num_classes)
        generator = build_generator(config.model, dataset.label_space.num_classes, config.data.hw).eval()
        with torch.no_grad():
            image = generator.synthesize(batch.mask, generator.encode_style(batch.image, batch.mask)).image
        sound = image.shape == batch.image.shape and bool(torch.isfinite(image).all())
        findings.append(Finding(f"model {family}", "ok" if sound else "PROBLEM", f"one image, {tuple(image.shape)}"))
    return findings

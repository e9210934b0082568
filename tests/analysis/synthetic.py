"""Synthetic studies with known effects, written through the real run store.

value(arm, seed, image) = base + effect(arm) + seed effect + image effect + run noise(arm, seed) + residual(arm, seed,
image); the seed and image effects are shared by all arms, so that pairing helps, as it does in real studies. A run's
metric value is the mean over its images, to which the per-image file agrees.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd

from pipeline.identity import digest, identity_text
from pipeline.records import SCHEMA_VERSION, Arm, Cell, MetricRow, RunStore, StudyManifest, StudyMetric

PROTOCOL = "standard"
SPLIT = "val"


@dataclass(frozen=True)
class Metric:
    """A metric of the synthetic study: where it lies and how much each level of the model varies."""

    name: str
    direction: str = "max"
    unit: str = ""
    base: float = 20.0
    seed_std: float = 0.3
    image_std: float = 1.5
    run_std: float = 0.1
    residual_std: float = 0.3
    untrained: float | None = None  # value of the untrained state, where there is one
    role: str = "secondary"
    per_image: bool = True
    protocol: str = PROTOCOL


PSNR = Metric("psnr", "max", "dB", 20.0, untrained=8.0, role="primary")
SSIM = Metric("ssim", "max", "", 0.70, 0.01, 0.05, 0.005, 0.01)
RMSE = Metric("rmse", "min", "", 0.20, 0.005, 0.02, 0.002, 0.005)
AGREEMENT = Metric("attention_iou", "max", "", 0.40, 0.02, 0.1, 0.01, 0.02, per_image=False)
METRICS = (PSNR, SSIM, RMSE, AGREEMENT)


@dataclass(frozen=True)
class SyntheticArm:
    """One arm: its effects on metrics and whatever goes wrong with it."""

    name: str
    label: str = ""
    effects: Mapping[str, float] = field(default_factory=dict)  # metric -> shift of its mean
    reference: bool = False
    kind: str = "trained"  # trained | rule | released | imported
    levels: Mapping[str, str] = field(default_factory=dict)
    states: Mapping[int, str] = field(default_factory=dict)  # seed -> state other than "finished"
    unavailable: Mapping[str, str] = field(default_factory=dict)  # metric -> reason
    not_applicable: Mapping[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()  # metrics without a row
    images_seen: int = 6400
    provenance: Mapping[str, Any] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()
    model: Mapping[str, Any] = field(default_factory=dict)  # its model section; {}: one of its own
    measured_on: str = ""  # test images other than those of all arms


NO_ATTENTION = {"attention_iou": "the arm has no attention"}
TWO = (SyntheticArm("a", "A", reference=True), SyntheticArm("b", "B", {"psnr": 1.0}))
ARMS = (
    SyntheticArm("ca2sis", "CA²-SIS", reference=True, levels={"arm": "ca2sis"}),
    SyntheticArm(
        "no_attention_loss",
        "no attention loss",
        {"psnr": -0.2, "attention_iou": -0.25},
        levels={"arm": "no_attention_loss"},
    ),
    SyntheticArm(
        "spade_conditioning",
        "SPADE conditioning",
        {"psnr": -1.0, "ssim": -0.03, "rmse": 0.01},
        levels={"arm": "spade_conditioning"},
        not_applicable=NO_ATTENTION,
    ),
    SyntheticArm(
        "spade",
        "SPADE",
        {"psnr": -3.0, "ssim": -0.10, "rmse": 0.04},
        levels={"arm": "spade"},
        not_applicable=NO_ATTENTION,
    ),
    SyntheticArm(
        "painter",
        "region-mean painter",
        {"psnr": -2.0, "ssim": -0.15, "rmse": 0.05},
        kind="rule",
        levels={"arm": "painter"},
        not_applicable=NO_ATTENTION,
        images_seen=0,
    ),
)


def make_study(
    out: Path,
    *,
    name: str = "synthetic",
    arms: Sequence[SyntheticArm] = ARMS,
    seeds: Sequence[int] = (0, 1, 2),
    effects: Mapping[str, Mapping[str, float]] | None = None,
    metrics: Sequence[Metric] = METRICS,
    images: int = 12,
    seed: int = 0,
    per_image: bool = True,
    history: bool = True,
    costs: bool = True,
    question: str = "Which part of the synthetic model matters?",
    design: str = "one_at_a_time",
    budget: str = "equal",
    fingerprint: str = "",
) -> StudyManifest:
    """Write the study `name` below `out` (plan and records) and return its manifest.

    `effects` ({arm: {metric: shift}}) replaces the arms' own; `seed` drives the noise; `fingerprint` marks another
    metric version.
    """
    generator = np.random.default_rng(seed)
    store = RunStore(out / "runs")
    seed_effects = {metric.name: generator.normal(size=max(seeds) + 1 if seeds else 1) for metric in metrics}
    image_effects = {metric.name: generator.normal(size=images) for metric in metrics}
    cells = []
    with fast_files():
        for arm in arms:
            shifts = (effects or {}).get(arm.name, {}) if effects is not None else arm.effects
            for run_seed in seeds:
                config = {
                    "model": dict(arm.model) or {"family": arm.name, "levels": dict(arm.levels)},
                    "seed": run_seed,
                    "study_noise": seed,
                }
                data = arm.provenance.get("data", {"digest": "data-1"})
                text = identity_text(config, data, SCHEMA_VERSION)
                run_id = digest(text)
                overrides = ("preset=tiny", *(arm.overrides or (f"model={arm.name}",)), f"seed={run_seed}")
                cells.append(Cell(arm.name, run_seed, run_id, overrides, arm.images_seen))
                values = {
                    metric.name: metric.base
                    + shifts.get(metric.name, 0.0)
                    + metric.seed_std * seed_effects[metric.name][run_seed]
                    + metric.image_std * image_effects[metric.name]
                    + metric.run_std * generator.normal()
                    + metric.residual_std * generator.normal(size=images)
                    for metric in metrics
                }
                state = arm.states.get(run_seed, "finished")
                if state == "missing":
                    continue
                _write_run(
                    store, run_id, text, config, arm, state, metrics, values, per_image, history, costs, fingerprint
                )
        manifest = StudyManifest(
            name=name,
            question=question,
            revision=1,
            protocol=PROTOCOL,
            split=SPLIT,
            metrics=tuple(StudyMetric(item.name, item.role, item.direction) for item in metrics),  # type: ignore[arg-type]
            arms=tuple(
                Arm(
                    arm.name,
                    arm.label or arm.name,
                    dict(arm.levels),
                    tuple(arm.overrides or (f"model={arm.name}",)),
                    arm.reference,
                )
                for arm in arms
            ),
            cells=tuple(cells),
            seeds=tuple(seeds),
            design=design,
            budget=budget,
        )
        manifest.save(out / name)
    return manifest


def fingerprint_of(metric: str, suffix: str = "") -> str:
    """The protocol fingerprint that synthetic rows of a metric carry."""
    return digest(f"{metric}{suffix}")


def _write_run(
    store: RunStore,
    run_id: str,
    text: str,
    config: dict[str, Any],
    arm: SyntheticArm,
    state: str,
    metrics: Sequence[Metric],
    values: Mapping[str, np.ndarray],
    per_image: bool,
    history: bool,
    costs: bool,
    fingerprint: str,
) -> None:
    record = store.record(run_id)
    record.create(text, json.dumps(config, indent=1) + "\n")
    if state == "planned":
        return
    record.begin_attempt(arm.kind)
    record.update_provenance(
        **{
            "commit": "0123456789abcdef0123456789abcdef01234567",
            "dirty": False,
            "versions": {"python": "3.11.9", "torch": "2.15.0", "numpy": "2.4.6"},
            "device": "cpu",
            "host": "synthetic",
            "wall_seconds": 60.0,
            "device_seconds": 55.0,
            "params": 1_234_567,
            "flops_per_image": 2.5e8,
            "images_seen": arm.images_seen,
            "peak_mem_gib": 0.5,
            "data": {"digest": "data-1", "summary": "synthetic images"},
            "class_names": ["background", "skin"],
            **arm.provenance,
        }
    )
    if history:
        for iteration in range(0, 101, 20):
            record.log({"iteration": iteration, "kind": "train", "loss_g": 5.0 * 0.98**iteration, "loss_d": 1.0})
            record.log({"iteration": iteration, "kind": "val", "psnr": 20.0 - 12.0 * 0.97**iteration})
    reasons = {"failed": "out of memory", "diverged": "loss_g is NaN at iteration 40"}
    if state == "running":
        return
    record.end_attempt(state, reasons.get(state, ""))
    if state != "finished":
        return
    rows, frames = [], []
    for metric in metrics:
        common: dict[str, Any] = {
            "name": metric.name,
            "unit": metric.unit,
            "direction": metric.direction,
            "split": SPLIT,
            "protocol": metric.protocol,
            "fingerprint": fingerprint_of(metric.name, fingerprint + arm.measured_on),
        }
        if metric.name in arm.missing:
            continue
        if metric.name in arm.unavailable:
            rows.append(MetricRow(value=None, n=0, status="unavailable", reason=arm.unavailable[metric.name], **common))
            continue
        if metric.name in arm.not_applicable:
            rows.append(
                MetricRow(value=None, n=0, status="not_applicable", reason=arm.not_applicable[metric.name], **common)
            )
            continue
        sample = values[metric.name]
        rows.append(MetricRow(value=float(sample.mean()), n=len(sample), **common))
        if metric.untrained is not None and arm.kind == "trained":
            rows.append(MetricRow(value=metric.untrained, n=len(sample), state="untrained", **common))
        if metric.per_image and per_image:
            frames.append(
                pd.DataFrame(
                    {
                        "key": [f"image-{index:04d}" for index in range(len(sample))],
                        "metric": metric.name,
                        "value": sample,
                        "split": SPLIT,
                        "fingerprint": common["fingerprint"],
                    }
                )
            )
    if costs:
        rows += [
            _cost("params", 1_234_567.0, "", "none"),
            _cost("flops_per_image", 2.5e8, "FLOP", "min"),
            _cost("train_images_per_s", 106.7, "images/s", "max"),
            _cost("train_device_hours", 55.0 / 3600, "h", "min"),
        ]
    record.add_metrics(rows)
    if frames:
        record.add_per_image(pd.concat(frames, ignore_index=True))


def _cost(name: str, value: float, unit: str, direction: str) -> MetricRow:
    return MetricRow(name, value, 1, unit, direction, "", "", fingerprint_of(name))  # type: ignore[arg-type]


@contextlib.contextmanager
def fast_files() -> Iterator[None]:
    """Write files without fsync: thousands of synthetic records need no durability."""
    with mock.patch.object(os, "fsync", lambda _: None):
        yield

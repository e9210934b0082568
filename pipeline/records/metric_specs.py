"""The vocabulary of metrics: what every metric is, and the one home of its kind, unit, direction and version.

A change of a metric's arithmetic raises its version, so that old and new numbers cannot share a column. Names carry what is
easily confused: reconstruction LPIPS and diversity LPIPS are different metrics, `fd_seg` is not FID.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from pipeline.errors import UserError, nearest
from pipeline.identity import canonical_digest
from pipeline.records.rows import Direction

# score: how good; bound: a floor, a ceiling or the end of an interval of a score; cost: what using the network takes, measured by
# the metric group cost; training: what training took, measured by the run itself. Costs of both kinds are shown, never ranked.
Kind = Literal["score", "bound", "cost", "training"]
# Who reads the picture where a score rests on more than its pixels; `pipeline.records.judge` says whether it can.
Judge = Literal["", "segmenter"]


@dataclass(frozen=True)
class MetricSpec:
    """One metric; rows named `<name>_<suffix>` (a level, a class, a task) share the spec of `<name>`."""

    name: str
    kind: Kind
    unit: str
    direction: Direction  # which way is better; no study, plan or table may say otherwise
    version: int
    definition: str
    judge: Judge = ""

    @property
    def is_cost(self) -> bool:
        return self.kind in ("cost", "training")

    @property
    def cheaper(self) -> Direction:
        """Which way a cost is cheaper: as its direction says, and where it has none (parameters), less is."""
        return "min" if self.direction == "none" else self.direction


def _spec(
    name: str,
    unit: str,
    direction: Direction,
    definition: str,
    version: int = 1,
    kind: Kind = "score",
    judge: Judge = "",
) -> MetricSpec:
    return MetricSpec(name, kind, unit, direction, version, definition, judge)


_bound, _cost, _training = (partial(_spec, kind=kind) for kind in ("bound", "cost", "training"))
_judged = partial(_spec, judge="segmenter")


# fmt: off
_SPECS = (
    _spec("psnr", "dB", "max", "mean over images of 20 log10(1/RMSE), range 1, at most 100 dB"),
    _spec("ssim", "", "max", "mean over images; Wang 2004: Gaussian 11, sigma 1.5, K 0.01/0.03, range 1, valid windows"),
    _spec("ssim_range2", "", "max", "as ssim with data range 2 on [0,1] images: only beside numbers published that way"),
    _spec("rmse", "", "min", "mean over images of the root mean squared error, range 1"),
    _spec("haarpsi", "", "max",
          "mean over images; HaarPSI, Reisenhofer 2018: YIQ, halved, 3 scales, C 30, alpha 4.2, range 255, black outside"),
    _spec("lpips_recon_alex", "", "min", "LPIPS 0.1, AlexNet, output against target, signed range"),
    _spec("lpips_recon_vgg", "", "min", "LPIPS 0.1, VGG-16, output against target, signed range"),
    _spec("dists", "", "min", "DISTS, VGG-16 with L2 pooling, output against target, unit range, no resize"),
    _spec("fid", "", "min", "Frechet distance, float64 symmetric eigenvalues; clean-fid resize and Inception features"),
    _spec("kid_x1000", "", "min", "1000 x unbiased cubic-kernel MMD over seeded subsets; clean-fid features"),
    # version 1 divided by deviations of 1e-6 where a feature was dead on real images: one stray activation was the distance
    _judged("fd_seg", "", "min", "Frechet distance in standardised features of the project's own segmenter: not FID", version=2),
    _judged("kd_seg_x1000", "", "min", "1000 x cubic-kernel MMD in standardised features of the project's own segmenter: not KID",
            version=2),
    _bound("fid_floor", "", "none", "as fid between two halves of the real images: what zero looks like at this n"),
    _bound("fid_low", "", "none", "2.5 % quantile of fid over resampled generated images"),
    _bound("fid_high", "", "none", "97.5 % quantile of fid over resampled generated images"),
    _bound("kid_x1000_floor", "", "none", "as kid_x1000 between two halves of the real images"),
    _bound("fd_seg_floor", "", "none", "as fd_seg between two halves of the real images: what zero looks like at this n",
           version=2),
    _bound("fd_seg_low", "", "none", "2.5 % quantile of fd_seg over resampled generated images", version=2),
    _bound("fd_seg_high", "", "none", "97.5 % quantile of fd_seg over resampled generated images", version=2),
    _bound("kd_seg_x1000_floor", "", "none", "as kd_seg_x1000 between two halves of the real images", version=2),
    _judged("seg_miou", "", "max", "mean IoU of a segmenter on generated images over classes in the labels"),
    _bound("seg_miou_real", "", "none", "as seg_miou on the real images: the ceiling"),
    _judged("seg_accuracy", "", "max", "pixel accuracy of a segmenter on generated images"),
    _bound("seg_accuracy_real", "", "none", "as seg_accuracy on the real images: the ceiling"),
    _bound("seg_miou_floor", "", "none", "as seg_miou of the class most pixels have, everywhere: what knowing nothing gives"),
    _bound("seg_accuracy_floor", "", "none", "as seg_accuracy of the class most pixels have, everywhere"),
    _bound("seg_skill", "", "none", "(seg_miou_real - seg_miou_floor) / (1 - seg_miou_floor): whether the segmenter can judge"),
    _bound("seg_skill_low", "", "none", "2.5 % quantile of seg_skill over resampled images"),
    _judged("seg_iou", "", "max", "IoU of one class of a segmenter on generated images"),
    _bound("seg_iou_real", "", "none", "as seg_iou on the real images: the ceiling"),
    _judged("seg_miou_own", "", "max", "mean IoU of a segmenter on generated images with the layout the family drew itself"),
    _spec("layout_miou", "", "max", "mean IoU of the layout a family drew itself with the given mask, in the family's classes"),
    _spec("attention_miou", "", "max", "mean IoU of argmax attention with the nearest-resized mask, classes in the labels"),
    _spec("attention_leakage", "", "min", "mean probability outside the own class, softmax of head-averaged logits"),
    _spec("attention_entropy", "", "min", "mean entropy over ln K, softmax of head-averaged logits"),
    _spec("lpips_div_alex", "", "max", "mean LPIPS 0.1 AlexNet between samples of one layout"),
    _spec("pixel_div", "", "max", "mean RMSE between samples of one layout, range 1"),
    # Costs: what a reader pays at use comes first; figures prefer them in this order.
    _cost("flops_per_image", "FLOP", "min", "encode and synthesize one image; a multiply-add counts as 2"),
    _cost("params", "", "none", "number of generator parameters used in evaluation"),
    _cost("latency_ms", "ms", "min", "median wall time of encode and synthesize at batch 1"),
    _cost("inversion_s_per_image", "s", "min", "wall time of finding a photo's codes, at the protocol's batch size"),
    _cost("eval_images_per_s", "images/s", "max", "encode and synthesize at the protocol's batch size, first batch left out"),
    # version 1 also counted the process that had started it
    _cost("peak_mem_gib", "GiB", "min", "high-water mark of the process so far: resident (CPU) or allocated (CUDA)", 2),
    _training("train_images_per_s", "images/s", "max",
              "training images a second of the updates themselves; feeding, validating, saving apart"),
    _training("train_device_hours", "h", "min",
              "time of the updates themselves over all attempts; feeding, validating, saving apart"),
    # Editing tasks: rows are named `<spec>_<task>`.
    _spec("edit_psnr", "dB", "max", "PSNR of the edited image against the ground-truth edit"),
    _spec("edit_ssim", "", "max", "SSIM of the edited image against the ground-truth edit"),
    _spec("edit_lpips_alex", "", "min", "LPIPS 0.1 AlexNet of the edited image against the ground-truth edit"),
    _spec("edit_region_error", "", "min", "RMSE inside the edited region against the ground-truth edit, range 1"),
    _spec("edit_light_consistency", "", "max",
          "d_r/(d_t+d_r) in the region, d_t, d_r: RMSE to the edit under the target's, the reference's light"),
    _spec("edit_outside_change", "", "min", "RMSE between edit and own reconstruction outside the edited region, range 1"),
    _spec("edit_style_distance", "", "min",
          "RMS difference of colour means and deviations to the style's source, mean over the edited classes"),
    _judged("edit_mask_agreement", "", "max", "mean IoU of a segmenter on the edited image with the edited mask"),
    _spec("edit_smoothness", "", "max", "evenness of the steps of an interpolation: smallest step over largest"),
    # Robustness: rows are named `<spec>_<kind>`.
    _spec("robust_psnr", "dB", "max", "PSNR under mask noise of the given kind and level"),
    _spec("robust_ssim", "", "max", "SSIM under mask noise of the given kind and level"),
    _spec("robust_psnr_loss", "dB", "min", "PSNR with the clean mask minus that at the worst level of mask noise"),
    _spec("robust_ssim_loss", "", "min", "SSIM with the clean mask minus that at the worst level of mask noise"),
    _spec("robust_psnr_area", "dB", "max", "area under the PSNR curve over noise level, divided by its width"),
    _spec("robust_ssim_area", "", "max", "area under the SSIM curve over noise level, divided by its width"),
)
# fmt: on
SPECS: dict[str, MetricSpec] = {spec.name: spec for spec in _SPECS}


def find_spec(row_name: str) -> MetricSpec | None:
    """The spec behind a row name: the longest spec name that the row name equals or extends with `_<suffix>`.

    None for a name of other code: imported numbers, rows of a plug-in or of another version.
    """
    if row_name in SPECS:
        return SPECS[row_name]
    fitting = [name for name in SPECS if row_name.startswith(f"{name}_")]
    return SPECS[max(fitting, key=len)] if fitting else None


def spec_of(row_name: str) -> MetricSpec:
    """As `find_spec`; raises KeyError when no spec fits."""
    spec = find_spec(row_name)
    if spec is None:
        raise KeyError(f"no metric is called {row_name!r}")
    return spec


def is_cost(row_name: str) -> bool:
    """Whether a row says what something costs; names without a spec are scores."""
    spec = find_spec(row_name)
    return spec is not None and spec.is_cost


def direction_of(row_name: str, said: str) -> Direction:
    """Which way is better: as the spec says; what a plan or a row of other code `said`, where there is none."""
    spec = find_spec(row_name)
    if spec is not None:
        return spec.direction
    words: dict[str, Direction] = {"max": "max", "min": "min"}
    return words.get(said, "none")


def names_of(*kinds: Kind) -> tuple[str, ...]:
    """Names of the specs of these kinds, in the order of the vocabulary."""
    return tuple(spec.name for spec in SPECS.values() if spec.kind in kinds)


# Rows that describe the process a run was trained in: evaluating it later, in another process, does not change them.
OF_THE_TRAINING_PROCESS = (*names_of("training"), "peak_mem_gib")


def refuse_unknown_metrics(names: Iterable[str], where: str) -> None:
    """Raise UserError for a name that no metric row can have."""
    for name in names:
        if find_spec(name) is None:
            raise UserError(f"{where}: unknown metric {name!r}{nearest(name, list(SPECS))}")


def fingerprint_of(row_name: str, data: dict[str, Any], settings: dict[str, Any]) -> str:
    """Digest of definition, version, data measured on and settings: what makes two numbers the same measurement."""
    spec = spec_of(row_name)
    return canonical_digest(
        {"metric": row_name, "version": spec.version, "definition": spec.definition, "data": data, **settings}
    )


# What rows of kind "training" carried before they had specs. It named no hardware, which stands in the record's provenance.
_UNSPECIFIED_CLOCK = "training-clock-1"


def as_written_today(row: dict[str, Any], provenance: dict[str, Any]) -> dict[str, Any]:
    """A stored row with the fingerprint that the same measurement has now, so that old and new rows share a column."""
    if row.get("fingerprint") != _UNSPECIFIED_CLOCK:
        return row
    hardware, host = str(provenance.get("device", "")), provenance.get("host")
    if hardware.startswith("cpu") and isinstance(host, dict):
        hardware = f"cpu {host.get('processor', '')}"  # as pipeline.metrics.cost.hardware says it
    return {**row, "fingerprint": fingerprint_of(str(row["name"]), {}, {"hardware": hardware})}

"""Which metric rows an evaluation can give, known before anything runs: from the protocol, the data and the model's section.

A metric that no run of a study or sweep can have makes its work worthless; plans ask here and refuse.
"""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.schema.base import ModelSection
from pipeline.schema.evaluation import PROTOCOLS, EditTask, MetricGroup, ProtocolConfig
from pipeline.schema.families import family_of, family_spec
from pipeline.schema.run import RunConfig

# Group -> the metrics it measures; rows are named by them, or extend them by a task, kind, level or class.
MEASURED: dict[MetricGroup, tuple[str, ...]] = {
    "reconstruction": ("psnr", "ssim", "ssim_range2", "rmse"),
    "perceptual": ("haarpsi", "lpips_recon_alex", "lpips_recon_vgg", "dists"),
    "attention": ("attention_miou", "attention_leakage", "attention_entropy"),
    "cost": ("params", "flops_per_image", "latency_ms", "inversion_s_per_image", "eval_images_per_s", "peak_mem_gib"),
    "semantic": (
        *(f"seg_{name}{end}" for name in ("miou", "accuracy", "iou") for end in ("", "_real")),
        *("seg_miou_floor", "seg_accuracy_floor", "seg_skill", "seg_skill_low"),
        *("seg_miou_own", "layout_miou"),
    ),
    "distribution": tuple(
        f"{name}{end}"
        for name, ends in (
            ("fid", ("", "_floor", "_low", "_high")),
            ("kid_x1000", ("", "_floor")),
            ("fd_seg", ("", "_floor", "_low", "_high")),
            ("kd_seg_x1000", ("", "_floor")),
        )
        for end in ends
    ),
    "diversity": ("lpips_div_alex", "pixel_div"),
    "editing": tuple(
        f"edit_{name}"
        for name in (
            "psnr", "ssim", "lpips_alex", "region_error", "light_consistency", "outside_change", "style_distance",
            "mask_agreement", "smoothness",
        )
    ),
    "robustness": tuple(f"robust_{name}{end}" for name in ("psnr", "ssim") for end in ("", "_loss", "_area")),
}  # fmt: skip
# What these groups measure is the network's own; pictures that other code has made have none of it.
OF_THE_NETWORK: tuple[MetricGroup, ...] = ("attention", "cost", "diversity", "robustness")
BY_TRAINING = ("train_images_per_s", "train_device_hours")  # the run itself measures them
OF_NO_SPLIT = (*MEASURED["cost"], *BY_TRAINING)

_STYLE_MOVES: tuple[EditTask, ...] = ("style_transfer", "style_and_shape_transfer")
_TRUE_EDITS: tuple[EditTask, ...] = (
    *_STYLE_MOVES, "reconstruct", "shape_transfer", "absent_style", "global_style_transfer", "style_interpolation",
)  # fmt: skip
_LOCAL: tuple[EditTask, ...] = (*_STYLE_MOVES, "shape_transfer", "absent_style", "style_interpolation")
# Edit metric -> tasks of which it says something; the others take any task.
_TASKS: dict[str, tuple[EditTask, ...]] = {
    **dict.fromkeys(("psnr", "ssim", "lpips_alex", "region_error"), _TRUE_EDITS),
    "light_consistency": _STYLE_MOVES,
    "outside_change": _LOCAL,
    "style_distance": (*_LOCAL, "reconstruct", "global_style_transfer"),
    "smoothness": ("style_interpolation", "shape_interpolation"),
}
_OF_INVERSION = ("inversion_s_per_image", "seg_miou_own", "layout_miou")
_NEEDS_TRUTH = ("psnr", "ssim", "lpips_alex", "region_error", "light_consistency")


NOT_HERE = "made by other code: only its pictures are here"


def why_not(row_name: str, config: RunConfig, split: str) -> str:
    """Why no run of `config` can have a value of a metric row on `split`; "" where it can, or the name is not known here."""
    if row_name in BY_TRAINING:
        family = family_of(config.model)
        if _only_pictures(config):
            return NOT_HERE
        return "" if family_spec(family).learned else f"{family} is a rule: nothing is trained"
    group, name = _measuring(row_name)
    if _only_pictures(config) and group in OF_THE_NETWORK:
        return NOT_HERE
    return left_out(row_name, config.protocol, split) or _of_run(name, config)


def cannot_start(config: RunConfig) -> str:
    """Why every run of `config` would end before its first update, as far as can be known without building it; "" where none."""
    if isinstance(config.model, ModelSection) and config.loss.attention.enabled and not config.model.has_attention:
        return "loss.attention is on, but this model has no attention maps; add loss.attention.kind=off"
    return ""


def left_out(row_name: str, protocol: ProtocolConfig, split: str) -> str:
    """Why an evaluation under `protocol` gives no metric row of this name on `split`; "" where it may."""
    group, name = _measuring(row_name)
    if group is None:
        return ""
    if group not in protocol.groups:
        return f"protocol {protocol.name} does not measure the group {group}"
    if name not in OF_NO_SPLIT and split != protocol.split:
        return f"protocol {protocol.name} measures split {protocol.split}, not {split}"
    return _of_protocol(name, row_name, protocol)


def measured_under(row_names: Iterable[str], config: RunConfig, split: str) -> list[str]:
    """Names of the shipped protocols of `split` under which a run of `config` has every one of the rows."""
    names = tuple(row_names)
    shipped = map(PROTOCOLS.load, PROTOCOLS.names())
    return [
        protocol.name
        for protocol in shipped
        if protocol.split == split and not any(why_not(name, _under(config, protocol), split) for name in names)
    ]


def advice(row_names: Iterable[str], configs: Iterable[RunConfig], split: str) -> str:
    """How to have all the rows measured in one of the configs: another protocol, or more groups; "" where nothing helps."""
    names = tuple(row_names)
    for config in configs:
        fitting = measured_under(names, config, split)
        if fitting:
            return f"; measured under protocol {' or '.join(fitting)}"
        groups = (*config.protocol.groups, *(group for group in map(_group, names) if group is not None))
        wider = config.protocol.model_copy(update={"groups": tuple(dict.fromkeys(groups))})
        if not any(why_not(name, _under(config, wider), split) for name in names):
            return f"; add protocol.groups=[{','.join(wider.groups)}] to base"
    return ""


def _under(config: RunConfig, protocol: ProtocolConfig) -> RunConfig:
    return config.model_copy(update={"protocol": protocol})


def _group(row_name: str) -> MetricGroup | None:
    return _measuring(row_name)[0]


def _measuring(row_name: str) -> tuple[MetricGroup | None, str]:
    """The group that measures a row, and the metric it is named by: the longest that fits."""
    fitting = [
        (group, name)
        for group, names in MEASURED.items()
        for name in names
        if row_name == name or row_name.startswith(f"{name}_")
    ]
    return max(fitting, key=lambda item: len(item[1]), default=(None, ""))


def _of_protocol(name: str, row_name: str, protocol: ProtocolConfig) -> str:
    """What the settings of a protocol that has the group leave out."""
    said = f"protocol {protocol.name}"
    rest = row_name.removeprefix(name).removeprefix("_")
    distribution = protocol.distribution
    if name == "ssim_range2" and not protocol.ssim_range2:
        return f"{said} leaves ssim_range2 out"
    if name.startswith(("fid", "kid", "fd_seg", "kd_seg")):
        wanted = "inception" if name.startswith(("fid", "kid")) else "segmenter"
        if wanted not in distribution.features:
            return f"{said} has no features of {wanted}"
        if name.endswith("_floor") and not distribution.floor:
            return f"{said} measures no floors"
        if name.endswith(("_low", "_high")) and not distribution.bootstrap:
            return f"{said} measures no intervals (bootstrap 0)"
    if name.startswith("edit_"):
        return _of_editing(name.removeprefix("edit_"), rest, protocol)
    if name.startswith("robust_"):
        kinds: tuple[str, ...] = protocol.robustness.kinds
        levels = [f"{level:g}" for level in (0.0, *protocol.robustness.levels)]
        points = [f"{kind}_{level}" for kind in kinds for level in levels]
        known = ["", *kinds] if name.endswith("_area") else list(kinds) if name.endswith("_loss") else points
        return (
            "" if rest in known else f"{said} measures mask noise of {', '.join(kinds)} at levels {', '.join(levels)}"
        )
    return ""


def _of_editing(metric: str, task: str, protocol: ProtocolConfig) -> str:
    if task not in protocol.editing.tasks:
        tasks = ", ".join(protocol.editing.tasks)
        return f"protocol {protocol.name} edits by {tasks}" + ("" if task else ": name one, as in edit_psnr_TASK")
    if metric in _TASKS and task not in _TASKS[metric]:
        return f"{metric} says nothing of {task}"
    if metric == "mask_agreement" and "semantic" not in protocol.groups:
        return f"protocol {protocol.name} has no segmenter (group semantic)"
    return ""


def _only_pictures(config: RunConfig) -> bool:
    return isinstance(config.model, ModelSection) and config.model.only_pictures


def _of_run(name: str, config: RunConfig) -> str:
    """What data and model leave out."""
    if name.removeprefix("edit_") in _NEEDS_TRUTH and name.startswith("edit_") and config.data.name != "procfaces":
        return f"data {config.data.name} have no true edits to compare with"
    if isinstance(config.model, ModelSection):
        family = family_of(config.model)
        if name.startswith("attention_") and not config.model.has_attention:
            return f"{family}, as configured, has no attention maps"
        if name in MEASURED["diversity"] and not config.model.samples:
            return f"{family}, as configured, does not sample styles"
        if name in _OF_INVERSION and not family_spec(family).inverts:
            return f"{family} takes no photo in by inversion and draws no layout of its own"
    return ""

"""Accuracy of every normalisation and of every fused or folded kernel: float32 against float64, in value and gradient.

An error is the largest absolute difference of a tensor, over the largest absolute value of the exact one (over several draws
where a single number, the sum of terms that cancel, may come out near zero). What a kernel is held
to is the best float32 form: the smallest error, on the same input, of torch's own operator on contiguous tensors and of the
formula as it is written down.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.bench.setup import machine
from pipeline.errors import UserError

Form = Callable[..., Tensor]  # (module, *inputs) -> result

CONSTANT = math.inf  # mean over standard deviation of an input that does not vary
ALLOWED = 4.0  # times the error of the best float32 form
# Below this nothing is asked: one unit in the last place of the largest value. A form may hit by luck.
UNIT = {"float32": 2.0**-23, "bf16": 2.0**-7}
NOTHING = 1e-9  # an exact tensor below this is zero; errors are absolute then
SEED = 20


@dataclass(frozen=True)
class Setting:
    """One input of a kernel."""

    ratio: float = 0.0  # mean over standard deviation
    gain: float = 1.0  # of the weights, over those at initialisation
    layout: str = "contiguous"  # or "channels-last"
    side: int = 16  # of a map; a kernel on tokens or rows has side^2 of them
    batch: int = 1
    precision: str = "float32"  # or "bf16": autocast, on inputs that bfloat16 holds exactly

    def noisy(self, *shape: int) -> Tensor:
        """Standard normal values around the mean, float32; a constant input is 900."""
        if self.ratio == CONSTANT:
            return torch.full(shape, 900.0)
        return torch.randn(*shape) + self.ratio


@dataclass(frozen=True)
class Axes:
    """The inputs of a kernel: every combination of these."""

    ratios: tuple[float, ...] = (0.0,)
    gains: tuple[float, ...] = (1.0,)
    layouts: tuple[str, ...] = ("contiguous",)
    sides: tuple[int, ...] = (4, 16, 64)
    batches: tuple[int, ...] = (1, 4)
    precisions: tuple[str, ...] = ("float32", "bf16")

    def settings(self, sides: Collection[int]) -> Iterator[Setting]:
        """Every input, at those of the sides that are asked for."""
        axes = (self.precisions, self.layouts, self.ratios, self.gains, self.batches, self.sides)
        for precision, layout, ratio, gain, batch, side in itertools.product(*axes):
            if side in sides:
                yield Setting(ratio, gain, layout, side, batch, precision)


@dataclass(frozen=True)
class Kernel:
    """What is held to float64: a computation with its weights, its inputs, and the forms it is compared with."""

    name: str
    build: Callable[[Setting], nn.Module]
    draw: Callable[[Setting], list[Tensor]]
    ours: Form
    best: tuple[Form, ...]  # run on contiguous tensors; the first is the exact one, in float64
    before: Form | None = None  # what ours has replaced
    axes: Axes = Axes()
    gradient: bool = True
    draws: int = 1  # inputs whose worst error counts: several where one softmax near a tie, or one scalar, decides


@dataclass(frozen=True)
class Errors:
    """Of a value and of the worst of its gradients, with respect to all inputs and parameters."""

    value: float
    gradient: float


@dataclass(frozen=True)
class Outcome:
    """Errors of the forms on one input."""

    ours: Errors
    best: Errors  # of each, the smallest among the best forms
    before: Errors | None
    unit: float

    def excess(self) -> float:
        """The larger of ours / allowed, of value and gradient: at most 1 where the kernel does what is asked."""
        return max(
            ours / (ALLOWED * max(best, self.unit))
            for ours, best in ((self.ours.value, self.best.value), (self.ours.gradient, self.best.gradient))
        )


def measure(kernel: Kernel, setting: Setting) -> Outcome:
    """Errors of `kernel` on inputs drawn from seeds."""
    found = [_measured(kernel, setting, SEED + draw) for draw in range(kernel.draws)]
    peaks = [max(values) for values in zip(*(peaks for peaks, _ in found), strict=True)]  # of each tensor
    ours, *others = (_errors(forms, peaks) for forms in zip(*(forms for _, forms in found), strict=True))
    best = others[: len(kernel.best)]
    return Outcome(
        ours,
        Errors(min(errors.value for errors in best), min(errors.gradient for errors in best)),
        others[-1] if kernel.before is not None else None,
        UNIT[setting.precision],
    )


Distances = list[float]  # largest absolute difference of a form's value and of each of its gradients


def _measured(kernel: Kernel, setting: Setting, seed: int) -> tuple[Distances, list[Distances]]:
    """Largest exact values on one input, and distances to them of ours, of the best forms, and of what was before."""
    torch.manual_seed(seed)
    module = kernel.build(setting)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() > 1:  # matrices and kernels; shifts and scales of norms stay
                parameter.mul_(setting.gain)
    inputs = kernel.draw(setting)
    if setting.precision == "bf16":
        inputs = [x.bfloat16() if x.is_floating_point() else x for x in inputs]
    wide = [x.double() if x.is_floating_point() else x for x in inputs]
    exact = _results(kernel, kernel.best[0], copy.deepcopy(module).double(), wide, "contiguous")

    def distances(form: Form, layout: str) -> Distances:
        with torch.autocast("cpu", torch.bfloat16) if setting.precision == "bf16" else nullcontext():
            found = _results(kernel, form, module, [_laid_out(x, layout) for x in inputs], layout)
        return [(one.double() - other).abs().max().item() for one, other in zip(found, exact, strict=True)]

    return [x.abs().max().item() for x in exact], [
        distances(kernel.ours, setting.layout),
        *(distances(form, "contiguous") for form in kernel.best),
        *([distances(kernel.before, setting.layout)] if kernel.before is not None else []),
    ]


def _errors(draws: Sequence[Distances], peaks: Distances) -> Errors:
    """Worst of the draws, relative to the largest exact value among them, absolute where that is zero."""
    worst = [max(values) if all(map(math.isfinite, values)) else math.inf for values in zip(*draws, strict=True)]
    value, *gradients = (far / peak if peak > NOTHING else far for far, peak in zip(worst, peaks, strict=True))
    return Errors(value, max(gradients, default=0.0))


def table(kernels: Sequence[Kernel], sides: Sequence[int], progress: Callable[[str], None]) -> dict[str, Any]:
    """Worst errors over sides and batch sizes, a row for each kernel, precision, layout and kind of input."""
    rows: list[dict[str, Any]] = []
    for kernel in kernels:
        progress(kernel.name)
        found: dict[tuple[str, str, str], list[Outcome]] = {}
        for setting in kernel.axes.settings(sides):
            key = (setting.precision, setting.layout, _kind(kernel, setting))
            found.setdefault(key, []).append(measure(kernel, setting))
        for (precision, layout, kind), outcomes in found.items():
            row = {"kernel": kernel.name, "precision": precision, "layout": layout, "input": kind}
            rows.append({**row, **_worst(outcomes)})
    if not rows:
        taken = sorted({side for kernel in kernels for side in kernel.axes.sides})
        raise UserError(f"--sides {' '.join(map(str, sides))}: these kernels take {', '.join(map(str, taken))}")
    return {
        "benchmark": "accuracy",
        "worst_share_of_allowed": max(row["share_of_allowed"] for row in rows),
        "rows": rows,
        **machine(torch.device("cpu")),
    }


def _worst(outcomes: list[Outcome]) -> dict[str, float | None]:
    def largest(form: str, what: str) -> float | None:
        found = [getattr(outcome, form) for outcome in outcomes]
        return None if found[0] is None else max(getattr(errors, what) for errors in found)

    row = {
        f"{what}_{form}": largest(form, what) for what in ("value", "gradient") for form in ("best", "before", "ours")
    }
    return {**row, "share_of_allowed": max(outcome.excess() for outcome in outcomes)}


def _kind(kernel: Kernel, setting: Setting) -> str:
    parts = [] if kernel.axes.ratios == (0.0,) else ["constant" if setting.ratio == CONSTANT else f"{setting.ratio:g}"]
    parts += [] if kernel.axes.gains == (1.0,) else [f"weights x{setting.gain:g}"]
    return ", ".join(parts) or "0"


def _results(kernel: Kernel, form: Form, module: nn.Module, inputs: list[Tensor], layout: str) -> list[Tensor]:
    """Value, and gradients of a scalar in which every element counts differently."""
    module = copy.deepcopy(module)  # running statistics change
    if not kernel.gradient:
        with torch.no_grad():
            return [form(module, *inputs)]
    leaves = [x.detach().requires_grad_() if x.is_floating_point() else x for x in inputs]
    value = form(module, *leaves)
    sources = [x for x in (*leaves, *module.parameters()) if x.requires_grad]
    cotangent = _laid_out(_cotangent(value), layout)
    return [value.detach(), *torch.autograd.grad(value, sources, cotangent)]


def _cotangent(value: Tensor) -> Tensor:
    """Of the shape and kind of `value`, the same numbers each time; bfloat16 holds them exactly."""
    generator = torch.Generator().manual_seed(SEED - 1)  # not the draw of any input: a gradient along it would vanish
    return torch.randn(value.shape, generator=generator).bfloat16().to(value.dtype)


def _laid_out(x: Tensor, layout: str) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last) if layout == "channels-last" and x.dim() == 4 else x

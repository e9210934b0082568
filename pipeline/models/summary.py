"""The assembled network as a table: part, output shape, parameters, FLOPs; it shows what a switch did.

Works for every family. The pass runs on shapes alone (meta device), so that the paper's network takes no memory or
time. FLOPs are those of convolutions, matrix products and attention, two per multiply-add (torch's counter); norms,
activations and resizing are left out. They are those of the network as it is written down; what the fast kernels
save by multiplying matrices together first is not taken off.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.hooks import RemovableHandle

from pipeline.models.contract import Generator
from pipeline.models.kernels import plain_kernels

COLUMNS = ("part", "output", "parameters", "MFLOPs")
_CONTAINERS = (nn.ModuleList, nn.ModuleDict)


@dataclass(frozen=True)
class PartRow:
    """One row of the table."""

    part: str  # dotted module name
    output: tuple[int, ...] | None  # shape at batch 1; None: no output of its own
    parameters: int
    flops: int  # for one image


@dataclass(frozen=True)
class NetworkSummary:
    """All rows, and the totals of the network."""

    rows: tuple[PartRow, ...]
    parameters: int
    flops: int  # of one reconstruction: encode the style of one image, synthesise it, with attention logits
    notes: tuple[str, ...]  # what a reader of the numbers must know, for instance an achieved parameter ratio


def summarise(generator: Generator, size: tuple[int, int], *, depth: int = 2) -> NetworkSummary:
    """Summary of `generator` at `size` (height, width), batch 1.

    Parts are modules `depth` levels below the generator, lists not counted as a level. Parts that only draw styles (a
    mapping network) are run as well; their FLOPs stand in their rows, not in the total.
    """
    network = copy.deepcopy(generator).to("meta").eval()
    parts = dict(_parts(network, "", depth))
    outputs: dict[str, tuple[int, ...] | None] = dict.fromkeys(parts)
    flops = dict.fromkeys(parts, 0)
    counter = FlopCounterMode(display=False)
    handles: list[RemovableHandle] = []
    started: dict[str, int] = {}

    def before(name: str, _module: nn.Module, _inputs: Any) -> None:
        started[name] = counter.get_total_flops()

    def after(name: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
        flops[name] += counter.get_total_flops() - started[name]
        outputs[name] = _shape(output)

    for name, module in parts.items():
        handles.append(module.register_forward_pre_hook(partial(before, name)))
        handles.append(module.register_forward_hook(partial(after, name)))
    image = torch.zeros(1, 3, *size, device="meta")
    mask = torch.zeros(1, generator.num_classes, *size, device="meta")
    with torch.no_grad(), plain_kernels(), counter:
        network(image, mask, attention=generator.capabilities.attention)
        total = counter.get_total_flops()
        if generator.capabilities.sampling:
            network.sample_style(mask, torch.zeros(1, generator.capabilities.noise_width, device="meta"))
    for handle in handles:
        handle.remove()
    ordered = [*started, *(name for name in parts if name not in started)]  # as they ran
    rows = tuple(PartRow(name, outputs[name], _count(parts[name]), flops[name]) for name in ordered)
    loose = counter.get_total_flops() - sum(row.flops for row in rows)  # for instance the means inside the masks
    shared = _count(network) - sum(row.parameters for row in rows)  # for instance latents that a network starts from
    if loose or shared:
        rows += (PartRow("(between parts)", None, shared, loose),)
    return NetworkSummary(rows, _count(network), total, _notes(generator))


def as_texts(summary: NetworkSummary) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Columns and lines of the table, the total last: parameters in full, FLOPs in millions."""
    lines = [(row.part, row.output, row.parameters, row.flops) for row in summary.rows]
    lines.append(("total", None, summary.parameters, summary.flops))
    return COLUMNS, [
        (part, "x".join(map(str, output or ())), f"{parameters:,}", f"{flops / 1e6:,.2f}")
        for part, output, parameters, flops in lines
    ]


def _parts(module: nn.Module, prefix: str, depth: int) -> list[tuple[str, nn.Module]]:
    """Named modules `depth` levels down (containers are looked through); modules without children end early."""
    found: list[tuple[str, nn.Module]] = []
    for name, child in module.named_children():
        path = f"{prefix}{name}"
        if isinstance(child, _CONTAINERS):
            found += _parts(child, f"{path}.", depth)
        elif depth > 1 and any(_count(grandchild) for grandchild in child.children()):
            found += _parts(child, f"{path}.", depth - 1)
        elif _count(child):
            found.append((path, child))
    return found


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _shape(output: Any) -> tuple[int, ...] | None:
    """Shape of the first tensor in a module's output."""
    if isinstance(output, Tensor):
        return tuple(output.shape)
    if isinstance(output, tuple | list) and output:
        return _shape(output[0])
    return None


def _notes(generator: Generator) -> tuple[str, ...]:
    notes = []
    for name, module in generator.named_modules():
        ratio = module.__dict__.get("parameter_ratio")
        if ratio is not None and ratio != 1.0:
            notes.append(f"{name}: parameter count is {ratio:.4f} of the grouped form's")
    return tuple(notes)

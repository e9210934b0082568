"""A training step, part by part: each part run alone on the inputs it has inside the step."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pipeline.bench.setup import configure, machine, prepare
from pipeline.bench.shares import step_shares
from pipeline.data.batch import Batch
from pipeline.data.speed import feeding_speed
from pipeline.metrics.cost import now, peak_memory_gib, resident_gib
from pipeline.models.contract import Generator, GeneratorPass, Synthesis
from pipeline.models.discriminator import discriminate, judge
from pipeline.progress import LongStep
from pipeline.schema.run import RunConfig
from pipeline.training.allocator import keep_freed_memory, return_freed_memory
from pipeline.training.trainer import Trainer

EXPANDED = ("trunk",)  # containers of the baselines whose blocks are parts of their own
SIDE = 2048  # of the matrices whose product gives the device's peak


def step_parts(overrides: Sequence[str], *, repeats: int) -> dict[str, Any]:
    """Rows of what each part of a step costs: forward and backward milliseconds, GFLOPs, share of the matmul peak, memory."""
    cfg, device = configure(overrides)
    trainer, batch = prepare(cfg, device)
    trainer.step(batch)
    peak = matmul_peak(device)
    parts = _captured(trainer, batch)
    shown = LongStep("measuring parts of a step", len(parts))
    rows = []
    for name, (module, call) in parts.items():
        rows.append(_module_row(name, module, call, repeats, device, peak))
        shown.update(len(rows))
    rows += _whole_passes(trainer, batch, repeats, device, peak)
    rows.append(_row("data", _feeding_ms(cfg), None, None, peak))
    whole = _milliseconds(lambda: trainer.step(batch), repeats, device)
    rows.append(_row("whole step", whole, None, None, peak))
    return {
        "benchmark": "step, part by part",
        "overrides": list(overrides),
        "preset": cfg.preset,
        "size": list(cfg.data.hw),
        "batch_size": cfg.train.batch_size,
        "repeats": repeats,
        "images_per_s": 1000.0 * cfg.train.batch_size / whole,
        "matmul_peak_gflops": peak / 1e9,
        **{f"share_{kind}": share for kind, share in step_shares(trainer, batch, device).items()},
        "rows": rows,
        **machine(device),
    }


def matmul_peak(device: torch.device) -> float:
    """FLOP/s of a large float32 matrix product on `device`: the best of five."""
    a = torch.randn(SIDE, SIDE, device=device)
    times = []
    for _ in range(6):
        began = now(device)
        a @ a
        times.append(now(device) - began)
    return 2.0 * SIDE**3 / min(times[1:])


def parts_of(generator: Generator) -> dict[str, nn.Module]:
    """Named parts with parameters: children, with lists and trunks opened one level."""
    found: dict[str, nn.Module] = {}
    for name, child in generator.named_children():
        opened = isinstance(child, nn.ModuleList) or name in EXPANDED
        members = child.named_children() if opened else [("", child)]
        for inner, member in members:
            path = f"{name}.{inner}" if inner else name
            if isinstance(member, nn.ModuleList):
                found.update({f"{path}.{number}": block for number, block in enumerate(member)})
            elif any(True for _ in member.parameters()):
                found[path] = member
    return found


def _captured(trainer: Trainer, batch: Batch) -> dict[str, tuple[nn.Module, tuple[tuple[Any, ...], dict[str, Any]]]]:
    """Each part of the generator with the arguments it is called with in a training pass, in order."""
    calls: dict[str, tuple[nn.Module, tuple[tuple[Any, ...], dict[str, Any]]]] = {}

    def keep(name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls[name] = (module, (args, kwargs))

    handles = [
        module.register_forward_pre_hook(partial(keep, name), with_kwargs=True)
        for name, module in parts_of(trainer.generator).items()
    ]
    try:
        trainer.generator(batch.image, batch.mask, attention=trainer.objective.wants_attention)
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _module_row(
    name: str, module: nn.Module, call: tuple[tuple[Any, ...], dict[str, Any]], repeats: int, device: torch.device,
    peak: float,
) -> dict[str, Any]:  # fmt: skip
    args, kwargs = call

    def forward() -> Any:
        return module(*map(_leaf, args), **{key: _leaf(value) for key, value in kwargs.items()})

    return _timed_row(name, forward, repeats, device, peak)


def _whole_passes(
    trainer: Trainer, batch: Batch, repeats: int, device: torch.device, peak: float
) -> list[dict[str, Any]]:
    """The discriminator in either update, the losses, the two optimisers."""
    generator, discriminator, objective = trainer.generator, trainer.discriminator, trainer.objective
    with torch.no_grad():
        made = generator(batch.image, batch.mask, attention=objective.wants_attention)
        fake = made.synthesis.image
        features = discriminate(discriminator, batch.mask, fake, batch.image)

    def in_generator_update() -> Any:
        return judge(discriminator, batch.mask, _leaf(fake, always=True), batch.image)[0]

    def in_own_update() -> Any:
        return discriminate(discriminator, batch.mask, fake, batch.image)

    def losses() -> Tensor:
        synthesis = Synthesis(_leaf(fake, always=True), [_leaf(a, always=True) for a in made.synthesis.attention])
        terms = objective.generator_terms(
            GeneratorPass(synthesis, made.style, made.regularisers), batch.image, batch.mask,
            [[_leaf(x, always=True) for x in scale] for scale in features[0]], features[1],
        )  # fmt: skip
        return objective.total(terms)

    discriminator.requires_grad_(False)
    rows = [_timed_row("discriminator, G update", in_generator_update, repeats, device, peak)]
    discriminator.requires_grad_(True)
    rows.append(_timed_row("discriminator, D update", in_own_update, repeats, device, peak))
    rows.append(_timed_row("losses", losses, repeats, device, peak))

    def update() -> None:
        trainer.optimiser_g.step()
        trainer.optimiser_d.step()

    rows.append(_row("optimisers", _milliseconds(update, repeats, device), None, None, peak))
    return rows


def _timed_row(
    name: str, forward: Callable[[], Any], repeats: int, device: torch.device, peak: float
) -> dict[str, Any]:
    there, back = [], []
    for _ in range(repeats + 1):
        began = now(device)
        outputs = [x for x in flat(forward()) if x.requires_grad]
        there.append(now(device) - began)
        gradients = [torch.ones_like(x) for x in outputs]
        began = now(device)
        torch.autograd.backward(outputs, gradients)
        back.append(now(device) - began)
    memory = _peak_gib(forward, device)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        forward()
    flops = counter.get_total_flops()  # of the forward pass; torch's counter overlooks the groups in a backward pass
    row = _row(name, 1000 * median(there[1:]), 1000 * median(back[1:]), flops, peak)
    return {**row, "peak_mem_gib": memory}


def _peak_gib(forward: Callable[[], Any], device: torch.device) -> float | None:
    """Memory that one forward and backward pass takes on top of what is there, in GiB; None where the system cannot say."""
    if device.type == "cpu":
        return_freed_memory()  # else the pass would work in what earlier ones left behind
    before = reset_peak(device)
    if before is None:
        return None
    outputs = [x for x in flat(forward()) if x.requires_grad]
    torch.autograd.backward(outputs, [torch.ones_like(x) for x in outputs])
    peak = max(0.0, peak_memory_gib(device.type) - before)
    if device.type == "cpu":
        keep_freed_memory()
    return peak


def _row(name: str, forward_ms: float, backward_ms: float | None, flops: int | None, peak: float) -> dict[str, Any]:
    return {
        "part": name,
        "forward_ms": forward_ms,
        "backward_ms": backward_ms,
        "gflops": None if flops is None else flops / 1e9,
        "share_of_peak": None if flops is None else flops / (forward_ms / 1000) / peak,
        "peak_mem_gib": None,
    }


def _feeding_ms(cfg: RunConfig) -> float:
    """Milliseconds a batch takes to come, once the caches are filled."""
    speed = feeding_speed(cfg.data, "train", batch_size=cfg.train.batch_size, seconds=0.5)
    return 1000.0 * cfg.train.batch_size / speed.images_per_s


def _milliseconds(work: Callable[[], Any], repeats: int, device: torch.device) -> float:
    times = []
    for _ in range(repeats + 1):
        began = now(device)
        work()
        times.append(now(device) - began)
    return 1000.0 * median(times[1:])


def _leaf(value: Any, *, always: bool = False) -> Any:
    """A tensor that starts a graph of its own, where it carries gradients inside the step."""
    if isinstance(value, Tensor) and value.is_floating_point() and (always or value.requires_grad):
        return value.detach().clone().requires_grad_(True)
    if isinstance(value, tuple):
        return tuple(_leaf(item, always=always) for item in value)
    return value


def flat(value: Any) -> list[Tensor]:
    """All tensors in nested lists and tuples."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, list | tuple):
        return [tensor for item in value for tensor in flat(item)]
    return []


def reset_peak(device: torch.device) -> float | None:
    """Start measuring peak memory anew; GiB in use now, or None where the system cannot."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device) / 2**30
    if platform.system() != "Linux":
        return None
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # 5: reset the high-water mark (proc(5))
    except OSError:
        return None
    return resident_gib("VmRSS")

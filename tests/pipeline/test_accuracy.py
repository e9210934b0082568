"""Accuracy of float32: every kernel of the accuracy table against float64, and what its norms promise beside that."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pipeline.__main__ import main
from pipeline.bench.accuracy.kernels import KERNELS
from pipeline.bench.accuracy.measure import CONSTANT, Axes, Kernel, Setting, measure
from pipeline.bench.setup import configure, prepare
from pipeline.models import norms
from pipeline.models.blocks import TransformerBlock
from pipeline.models.contract import Generator
from pipeline.models.kernels import naive_kernels, plain_kernels
from pipeline.models.norms import BatchNorm2d, GroupNorm, SyncBatchNorm, instance_norm

FORMATS = (torch.contiguous_format, torch.channels_last)
NORMS_OF_MAPS = [kernel for kernel in KERNELS if kernel.axes.sides == (4, 16, 64, 256)]


def names(kernel: Kernel) -> str:
    return kernel.name


def misses(kernel: Kernel, sides: tuple[int, ...]) -> list[str]:
    """Inputs on which a kernel errs by more than four times the best float32 form, or by more than four units."""
    found = [(setting, measure(kernel, setting)) for setting in kernel.axes.settings(sides)]
    assert found, "at least one input"
    return [f"{setting}: {outcome}" for setting, outcome in found if outcome.excess() > 1]


@pytest.mark.parametrize("kernel", KERNELS, ids=names)
def test_small_inputs_are_as_exact_as_the_best_form_in_float32(kernel: Kernel) -> None:
    axes = dataclasses.replace(kernel.axes, batches=kernel.axes.batches[:1], gains=kernel.axes.gains[::2])
    assert misses(dataclasses.replace(kernel, axes=axes), axes.sides[:1]) == []


@pytest.mark.parametrize("kernel", NORMS_OF_MAPS, ids=names)
def test_maps_normalised_in_blocks_are_as_exact(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of two rows of a map, and of two maps of several."""
    monkeypatch.setattr(norms, "BLOCK", 16 * 40)
    axes = dataclasses.replace(kernel.axes, layouts=("channels-last",), batches=(4,))
    assert misses(dataclasses.replace(kernel, axes=axes), (16,)) == []


@pytest.mark.slow
@pytest.mark.parametrize("kernel", KERNELS, ids=names)
def test_every_input_is_as_exact_as_the_best_form_in_float32(kernel: Kernel) -> None:
    assert misses(kernel, kernel.axes.sides[1:]) == []


def test_the_measure_sees_what_was_there_before() -> None:
    """Group norm of a channels-last map with a large mean: the reason for all this."""
    kernel = next(kernel for kernel in KERNELS if kernel.name == "group norm")
    outcome = measure(kernel, Setting(ratio=100.0, layout="channels-last", side=64))
    assert outcome.before is not None and outcome.before.value > 1e-3 and outcome.before.gradient > 1e-3
    assert outcome.ours.value < 1e-6 and outcome.ours.gradient < 1e-6


def test_a_kernel_that_errs_is_found() -> None:
    kernel = next(kernel for kernel in KERNELS if kernel.name == "group norm")
    assert kernel.before is not None
    worse = Kernel(
        "", kernel.build, kernel.draw, kernel.before, kernel.best, axes=Axes((10.0,), layouts=("channels-last",))
    )
    assert len(misses(worse, (64,))) > 0
    broken = Kernel("", kernel.build, kernel.draw, lambda _, x: x * torch.nan, kernel.best)
    with pytest.raises(RuntimeError, match="not have been used"):  # no gradient reaches the weights
        measure(broken, Setting())


# What the norms promise beside accuracy


def with_gradient(norm: Callable[[Tensor], Tensor], x: Tensor, cotangent: Tensor) -> tuple[Tensor, Tensor]:
    leaf = x.detach().requires_grad_()
    value = norm(leaf)
    return value.detach(), torch.autograd.grad(value, leaf, cotangent)[0]


@pytest.mark.parametrize("form", FORMATS, ids=["contiguous", "channels-last"])
@pytest.mark.parametrize("block", [8, 2**18])
@pytest.mark.parametrize("shape", [(1, 4, 9, 8), (3, 4, 2, 35), (3, 4, 4, 4), (2, 4, 1, 1)], ids=str)
def test_block_by_block_is_the_formula_and_its_gradient(
    form: torch.memory_format, block: int, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(norms, "BLOCK", block)
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=torch.float64).contiguous(memory_format=form).requires_grad_()
    layer = GroupNorm(2, 4).double()
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    for norm in (layer, lambda x: instance_norm(x)):
        out = norm(x)
        assert out.stride() == x.stride()
        assert torch.autograd.gradcheck(norm, (x,), fast_mode=True)
    expected = F.group_norm(x.contiguous(), 2, layer.weight, layer.bias)
    torch.testing.assert_close(layer(x), expected, rtol=1e-12, atol=1e-12)
    theirs = torch.autograd.grad(expected.pow(3).sum(), list(layer.parameters()))
    torch.testing.assert_close(torch.autograd.grad(layer(x).pow(3).sum(), list(layer.parameters())), theirs)


@settings(max_examples=30)
@given(st.integers(0, 143), st.floats(-1e4, 1e4), st.floats(1.0, 1e6))
def test_a_lone_value_costs_no_digits_wherever_it_stands(pixel: int, mean: float, height: float) -> None:
    """The rough mean of a sixteenth of the pixels is then at its worst."""
    x = torch.full((1, 2, 144), mean)
    x[:, :, pixel] += height
    for form in FORMATS:
        found = instance_norm(x.view(1, 2, 12, 12).contiguous(memory_format=form))
        exact = F.instance_norm(x.view(1, 2, 12, 12).double())
        torch.testing.assert_close(found.double(), exact, rtol=0, atol=1e-5)


@pytest.mark.parametrize("value", [0.0, 0.1, 3.7, 1e4])
@pytest.mark.parametrize("form", FORMATS, ids=["contiguous", "channels-last"])
def test_a_constant_map_becomes_the_shift(value: float, form: torch.memory_format) -> None:
    layer = GroupNorm(2, 4)
    nn.init.normal_(layer.bias)
    out = layer(torch.full((2, 4, 9, 9), value).contiguous(memory_format=form))
    torch.testing.assert_close(out, layer.bias.view(1, -1, 1, 1).expand_as(out), rtol=0, atol=1e-5 * max(1.0, value))


def test_a_gradient_in_the_other_format_is_read_in_the_right_order() -> None:
    """torch 2.15's own instance norm of one image reads it in the order of memory."""
    torch.manual_seed(1)
    x, cotangent = torch.randn(1, 8, 16, 16), torch.randn(1, 8, 16, 16)
    expected = with_gradient(F.instance_norm, x.double(), cotangent.double())[1]
    for of_map in FORMATS:
        for of_gradient in FORMATS:
            given_map, given_gradient = (
                x.contiguous(memory_format=of_map),
                cotangent.contiguous(memory_format=of_gradient),
            )
            gradient = with_gradient(instance_norm, given_map, given_gradient)[1]
            torch.testing.assert_close(gradient.double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", [BatchNorm2d, SyncBatchNorm])
@pytest.mark.parametrize("form", FORMATS, ids=["contiguous", "channels-last"])
def test_running_statistics_are_those_of_torch(kind: type[BatchNorm2d], form: torch.memory_format) -> None:
    torch.manual_seed(2)
    ours, theirs = kind(3, affine=False), nn.BatchNorm2d(3, affine=False).double()
    for _ in range(3):
        x = torch.randn(4, 3, 5, 6) * 2 + 7
        torch.testing.assert_close(
            ours(x.contiguous(memory_format=form)).double(), theirs(x.double()), rtol=0, atol=1e-5
        )
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name].to(value.dtype), value, rtol=1e-5, atol=1e-6)
    ours.eval(), theirs.eval()
    torch.testing.assert_close(ours(x.contiguous(memory_format=form)).double(), theirs(x.double()), rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="more than"):
        ours.train()(torch.zeros(1, 3, 1, 1))


def test_a_second_derivative_is_refused_and_not_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(norms, "BLOCK", 8)
    x = torch.randn(1, 2, 9, 9).contiguous(memory_format=torch.channels_last).requires_grad_()
    (gradient,) = torch.autograd.grad(instance_norm(x).pow(3).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


# A network as training leaves it


@pytest.fixture(scope="module")
def trained() -> tuple[Generator, Tensor, Tensor]:
    """A tiny (CA)²-SIS after a few dozen updates, and its batch."""
    cfg, device = configure(["size=16", "train.batch_size=4", "discriminator.width=8", "discriminator.layers=2"])
    trainer, batch = prepare(cfg, device)
    for _ in range(40):
        trainer.step(batch)
    return trainer.generator.eval(), batch.image, batch.mask


def far(found: list[Tensor], exact: list[Tensor]) -> float:
    """Root of the squared differences over that of the squares, all tensors together."""
    difference = sum(float((one - other).square().sum()) for one, other in zip(found, exact, strict=True))
    return (difference / sum(float(other.square().sum()) for other in exact)) ** 0.5


def hold(run: Callable[[torch.dtype], list[list[Tensor]]]) -> None:
    """Each list of tensors in the fast form: no further from the naive form in float64 than 4 times another float32 form."""
    with naive_kernels():
        exact, naive = run(torch.float64), run(torch.float32)
    with plain_kernels():
        plain = run(torch.float32)
    for ours, *others, right in zip(run(torch.float32), naive, plain, exact, strict=True):
        assert all(x.dtype == torch.float64 for x in right)
        assert far(ours, right) <= 4 * max(min(far(other, right) for other in others), 2.0**-23)


def test_a_trained_network_is_as_exact_in_the_fast_form(trained: tuple[Generator, Tensor, Tensor]) -> None:
    """Image, attention, and the gradient with respect to all parameters."""
    generator, image, mask = trained

    def run(kind: torch.dtype) -> list[list[Tensor]]:
        network = copy.deepcopy(generator).to(kind)
        made = network(image.to(kind), mask.to(kind), attention=True).synthesis
        weights = torch.linspace(-1, 1, made.image.numel(), dtype=made.image.dtype).view_as(made.image)
        total = (made.image * weights).sum() + sum(level.square().mean() for level in made.attention)
        gradients = torch.autograd.grad(total, list(network.parameters()), allow_unused=True)
        return [[made.image.detach()], [x.detach() for x in made.attention], [g for g in gradients if g is not None]]

    hold(run)


@pytest.mark.parametrize("gain", [1.0, 10.0, 100.0])
def test_trained_transformer_blocks_are_as_exact_in_the_fast_form(
    trained: tuple[Generator, Tensor, Tensor], gain: float
) -> None:
    """Their matrices as training leaves them, and 10 and 100 times as large, on the maps and codes they get."""
    generator, image, mask = trained
    given: list[tuple[nn.Module, tuple[Tensor, ...]]] = []
    blocks = [module for module in generator.modules() if isinstance(module, TransformerBlock)]
    hooks = [block.register_forward_pre_hook(lambda module, args: given.append((module, args))) for block in blocks]
    with torch.no_grad():
        generator(image, mask, attention=True)
    for handle in hooks:
        handle.remove()
    assert len(given) == len(blocks) > 1

    def run(kind: torch.dtype) -> list[list[Tensor]]:
        found: list[list[Tensor]] = [[], [], []]
        for module, inputs in given:
            block = copy.deepcopy(module).to(kind)
            with torch.no_grad():
                for parameter in block.parameters():
                    parameter.mul_(gain if parameter.dim() > 1 else 1.0)
            out, maps = block(*(x.to(kind) for x in inputs), attention=True)
            weights = torch.linspace(-1, 1, out.numel(), dtype=kind).view_as(out)
            total = (out * weights).sum() / out.detach().std() + sum(x.square().mean() / x.detach().std() for x in maps)
            found[0].append(out.detach() / out.detach().std())
            found[1] += [x.detach() / x.detach().std() for x in maps]
            found[2] += torch.autograd.grad(total, list(block.parameters()))
        return found

    hold(run)


# The command


def test_the_command_writes_table_and_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "performance" / "accuracy_table.md"
    page.parent.mkdir()
    asked = ["bench", "accuracy", "--only", "gate", "instance norm", "--sides", "4", "--docs", str(tmp_path)]
    assert main(asked) == 0
    result = json.loads((tmp_path / "performance" / "accuracy.json").read_text())
    assert {row["kernel"] for row in result["rows"]} == {"gate", "instance norm"}
    assert result["worst_share_of_allowed"] == max(row["share_of_allowed"] for row in result["rows"]) <= 1
    maps = [row for row in result["rows"] if row["kernel"] == "instance norm"]
    assert {(row["layout"], row["input"]) for row in maps} == {
        (layout, kind) for layout in ("contiguous", "channels-last") for kind in ("0", "10", "100", "1000", "constant")
    }
    assert "| instance norm | float32 | channels-last | 1000 |" in page.read_text()
    assert "measuring gate" in capsys.readouterr().out
    assert main([*asked[:2], "--only", "gates"]) == 2
    assert "allowed are 'instance norm'" in capsys.readouterr().err
    assert main([*asked[:3], "gate", "--sides", "5"]) == 2


def test_constant_is_a_kind_of_input() -> None:
    assert Setting(ratio=CONSTANT).noisy(2, 3).eq(900).all()

"""Every registered family trains and is evaluated on a GPU that is not here: on simulated CUDA tensors (`simulated`).

What is shown: no tensor is made on, or left on, another device than its partners', no array is read off the GPU without a copy, and
types fit under autocast. Networks are built under `torch.device("cuda")` and run outside it, where whatever names no device is on
the CPU. A new family is covered because it is registered.

What simulated tensors cannot carry: values, and so results, and shapes that follow from values (SCAM's imported latents);
gradients and the optimisers' update (forward passes and losses run, `backward` does nothing), so neither families that are
inverted nor SCAM's own discriminator; the averaged network (torch cannot copy simulated parameters); CUDA's kernels (missing or
not deterministic), memory, times; CUDA graphs and `torch.compile`; NCCL; loader processes; and networks that come as
TorchScript or test themselves on loading: Inception, an external segmenter, LPIPS, DISTS, the perceptual loss. Code that
branches on a value goes one way here: a value that is read is true, 0.5 or 1.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import get_args

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.config import compose
from pipeline.data.batch import collate
from pipeline.evaluation.context import split_source
from pipeline.evaluation.evaluator import evaluate
from pipeline.evaluation.validation import quick_validation
from pipeline.models.build import build_discriminator, build_generator
from pipeline.models.contract import Generator, Synthesis
from pipeline.models.discriminator import Judge
from pipeline.models.interop import load_release
from pipeline.schema.evaluation import EditTask
from pipeline.schema.families import FAMILIES
from pipeline.schema.run import RunConfig
from pipeline.training.trainer import Trainer
from tests.pipeline.metrics.doubles import CLASSES, Echo, faces, protocol
from tests.pipeline.models.release_fill import load_meta
from tests.pipeline.simulated import CUDA, simulated_cuda

SIZE = (32, 32)
# What differentiates inside its losses or its evaluation (R1, path length, inversion) has no simulated gradients to do so with.
CARRIED = [name for name, spec in FAMILIES.items() if not spec.inverts]
LEARNED = [name for name in CARRIED if FAMILIES[name].learned]
RELEASED = [name for name in CARRIED if FAMILIES[name].importer is not None and name != "scam"]
# Likewise SCAM's discriminator, whose scores are normalised by their gradients: here SPADE's stands in.
INSTEAD = {"scam": ("discriminator.kind=multiscale",)}
# The fixtures' lists of a release's keys: generator and, in a file of its own, image encoder.
KEYS = {
    "ca2sis": ("keys", None),
    "spade": ("keys_G_vae", "keys_E"),
    "clade": ("keys_icpe", None),
    "sean": ("keys", None),
    "inade": ("keys_G", "keys_E"),
    "maskgan": ("keys", None),
    "oasis": ("keys_G", None),
}


def config(family: str, *overrides: str) -> RunConfig:
    given = ("preset=tiny", f"model={family}", "size=32", "train.batch_size=2", *INSTEAD.get(family, ()))
    return compose([*given, *overrides])


@cache
def networks(family: str) -> tuple[Generator, Judge | None]:
    """Generator and discriminator on the simulated GPU; to be called within `simulated_cuda`."""
    cfg = config(family)
    with torch.device(CUDA):
        generator = build_generator(cfg.model, CLASSES, SIZE).to(
            CUDA
        )  # with what is made on the CPU wherever it is built
        return generator, build_discriminator(cfg.discriminator, CLASSES) if FAMILIES[family].learned else None


def trainer(family: str, *overrides: str) -> Trainer:
    """The trainer of a tiny run on the simulated GPU, whose optimisers take no step."""
    generator, discriminator = networks(family)
    assert discriminator is not None
    made = Trainer(config(family, *overrides), generator, discriminator, iterations=2, device=CUDA)
    for optimiser in (made.optimiser_g, made.optimiser_d):
        optimiser.step = lambda: None  # type: ignore[method-assign]
    return made


class Precisions(TorchDispatchMode):
    """Notes the types that convolutions compute in."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[torch.dtype] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if func is torch.ops.aten.convolution.default:
            self.seen.add(args[0].dtype)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("family", LEARNED)
def test_a_training_step_stays_on_the_gpu(family: str) -> None:
    """Forward passes and losses of both updates: in float32, under bfloat16 autocast, in parts; with instance maps."""
    batch = collate([faces(2)[i] for i in range(2)], CLASSES)
    variants = {
        (): torch.float32,
        ("train.precision=bf16",): torch.bfloat16,
        ("train.accumulate=2",): torch.float32,
    }
    with simulated_cuda():
        for overrides, precision in variants.items():
            with Precisions() as computed:
                terms = trainer(family, *overrides).step(replace(batch, instance=batch.label).to(CUDA))
            assert precision in computed.seen and (precision == torch.bfloat16 or computed.seen == {precision})
            assert terms and {(term.device.type, term.shape) for term in terms.values()} == {("cuda", ())}, overrides


@pytest.mark.slow
@pytest.mark.parametrize("family", CARRIED)
def test_an_evaluation_stays_on_the_gpu(family: str) -> None:
    """Every metric that needs no downloaded weights, every edit task, mask noise, the validation of learning curves."""
    settings = protocol(
        "reconstruction", "attention", "cost", "semantic", "distribution", "diversity", "editing", "robustness",
        segmenter__iterations=1, segmenter__batch_size=2, segmenter__train_images=2, segmenter__depth=1,
        distribution__reference_images=2, distribution__floor=False, editing__tasks=get_args(EditTask),
        editing__pairs=1, editing__steps=2, robustness__levels=(1.0,), diversity__images=1, diversity__samples=2,
    )  # fmt: skip
    with simulated_cuda():
        generator, _ = networks(family)
        found = evaluate(
            generator, faces(2), settings, device=CUDA, splits=split_source(lambda split: faces(2, split=split))
        )
        curve = quick_validation(generator, faces(2), 2, 2, CUDA)
    measured = {row.name for row in found.rows if row.status == "ok"}
    can = generator.capabilities
    wanted = {"psnr", "ssim", "seg_miou", "fd_seg", "params", "latency_ms", "robust_psnr_area", "edit_psnr_reconstruct"}
    wanted |= {"attention_miou"} if can.attention else set()
    wanted |= {"pixel_div", "edit_psnr_sampling", "edit_mask_agreement_sampling"} & measured if can.sampling else set()
    assert measured >= wanted and {"psnr", "ssim"} <= set(curve)


def test_the_fixtures_know_every_release() -> None:
    assert set(RELEASED) == set(KEYS), "a family whose release can be imported lacks its keys here"


@pytest.mark.parametrize("family", RELEASED)
def test_a_release_that_lies_on_the_gpu_is_imported_to_the_cpu_and_runs_on_the_gpu(family: str) -> None:
    meta = load_meta(family)

    def state(name: str) -> dict[str, Tensor]:
        return {
            key: torch.empty(shape, dtype=getattr(torch, dtype.removeprefix("torch.")), device=CUDA)
            for key, shape, dtype, *_ in meta[name]
        }

    with simulated_cuda(), torch.no_grad():
        keys, encoder = KEYS[family]
        generator = load_release(family, state(keys), encoder=None if encoder is None else state(encoder))
        assert {value.device.type for value in generator.state_dict().values()} == {"cpu"}
        generator.to(CUDA)
        image = torch.empty(1, 3, 256, 256, device=CUDA)
        mask = torch.empty(1, generator.num_classes, 256, 256, device=CUDA)
        made = generator.synthesize(mask, generator.encode_style(image, mask)).image
        assert tuple(made.shape) == (1, 3, 256, 256) and made.device.type == "cuda"


class Astray(Echo):
    """Makes a tensor without saying where."""

    def synthesize(self, mask: Tensor, style: Tensor, *, attention: bool = True) -> Synthesis:
        return Synthesis(style.view(-1, 3, *mask.shape[-2:]) * torch.ones(3, 1, 1))


def test_a_tensor_on_the_wrong_device_is_caught() -> None:
    with simulated_cuda(), pytest.raises(RuntimeError, match="on the same device, but found .*cuda:0 and cpu"):
        evaluate(Astray(), faces(2), protocol("reconstruction"), device=CUDA)
    with simulated_cuda(), pytest.raises(TypeError, match="can't convert cuda"):
        torch.ones(2, device=CUDA).numpy()

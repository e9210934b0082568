"""CLADE with and without positions and instance borders against numbers recorded from the public release: images, layers,
gradients, position maps, one norm layer alone. The recorded set is whole: 128x128 pixels, 16 channels.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.data.transforms import resize_label
from pipeline.models.clade import CladeGenerator
from pipeline.models.clade_norm import CladeNorm
from pipeline.models.interop import load_release
from pipeline.models.interop.clade import fill_tables
from pipeline.models.interop.common import Assembly, ReleaseState
from pipeline.models.kernels import naive_kernels
from pipeline.models.positions import as_released_when_mirrored, borders, connected_parts, part_offsets
from tests.parity_fill import check_fill, draw, fill_state_dict
from tests.pipeline.models.release_fill import Arrays, load_arrays, load_meta, record_outputs, trunk_path
from tests.pipeline.models.small_models import one_hot

CLASSES, SIDE = 19, 128
CLOSE = {"rtol": 1e-3, "atol": 1e-4}  # images and statistics, as the fixture's description suggests
VARIANTS = ["clade", "icpe", "inst"]


@pytest.fixture(scope="module")
def recorded() -> Arrays:
    return load_arrays("clade", full=False)


@pytest.fixture(scope="module")
def meta() -> dict[str, Any]:
    return load_meta("clade")


@pytest.fixture(scope="module")
def labels(recorded: Arrays) -> Tensor:
    cells = recorded["cells"]
    assert zlib.crc32(cells.tobytes()) == 4090415751
    return torch.from_numpy(cells.astype(np.int64)).repeat_interleave(8, 1).repeat_interleave(8, 2)


@pytest.fixture(scope="module")
def offsets(labels: Tensor) -> Tensor:
    return part_offsets(labels, skipped=0)


def filled(meta: dict[str, Any], variant: str) -> dict[str, Tensor]:
    """The weight rule, which has lines of its own for the class tables."""
    keys, gains = meta[f"keys_{variant}"], {r"^conv_img\.weight$": 0.5}
    sigma: dict[str, float] = {}
    state = fill_state_dict(keys, gains, sigma)
    for key, shape, *_ in keys:
        if key.endswith(("class_specified_affine.weight", "class_specified_affine.bias")):
            start = np.float32(1 if key.endswith("weight") else 0)
            state[key] = torch.from_numpy(start + np.float32(0.5) * draw(key, shape))
    assert check_fill(state, keys) == []
    for stem, expected in meta.get(f"sigma_{variant}", {}).items():
        assert sigma[f"{stem}.weight_orig"] == pytest.approx(expected, rel=1e-6)
    return state


def load(meta: dict[str, Any], variant: str) -> CladeGenerator:
    generator = load_release("clade", filled(meta, variant))
    assert isinstance(generator, CladeGenerator)
    assert sum(parameter.numel() for parameter in generator.parameters()) == meta["parameters"][variant]
    return generator


def released_name(name: str) -> str:
    """The release's name of one of our parameters."""
    for ours, theirs in (
        ("parametrizations.weight.original", "weight_orig"),
        ("trunk.head.", "head_0."),
        ("trunk.middle_", "G_middle_"),
        ("trunk.up.", "up_"),
        ("trunk.to_image.", "conv_img."),
        ("start.", "fc."),
        ("scale_position.", "class_specified_affine.dist_conv_w."),
        ("shift_position.", "class_specified_affine.dist_conv_b."),
    ):
        name = name.replace(ours, theirs)
    parts = name.split(".")
    if len(parts) == 3 and parts[1].startswith("norm_"):
        return f"{parts[0]}.{parts[1]}.class_specified_affine.{parts[2]}"
    return name


@torch.no_grad()
@pytest.mark.parametrize("variant", VARIANTS)
def test_images_and_statistics_of_every_layer(
    variant: str, meta: dict[str, Any], recorded: Arrays, labels: Tensor
) -> None:
    generator, mask = load(meta, variant), one_hot(labels, CLASSES)
    names = meta[f"stat_names_{variant}"]
    seen = record_outputs(generator, {name: trunk_path(name) for name in names})
    instances = labels.clone()
    instances[:, :, 40:] += CLASSES
    assert zlib.crc32(instances.numpy().astype("<i8").tobytes()) == meta["input_checks"]["inst_crc32_int64"]
    image = generator.synthesize(mask, torch.zeros(2, 0), instances=instances).image
    np.testing.assert_allclose(image, recorded[f"image_{variant}"], **CLOSE)
    np.testing.assert_allclose(np.stack([seen[name] for name in names]), recorded[f"stats_{variant}"], **CLOSE)
    if variant == "inst":
        np.testing.assert_array_equal(borders(instances)[:, 0, ::2, ::2], recorded["edges_sub2"])
    with naive_kernels():
        again = generator.synthesize(mask[:1], torch.zeros(1, 0), instances=instances[:1]).image
    torch.testing.assert_close(again, image[:1], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_positions_move_the_image_as_recorded(
    meta: dict[str, Any], recorded: Arrays, labels: Tensor, offsets: Tensor
) -> None:
    generator, mask = load(meta, "icpe"), one_hot(labels, CLASSES)
    assert generator.config.icpe.enabled and generator.config.icpe.skipped_class == 0
    none = torch.zeros(2, 0)
    with_zeros = generator.synthesize(mask, none, offsets=torch.zeros_like(offsets)).image
    np.testing.assert_allclose(with_zeros[..., ::2, ::2], recorded["image_icpe_zerodist_sub2"], **CLOSE)
    image = recorded["image_icpe"]
    swapped = generator.synthesize(mask, none, offsets=offsets.flip(1)).image.numpy()
    assert np.sqrt(np.mean((swapped - image) ** 2)) == pytest.approx(meta["rms_swap_channels"], rel=1e-3)
    rms = np.sqrt(np.mean((image - recorded["image_clade"]) ** 2))
    assert rms == pytest.approx(meta["rms_icpe_minus_clade"], rel=1e-3)


def test_gradients_of_the_probe(meta: dict[str, Any], recorded: Arrays, labels: Tensor) -> None:
    generator = load(meta, "icpe")
    probe = np.random.Generator(np.random.PCG64(11)).standard_normal((2, 3, SIDE, SIDE)).astype(np.float32)
    assert zlib.crc32(probe.tobytes()) == meta["input_checks"]["probe_crc32"]
    image = generator.synthesize(one_hot(labels, CLASSES), torch.zeros(2, 0)).image
    loss = (image * torch.from_numpy(probe)).sum() / 1000
    assert loss.item() == pytest.approx(recorded["probe_loss"].item(), abs=1e-5)
    loss.backward()  # type: ignore[no-untyped-call]
    gradients: dict[str, Tensor] = {}
    for name, parameter in generator.named_parameters():
        assert parameter.grad is not None
        gradients[released_name(name)] = parameter.grad
    assert sorted(gradients) == sorted(meta["grad_param_order_icpe"])
    norms = [gradients[name].double().norm().item() for name in meta["grad_param_order_icpe"]]
    np.testing.assert_allclose(norms, recorded["grad_norms_icpe"], rtol=1e-3, atol=1e-9)
    five = [gradients[name].double().norm().item() for name in meta["grad5_names_icpe"]]
    np.testing.assert_allclose(five, recorded["grad5_norm_icpe"], rtol=1e-3)
    position = gradients["up_2.norm_s.class_specified_affine.dist_conv_w.weight"].flatten()
    np.testing.assert_allclose(position, recorded["grad_up_2_norm_s_dist_conv_w"], rtol=0, atol=1e-5)
    bias = gradients["up_3.norm_1.class_specified_affine.bias"]
    np.testing.assert_allclose(bias, recorded["grad_up_3_norm_1_bias"], rtol=0, atol=1e-5)
    assert not bias[meta["absent_classes"]].any(), "an absent class learns nothing"


def test_position_maps(meta: dict[str, Any], recorded: Arrays, labels: Tensor, offsets: Tensor) -> None:
    np.testing.assert_allclose(offsets[:, :, ::2, ::2], recorded["dist_sub2"], rtol=0, atol=1e-6)
    raw = part_offsets(labels[:1], skipped=0, normalise=False)
    np.testing.assert_allclose(raw[0, :, ::4, ::4], recorded["dist_raw_item0_sub4"], rtol=0, atol=1e-6)
    assert offsets.double().sum().item() == pytest.approx(meta["input_checks"]["dist_sum"], abs=1e-3)
    assert offsets.abs().max().item() == pytest.approx(meta["input_checks"]["dist_absmax"], abs=1e-6)
    parts = connected_parts(labels[:1])
    assert len(parts[labels[:1] != 0].unique()) == meta["input_checks"]["components_item0"]
    tiny = torch.from_numpy(recorded["tiny_labels"].astype(np.int64))[None]
    for normalise, name in ((True, "tiny_dist"), (False, "tiny_dist_raw")):
        made = part_offsets(tiny, skipped=0, normalise=normalise)[0]
        np.testing.assert_allclose(made, recorded[name], rtol=0, atol=1e-6)


def window(map_at_150: NDArray[Any]) -> NDArray[Any]:
    """The release's crop of its 150-pixel training sample: 128 pixels from column 5, row 9."""
    return map_at_150[..., 9 : 9 + SIDE, 5 : 5 + SIDE]


def test_training_transforms_of_labels_and_the_upside_down_position_map(
    recorded: Arrays, labels: Tensor, offsets: Tensor
) -> None:
    ours = resize_label(labels[0].numpy().astype(np.uint8), 150, 150, (0.0, 0.0, 1.0, 1.0))
    theirs = recorded["labels_t_noflip"]
    # Output 37 lies exactly between two sources: the release's Pillow takes the lower one, the centre rule the upper one.
    kept = np.ones((SIDE, SIDE), dtype=bool)
    kept[37 - 9], kept[:, 37 - 5] = False, False
    np.testing.assert_array_equal(window(ours)[kept], theirs[kept])
    np.testing.assert_array_equal(theirs[:, ::-1], recorded["labels_t_flip"])
    resized = window(F.interpolate(offsets[:1], size=(150, 150), mode="nearest")[0].numpy())
    np.testing.assert_allclose(resized[:, ::2, ::2], recorded["dist_t_noflip_sub2"], rtol=0, atol=1e-6)
    correct = torch.from_numpy(resized[None, :, :, ::-1].copy()) * torch.tensor([1.0, -1.0]).view(1, 2, 1, 1)
    released = as_released_when_mirrored(correct)[0]
    np.testing.assert_allclose(released[:, ::2, ::2], recorded["dist_t_flip_sub2"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("variant", ["plain", "icpe"])
def test_one_layer_alone_in_float64(variant: str, meta: dict[str, Any], recorded: Arrays) -> None:
    icpe = variant == "icpe"
    state = ReleaseState(filled(meta, f"layer_{variant}"), "CLADE layer")
    assembly = Assembly(lambda: nn.ModuleDict({"layer": CladeNorm(6, 5, icpe=icpe)}))
    assembly.running_statistics("layer.norm", state, "param_free_norm")
    fill_tables(assembly, "layer", state, "class_specified_affine", icpe=icpe)
    state.finish()
    layer = assembly.finish().double().get_submodule("layer")
    x, distances = torch.from_numpy(recorded["layer_x"]), torch.from_numpy(recorded["layer_dist"])
    mask = one_hot(torch.from_numpy(recorded["layer_labels"].astype(np.int64)), 5).double()
    for training, name in ((False, "eval"), (True, "train")):
        made = layer.train(training)(x, mask, distances).detach()
        np.testing.assert_allclose(made, recorded[f"layer_{variant}_{name}"], rtol=0, atol=1e-12)
    for key in ("mean", "var"):
        after = layer.get_buffer(f"norm.running_{key}")
        np.testing.assert_allclose(after, recorded[f"layer_running_{key}_after"], rtol=0, atol=1e-12)

"""Importing released weights: every key counts; what is missing, extra or misshapen is named; sizes come off the tensors.

The state dicts have the releases' keys with every width divided by 16.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.errors import UserError
from pipeline.models.interop import load_release
from pipeline.models.interop.spade import import_discriminator
from pipeline.models.sean import SeanGenerator
from pipeline.models.spade import SpadeGenerator
from tests.pipeline.models.release_fill import load_meta, shrunk
from tests.pipeline.models.small_models import random_inputs

CASES = ["spade_seg", "spade_vae", "sean", "encoder", "discriminator"]
SAMPLE = 12  # keys of each file that are spoilt in turn

Loader = Any


@pytest.fixture(scope="module")
def files() -> dict[str, dict[str, Tensor]]:
    spade, sean = load_meta("spade"), load_meta("sean")
    return {
        "spade_seg": shrunk(spade["keys_G_seg"]),
        "spade_vae": shrunk(spade["keys_G_vae"]),
        "encoder": shrunk(spade["keys_E"]),
        "discriminator": shrunk(spade["keys_D"]),
        "sean": shrunk(sean["keys"]),
    }


def load(case: str, state: dict[str, Tensor], files: dict[str, dict[str, Tensor]]) -> torch.nn.Module:
    if case == "discriminator":
        return import_discriminator(state)
    if case == "encoder":
        return load_release("spade", files["spade_vae"], encoder=state)
    if case == "spade_vae":
        return load_release("spade", state, encoder=files["encoder"])
    return load_release(case.split("_")[0], state)


def test_sizes_come_off_the_tensors(files: dict[str, dict[str, Tensor]]) -> None:
    seg, vae, sean = (load(case, files[case], files) for case in ("spade_seg", "spade_vae", "sean"))
    assert isinstance(seg, SpadeGenerator) and isinstance(vae, SpadeGenerator) and isinstance(sean, SeanGenerator)
    assert (seg.config.base_width, seg.config.up_blocks, seg.config.modulation_width, seg.num_classes) == (4, 4, 8, 19)
    assert (seg.config.style, vae.config.style) == ("none", "vae")
    assert (vae.config.z_dim, vae.size, vae.config.encoder.size, vae.config.encoder.width) == (16, (256, 256), 256, 4)
    assert (sean.config.style_dim, sean.config.encoder_width, sean.config.style_in_last_block) == (32, 2, False)
    for generator in (seg, vae, sean):
        assert not generator.training
        image, mask = random_inputs(19, (256, 256), batch=1)
        with torch.no_grad():
            made = generator.synthesize(mask, generator.encode_style(image, mask)).image
        assert torch.isfinite(made).all()
        assert {value.device.type for value in generator.state_dict().values()} == {"cpu"}


@pytest.mark.parametrize("case", CASES)
def test_missing_extra_and_misshapen_keys_are_named(case: str, files: dict[str, dict[str, Tensor]]) -> None:
    state = files[case]
    chosen = random.Random(0).sample(sorted(state), min(SAMPLE, len(state)))
    for key in chosen:
        without = {name: value for name, value in state.items() if name != key}
        with pytest.raises(UserError) as caught:
            load(case, without, files)
        assert key in str(caught.value), f"{key} missing, said: {caught.value}"
        spoilt = torch.zeros(*(size + 1 for size in state[key].shape)) if state[key].dim() else torch.zeros(2)
        with pytest.raises(UserError) as caught:
            load(case, {**state, key: spoilt}, files)
        assert key in str(caught.value), f"{key} misshapen, said: {caught.value}"
    with pytest.raises(UserError, match=r"extra key head_9\.conv\.weight"):
        load(case, {**state, "head_9.conv.weight": torch.zeros(1)}, files)


@pytest.mark.parametrize("case", CASES)
def test_values_that_are_not_finite_are_named(case: str, files: dict[str, dict[str, Tensor]]) -> None:
    key = next(key for key in files[case] if key.endswith("bias"))
    with pytest.raises(UserError, match=f"{key} holds values that are not finite"):
        load(case, {**files[case], key: torch.full_like(files[case][key], float("nan"))}, files)


def test_every_tensor_reaches_the_network(files: dict[str, dict[str, Tensor]]) -> None:
    """Adding one to any used tensor changes our state; the knowingly unused ones are exactly those named here."""
    state = files["sean"]
    plain = load("sean", state, files).state_dict()
    total = sum(value.double().sum().item() for value in plain.values())
    unused = [
        key for key in state if ".Spade.param_free_norm." in key or (key.startswith("up_3.") and ".blending_" in key)
    ]
    assert len(unused) == 18 * 3 + 6
    used = sum(value.double().sum().item() for key, value in state.items() if key not in unused)
    assert total == pytest.approx(used, rel=1e-9)
    parts = sum(value.numel() for key, value in state.items() if key not in unused)
    assert sum(value.numel() for value in plain.values()) == parts


def test_the_imported_network_owns_its_weights(files: dict[str, dict[str, Tensor]]) -> None:
    network = load("spade_seg", files["spade_seg"], files)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    assert files["spade_seg"]["conv_img.weight"].abs().sum() > 0


def test_half_precision_and_wrapped_keys_load(files: dict[str, dict[str, Tensor]]) -> None:
    wrapped = {
        f"module.{key}": value.half() if value.is_floating_point() else value for key, value in files["sean"].items()
    }
    network = load_release("sean", wrapped)
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


def test_other_files_and_families_are_refused_clearly(files: dict[str, dict[str, Tensor]]) -> None:
    for family, state, said in (
        ("spade", files["sean"], "Spade|missing|extra"),
        ("sean", files["spade_seg"], "missing|no key tells"),
        ("spade", {}, "expected a state dict"),
        ("spade", {"model": {"a": 1}}, "'model' is a dict"),
        ("sean", {"step": 3}, "'step' is a int"),
        ("spad", files["spade_seg"], "did you mean spade"),
        ("painter", files["spade_seg"], "no released weights"),
    ):
        with pytest.raises(UserError, match=said):
            load_release(family, state)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="image encoder is needed"):
        load_release("spade", files["spade_vae"])
    with pytest.raises(UserError, match="leave the image encoder out"):
        load_release("spade", files["spade_seg"], encoder=files["encoder"])
    with pytest.raises(UserError, match="keeps no separate image encoder"):
        load_release("sean", files["sean"], encoder=files["encoder"])


def test_more_upsampling_and_wide_starts_are_read_off(files: dict[str, dict[str, Tensor]]) -> None:
    """A fifth up block is the release's "most" upsampling; an 8x4-cell start is a map twice as wide as high."""
    state = dict(files["spade_vae"])
    state["fc.weight"], state["fc.bias"] = state["fc.weight"][: 64 * 32], state["fc.bias"][: 64 * 32]
    wide = load("spade_vae", state, files)
    assert isinstance(wide, SpadeGenerator)
    assert wide.size == (128, 256)
    assert wide.start_size == (4, 8)
    assert torch.equal(wide.start.weight, state["fc.weight"])

"""MaskGAN against numbers recorded from the public release: style vectors, images, edits and layer statistics.

Quick tests use the compact set and the encoders; the 256x256 passes are marked slow, and read the full set where it lies beside
the checkout, else the compact one (every eighth pixel).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.models.interop import load_release
from pipeline.models.maskgan import MaskganGenerator, adaptive_norm
from tests.parity_fill import case_inputs, check_fill
from tests.pipeline.models.release_fill import (
    FULL,
    IMAGE,
    fill_with_sigma,
    hold_to_float64,
    load_arrays,
    load_meta,
    record_outputs,
    recorded_image,
    statistics,
)
from tests.pipeline.models.small_models import one_hot

STYLE_MAX = 5e-5  # the fixture's suggestion
OUTPUTS = {  # the release's module -> ours with the same output
    "enc_label.fea1": "encoder.label.down_1",
    "enc_label.fea2": "encoder.label.middle.2",
    "enc_style.sft1": "encoder.transform_0",
    "enc_style.sft2": "encoder.transform_1",
    "model.1": "conv_in",
    "model.33": "conv_out",
    **{f"model.{4 + 3 * level}": f"down.{level}" for level in range(4)},
    **{f"model.{16 + block}": f"blocks.{block}" for block in range(4)},
    **{f"model.{20 + 3 * level}": f"up.{level}" for level in range(4)},
}
INPUTS = {  # the release's module -> ours whose first input is that module's output
    "enc_style.model": "encoder.transform_0",
    "enc_style.model_middle": "encoder.transform_1",
    "enc_style.pooled": "encoder.to_style",
}


@pytest.fixture(scope="module")
def meta() -> dict[str, Any]:
    return load_meta("maskgan")


@pytest.fixture(scope="module")
def inputs() -> tuple[Tensor, Tensor]:
    return case_inputs(7, (256, 256), 19, (16, 16))


@pytest.fixture(scope="module")
def generator(meta: dict[str, Any]) -> MaskganGenerator:
    state = fill_with_sigma(meta["keys"], meta["gains"], {})
    assert check_fill(state, meta["keys"]) == []
    loaded = load_release("maskgan", state)
    assert isinstance(loaded, MaskganGenerator)
    assert sum(parameter.numel() for parameter in loaded.parameters()) == 89_702_595
    return loaded


@torch.no_grad()
def test_style_vectors(generator: MaskganGenerator, inputs: tuple[Tensor, Tensor]) -> None:
    compact = load_arrays("maskgan", full=False)
    image, mask = inputs
    for name, reference in (("adain_params", mask), ("adain_params_ref_mask_other", mask.flip(0))):
        np.testing.assert_allclose(generator.encode_style(image, reference), compact[name], rtol=0, atol=STYLE_MAX)


@pytest.mark.slow
@torch.no_grad()
def test_images_and_statistics(
    generator: MaskganGenerator, inputs: tuple[Tensor, Tensor], meta: dict[str, Any]
) -> None:
    expected = load_arrays("maskgan", full=(FULL / "maskgan").is_dir())
    image, mask = inputs
    seen = record_outputs(generator, OUTPUTS)
    hooks = []
    for theirs, ours in INPUTS.items():

        def keep(_module: Any, given: tuple[Tensor, ...], name: str = theirs) -> None:
            seen[name] = statistics(given[0])

        hooks.append(generator.get_submodule(ours).register_forward_pre_hook(keep))
    style = generator.encode_style(image, mask)
    first = style.view(2, 4, 2, 2, 1024)[:, 0, 0]  # block 0, layer 0: shift, scale

    def keep_norm(_module: Any, _given: Any, output: Tensor) -> None:
        seen["first_resblock.adain_0"] = statistics(adaptive_norm(output, first))

    hooks.append(generator.blocks[0].get_submodule("convs.0").register_forward_hook(keep_norm))
    own = generator.synthesize(mask, style).image
    np.testing.assert_allclose(np.stack([seen[name] for name in meta["stat_names"]]), expected["stats"], **IMAGE)
    for hook in hooks:
        hook.remove()
    labels = mask.argmax(dim=1)
    labels[:, 64:128, 64:128] = 13  # cells 4 to 7 of 16
    cases = {
        "image": own,
        "image_style_copy": generator.synthesize(mask, style.flip(0)).image,
        "image_edit": generator.synthesize(one_hot(labels, 19), style).image,
        "image_ref_mask_other": generator.synthesize(mask, generator.encode_style(image, mask.flip(0))).image,
    }
    recorded, own_step = recorded_image(expected, "image")
    for name, made in cases.items():
        theirs_image, step = recorded_image(expected, name)
        np.testing.assert_allclose(made[..., ::step, ::step], theirs_image, **IMAGE)
        if name != "image":
            difference = theirs_image - recorded[..., :: step // own_step, :: step // own_step]
            # of the fixture alone: 0.198 at the least on the pixels kept here, above 0.2 on the full pictures
            assert np.sqrt(np.mean(difference**2)) > 0.19, "the edit is visible"
            np.testing.assert_allclose((made - own)[..., ::step, ::step], difference, rtol=1e-3, atol=2e-4)


def test_style_of_a_bright_image_is_the_naive_forms_in_float64(generator: MaskganGenerator) -> None:
    hold_to_float64(generator, lambda network, image, mask: [network.encode_style(image, mask)])


@pytest.mark.slow
def test_a_bright_image_is_the_naive_forms_in_float64(generator: MaskganGenerator) -> None:
    hold_to_float64(
        generator, lambda network, image, mask: [network.synthesize(mask, network.encode_style(image, mask)).image]
    )

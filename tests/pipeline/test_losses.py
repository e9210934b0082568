"""The training losses: closed forms, the literal loops, gradients where they belong, and switches."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torchvision.models import vgg19

from pipeline.errors import UserError
from pipeline.identity import file_digest
from pipeline.models.kernels import naive_kernels
from pipeline.models.variational import kl_divergence
from pipeline.schema.losses import TERMS, AttentionLoss, LossConfig, PerceptualLoss
from pipeline.training.adversary import PatchAdversary
from pipeline.training.losses import (
    attention_loss,
    discriminator_loss,
    diversity_loss,
    feature_matching_loss,
    focal_frequency_loss,
    generator_gan_loss,
    multiscale_pixel_loss,
    patch_scores,
)
from pipeline.training.objective import Objective
from pipeline.training.perceptual import VggPerceptualLoss
from pipeline.weights import FILES
from tests.pipeline.models.small_models import one_hot, random_inputs

ATTENTION = {"kind": "bce", "weight": 1.0, "class_weights": "none", "levels": "all"}
LOSSES = {
    "gan": {"mode": "hinge", "weight": 1.0},
    "feature_matching": {"weight": 10.0},
    "perceptual": {"weight": 0.0, "layer_weights": [0.03125, 0.0625, 0.125, 0.25, 1.0], "normalise": False},
    "attention": ATTENTION,
    "kl": {"weight": 0.05},
    "pixel": {"weight": 0.0, "scales": 3},
    "diversity": {"weight": 0.0},
}


def attention_config(**changes: Any) -> AttentionLoss:
    return AttentionLoss.model_validate_json(json.dumps({**ATTENTION, **changes}))


def scores(*values: list[float]) -> list[torch.Tensor]:
    return [torch.tensor(value).view(1, 1, 1, -1) for value in values]


def test_hinge_closed_form() -> None:
    fake, real = scores([-2.0, 0.0], [0.5]), scores([2.0, 0.0], [0.5])
    terms = discriminator_loss(fake, real, "hinge")
    assert terms.fake.item() == pytest.approx((0.5 + 1.5) / 2)  # mean over patches, then over scales
    assert terms.real.item() == pytest.approx((0.5 + 0.5) / 2)
    assert sum(terms).item() == pytest.approx(1.5)
    assert generator_gan_loss(fake, "hinge").item() == pytest.approx((1.0 - 0.5) / 2)


def test_least_squares_and_cross_entropy_closed_forms() -> None:
    fake, real = scores([0.0, 2.0]), scores([0.0, 2.0])
    terms = discriminator_loss(fake, real, "lsgan")
    assert (terms.fake.item(), terms.real.item()) == (pytest.approx(2.0), pytest.approx(1.0))
    assert generator_gan_loss(fake, "lsgan").item() == pytest.approx(1.0)
    terms = discriminator_loss(fake, real, "bce")
    softplus = [math.log1p(math.exp(x)) for x in (0.0, 2.0)]
    assert terms.fake.item() == pytest.approx(sum(softplus) / 2, rel=1e-6)
    assert terms.real.item() == pytest.approx((softplus[0] + softplus[1] - 2) / 2, rel=1e-6)
    assert generator_gan_loss(fake, "bce").item() == pytest.approx(terms.real.item())


def test_feature_matching_closed_form_and_gradient() -> None:
    fake = [[torch.zeros(1, 2, 2, 2, requires_grad=True), torch.zeros(1, 1, 1, 1), torch.full((1, 1, 1, 1), 9.0)]]
    real = [[torch.full((1, 2, 2, 2), 2.0, requires_grad=True), torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1)]]
    loss = feature_matching_loss(fake * 2, real * 2)
    assert loss.item() == pytest.approx(3.0), "scores do not count; summed over layers, averaged over two scales"
    loss.backward()  # type: ignore[no-untyped-call]
    assert fake[0][0].grad is not None
    assert real[0][0].grad is None
    assert [score.item() for score in patch_scores(fake)] == [9.0]


def test_kl_is_summed_over_the_batch() -> None:
    mean, log_variance = torch.randn(3, 4), torch.randn(3, 4)
    normal = torch.distributions.Normal(mean, torch.exp(log_variance / 2))
    expected = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0)).sum()
    torch.testing.assert_close(kl_divergence(mean, log_variance), expected)
    assert kl_divergence(torch.zeros(2, 3), torch.zeros(2, 3)).item() == 0


def test_multiscale_pixel_closed_form() -> None:
    fake, real = torch.zeros(1, 1, 2, 2), torch.tensor([[[[1.0, -1.0], [1.0, -1.0]]]])
    assert multiscale_pixel_loss(fake, real, 1).item() == 1
    assert multiscale_pixel_loss(fake, real, 2).item() == pytest.approx(0.5), "the checks cancel at half size"
    assert multiscale_pixel_loss(fake, real, 4).item() == pytest.approx(0.25), "one pixel stays one pixel"


def test_diversity_is_large_for_equal_images() -> None:
    noise = torch.randn(2, 4), torch.randn(2, 4)
    same, other = torch.zeros(2, 3, 4, 4), torch.ones(2, 3, 4, 4)
    gap = (noise[0] - noise[1]).abs().mean(1)
    torch.testing.assert_close(diversity_loss(same, other, *noise), gap.mean(), rtol=1e-4, atol=0)
    assert torch.isfinite(diversity_loss(same, same, *noise))
    assert diversity_loss(same, same, *noise) > 100 * diversity_loss(same, other, *noise)


def levels(num_classes: int, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, num_classes, side, side, generator=generator) for side in (4, 8, 16)]


@given(num_classes=st.integers(2, 20), seed=st.integers(0, 50))
@settings(max_examples=20)
def test_bce_equals_the_releases_loop(num_classes: int, seed: int) -> None:
    _, mask = random_inputs(num_classes, seed=seed)
    logits = levels(num_classes, seed)
    for weights in ("none", "inverse_frequency", [1.0 + k for k in range(num_classes)]):
        cfg = attention_config(class_weights=weights)
        fast = attention_loss(logits, mask, cfg)
        with naive_kernels():
            torch.testing.assert_close(fast, attention_loss(logits, mask, cfg))
    plain = attention_loss(logits, mask, attention_config())
    expected = []
    for logit in logits:
        target = F.interpolate(mask, size=logit.shape[-2:])
        expected.append(F.binary_cross_entropy_with_logits(logit, target))
    torch.testing.assert_close(plain, torch.stack(expected).mean())


def test_class_weights_weigh() -> None:
    """Only class 0 is wrong; what its weight is decides the loss."""
    mask = one_hot(torch.tensor([[[0, 1], [1, 1]]]), 2)
    logits = (mask * 2 - 1) * 30
    logits[:, 0] = 0  # BCE of class 0 = log 2, of class 1 = 0
    log2 = math.log(2)
    for weights, share in (("none", 1 / 2), ([3.0, 1.0], 3 / 4), ([0.0, 1.0], 0.0), ("inverse_frequency", 3 / 4)):
        loss = attention_loss([logits], mask, attention_config(class_weights=weights))
        assert loss.item() == pytest.approx(share * log2, abs=1e-6), weights


def test_cross_entropy_is_torch_s_and_leaves_unknown_pixels_out() -> None:
    labels = torch.randint(0, 5, (2, 8, 8), generator=torch.Generator().manual_seed(0))
    mask, logits = one_hot(labels, 5), levels(5)[1]
    loss = attention_loss([logits], mask, attention_config(kind="ce"))
    torch.testing.assert_close(loss, F.cross_entropy(logits, labels))
    weights = [1.0, 2.0, 3.0, 4.0, 5.0]
    loss = attention_loss([logits], mask, attention_config(kind="ce", class_weights=weights))
    torch.testing.assert_close(loss, F.cross_entropy(logits, labels, weight=torch.tensor(weights)))
    mask[:, :, :3] = 0
    labels[:, :3] = -100
    loss = attention_loss([logits], mask, attention_config(kind="ce"))
    torch.testing.assert_close(loss, F.cross_entropy(logits, labels))


def test_region_divergence_is_zero_at_the_region_and_counts_present_classes() -> None:
    mask = one_hot(torch.tensor([[[0, 0, 1, 1], [0, 0, 1, 1]]]), 3)
    perfect = (mask - 1) * 50
    assert attention_loss([perfect], mask, attention_config(kind="kl")).item() == pytest.approx(0, abs=1e-6)
    flat = torch.zeros(1, 3, 2, 4)
    loss = attention_loss([flat], mask, attention_config(kind="kl"))
    assert loss.item() == pytest.approx(math.log(2)), "regions cover half of the pixels; class 2 is absent"


@pytest.mark.parametrize("kind", ["bce", "ce", "kl"])
@pytest.mark.parametrize("weights", ["none", "inverse_frequency"])
def test_no_nan_for_empty_masks_and_all_background(kind: str, weights: str) -> None:
    for mask in (torch.zeros(1, 4, 8, 8), one_hot(torch.zeros(1, 8, 8, dtype=torch.int64), 4)):
        logits = torch.randn(1, 4, 4, 4, requires_grad=True)
        loss = attention_loss([logits], mask, attention_config(kind=kind, class_weights=weights))
        loss.backward()  # type: ignore[no-untyped-call]
        assert torch.isfinite(loss)
        assert logits.grad is not None
        assert torch.isfinite(logits.grad).all()


def test_levels_choose() -> None:
    _, mask = random_inputs(5)
    logits = levels(5)
    first, _, last = (attention_loss(logits, mask, attention_config(levels=[level])) for level in range(3))
    torch.testing.assert_close(attention_loss(logits, mask, attention_config(levels=[0, 2])), (first + last) / 2)
    with pytest.raises(UserError, match=r"levels is \[5\]; this model has levels 0 to 2"):
        attention_loss(logits, mask, attention_config(levels=[5]))


def test_attention_mistakes_are_named() -> None:
    _, mask = random_inputs(5)
    with pytest.raises(UserError, match="no attention logits"):
        attention_loss([], mask, attention_config())
    with pytest.raises(UserError, match="has 2 entries; the data has 5 classes"):
        attention_loss(levels(5), mask, attention_config(class_weights=[1.0, 2.0]))
    for wrong in ({"levels": [-1]}, {"levels": [1, 1]}, {"class_weights": [0.0, 0.0]}, {"kind": "mse"}):
        with pytest.raises(ValidationError):
            attention_config(**wrong)


def wave(cycles: int, amplitude: float) -> torch.Tensor:
    """One cosine along the columns in every channel: (1,3,8,16)."""
    columns = torch.arange(16, dtype=torch.float64) / 16
    return (amplitude * torch.cos(2 * math.pi * cycles * columns)).expand(1, 3, 8, 16)


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
def test_focal_frequency_closed_form(exponent: float) -> None:
    """Two waves off: each has energy amplitude^2 / 2, and counts amplitude^exponent, the stronger one 1."""
    real = torch.rand(1, 3, 8, 16, dtype=torch.float64)
    fake = real + wave(2, 3.0) + wave(5, 1.5)
    expected = 9.0 / 2 + 0.5**exponent * 2.25 / 2
    assert focal_frequency_loss(fake, real, exponent).item() == pytest.approx(expected, rel=1e-4)
    assert focal_frequency_loss(real + wave(2, 3.0), real, exponent).item() == pytest.approx(4.5, rel=1e-4)
    assert focal_frequency_loss(real, real, exponent).item() == 0


def test_focal_frequency_with_equal_weights_is_the_squared_error_of_pixels() -> None:
    torch.manual_seed(0)
    fake, real = torch.rand(2, 3, 9, 14, requires_grad=True), torch.rand(2, 3, 9, 14)
    loss = focal_frequency_loss(fake, real, 0.0)
    assert loss.item() == pytest.approx(F.mse_loss(fake, real).item(), rel=1e-5)
    (gradient,) = torch.autograd.grad(loss, fake)
    torch.testing.assert_close(gradient, 2 * (fake - real).detach() / fake.numel(), rtol=1e-4, atol=1e-7)


def test_focal_weights_carry_no_gradient_and_are_each_channels_own() -> None:
    torch.manual_seed(0)
    real = torch.rand(2, 3, 8, 8)
    fake = (real + 0.1 * torch.rand(2, 3, 8, 8)).requires_grad_(True)
    spectrum = torch.fft.fft2(fake - real, norm="ortho")
    distance = spectrum.real.square() + spectrum.imag.square()
    weights = distance.detach().sqrt()
    expected = (weights / weights.flatten(2).amax(2)[..., None, None] * distance).mean()
    loss = focal_frequency_loss(fake, real, 1.0)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(torch.autograd.grad(loss, fake)[0], torch.autograd.grad(expected, fake)[0])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert focal_frequency_loss(fake.bfloat16(), real, 1.0).dtype == torch.float32


def test_total_is_the_weighted_sum() -> None:
    losses = LossConfig.model_validate_json(json.dumps(LOSSES))
    objective = Objective(losses, PatchAdversary(losses.gan))
    assert objective.total({"gan": torch.tensor(2.0), "kl": torch.tensor(4.0)}).item() == pytest.approx(
        2.0 + 0.05 * 4.0
    )


def test_weights_leave_out_what_is_off() -> None:
    def weights(**changes: Any) -> dict[str, float]:
        return LossConfig.model_validate_json(json.dumps({**LOSSES, **changes})).weights()

    assert weights() == {"gan": 1.0, "feature_matching": 10.0, "attention": 1.0, "kl": 0.05}
    assert weights(focal_frequency={"weight": 2.0, "exponent": 1.0})["focal_frequency"] == 2.0
    assert "attention" not in weights(attention={**ATTENTION, "kind": "off"})
    assert "attention" not in weights(attention={**ATTENTION, "weight": 0.0})
    assert not attention_config(kind="off").enabled
    assert set(LossConfig.model_fields) == set(TERMS)


PERCEPTUAL = PerceptualLoss(weight=10.0, layer_weights=(1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0), normalise=False)


def test_vgg_weights_that_are_absent_or_others_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a metric's: a loss on wrong weights trains something else and looks like a run."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    losses = LossConfig.model_validate_json(json.dumps({**LOSSES, "perceptual": PERCEPTUAL.model_dump(mode="json")}))
    with pytest.raises(
        UserError, match=r"vgg19-dcbb9e9d\.pth is not in .*weights fetch vgg19.*loss\.perceptual\.weight=0"
    ):
        Objective(losses, PatchAdversary(losses.gan))
    state = {
        f"features.{key}": value for key, value in vgg19(weights=None, init_weights=False).features.state_dict().items()
    }
    torch.save(state, tmp_path / FILES["vgg19"].filename)
    with pytest.raises(UserError, match="vgg19-dcbb9e9d.pth is refused: its sha256 starts with"):
        Objective(losses, PatchAdversary(losses.gan), str(tmp_path))
    monkeypatch.setitem(FILES, "vgg19", replace(FILES["vgg19"], sha256=file_digest(tmp_path / FILES["vgg19"].filename)))
    objective = Objective(losses, PatchAdversary(losses.gan), str(tmp_path))
    assert objective.perceptual is not None
    assert torch.equal(objective.perceptual.slices[4][-2].weight, state["features.28.weight"])  # type: ignore[index,union-attr]


def test_perceptual_loss_reads_the_five_relus() -> None:
    """Random VGG-19 weights: the value equals the sum over hand-collected relu1_1 ... relu5_1 features."""
    torch.manual_seed(0)
    features = vgg19(weights=None).features.eval()
    fake, real = torch.rand(1, 3, 32, 32, requires_grad=True), torch.rand(1, 3, 32, 32, requires_grad=True)
    expected = torch.zeros(())
    relus = [index for index, layer in enumerate(features) if isinstance(layer, torch.nn.ReLU)]
    first_of_block = [relus[n] for n in (0, 2, 4, 8, 12)]
    assert first_of_block == [1, 6, 11, 20, 29]
    with torch.no_grad():
        x, y = fake.clone(), real.clone()
        for index, layer in enumerate(features):
            x, y = layer(x), layer(y)
            if index in first_of_block:
                weight = PERCEPTUAL.layer_weights[first_of_block.index(index)]
                expected = expected + weight * (x - y).abs().mean()
    before = fake.detach().clone()
    loss = VggPerceptualLoss(features, PERCEPTUAL)
    value = loss(fake, real)
    torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-9)
    assert torch.equal(fake.detach(), before)
    value.backward()
    assert fake.grad is not None and fake.grad.abs().sum() > 0
    assert real.grad is None
    assert not any(parameter.requires_grad for parameter in loss.parameters())
    normalised = PerceptualLoss(weight=10.0, layer_weights=PERCEPTUAL.layer_weights, normalise=True)
    assert VggPerceptualLoss(features, normalised)(fake, real).item() != pytest.approx(value.item())

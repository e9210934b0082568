"""The multi-scale patch discriminator: shapes as released, switches, and what each scale sees."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from pipeline.config import compose
from pipeline.errors import UserError
from pipeline.models.build import build_discriminator
from pipeline.models.discriminator import Discriminator, discriminate, judge, views_of
from pipeline.schema.discriminator import DiscriminatorConfig
from tests.pipeline.models.small_models import DISCRIMINATOR, random_inputs


def changed(**changes: Any) -> DiscriminatorConfig:
    return DiscriminatorConfig.model_validate({**DISCRIMINATOR.model_dump(), **changes})


def test_shapes_are_the_releases_at_256() -> None:
    """Sides 129, 65, 33, 34, 35 and their half-size counterparts, with narrow layers."""
    discriminator = build_discriminator(changed(layers=4, width=1), 2)
    image, mask = random_inputs(2, (256, 256), batch=1)
    sides = [[feature.shape[-1] for feature in scale] for scale in discriminator(mask, image)]
    assert sides == [[129, 65, 33, 34, 35], [65, 33, 17, 18, 19]]
    widths = [feature.shape[1] for feature in discriminator(mask, image)[0]]
    assert widths == [1, 2, 4, 8, 1]


@pytest.mark.parametrize("size", [(32, 32), (48, 32), (16, 16)])
@pytest.mark.parametrize("layers", [2, 3, 4])
def test_small_sizes_work(size: tuple[int, int], layers: int) -> None:
    discriminator = build_discriminator(changed(layers=layers), 5)
    image, mask = random_inputs(5, size)
    outputs = discriminator(mask, image)
    assert [len(scale) for scale in outputs] == [layers + 1] * 2
    assert all(torch.isfinite(feature).all() for scale in outputs for feature in scale)


def test_pair_equals_separate_passes() -> None:
    discriminator = build_discriminator(DISCRIMINATOR, 5).eval()
    fake, mask = random_inputs(5, (32, 32))
    real, _ = random_inputs(5, (32, 32), seed=1)
    fake_features, real_features = discriminate(discriminator, mask, fake, real)
    for features, image in ((fake_features, fake), (real_features, real)):
        for left, right in zip(features, discriminator(mask, image), strict=True):
            for pair in zip(left, right, strict=True):
                torch.testing.assert_close(*pair, rtol=1e-4, atol=1e-5)


def test_second_scale_sees_the_pooled_input_without_counting_padding() -> None:
    discriminator = build_discriminator(DISCRIMINATOR, 5).eval()
    image, mask = random_inputs(5, (32, 32))
    x = torch.cat([mask, image], 1)
    ones = F.avg_pool2d(torch.ones(1, 1, 32, 32), 3, 2, 1)  # share of the window inside the image
    pooled = F.avg_pool2d(x, 3, 2, 1) / ones
    torch.testing.assert_close(discriminator.scales[1](pooled)[-1], discriminator(mask, image)[1][-1])


def test_features_are_after_the_activation() -> None:
    discriminator = build_discriminator(changed(norm="none"), 5)
    image, mask = random_inputs(5, (32, 32))
    first = discriminator(mask, image)[0][0]
    expected = F.leaky_relu(discriminator.scales[0].convs[0](torch.cat([mask, image], 1)), 0.2)
    torch.testing.assert_close(first, expected)


def test_label_map_matters() -> None:
    discriminator = build_discriminator(DISCRIMINATOR, 5)
    image, mask = random_inputs(5, (32, 32))
    assert not torch.equal(discriminator(mask, image)[0][-1], discriminator(mask.roll(1, 1), image)[0][-1])


def scores(cfg: DiscriminatorConfig) -> list[torch.Tensor]:
    torch.manual_seed(0)
    image, mask = random_inputs(5, (32, 32))
    return [scale[-1] for scale in build_discriminator(cfg, 5)(mask, image)]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("scales", 1),
        ("layers", 2),
        ("width", 4),
        ("norm", "none"),
        ("norm", "batch"),
        ("init_gain", 0.5),
        ("kind", "gradient_normalised"),
    ],
)
def test_every_switch_changes_the_computation(key: str, value: Any) -> None:
    before, after = scores(DISCRIMINATOR), scores(changed(**{key: value}))
    same_form = [score.shape for score in before] == [score.shape for score in after]
    assert not same_form or (before[0] - after[0]).abs().max() > 1e-4


def test_spectral_norm_acts_on_outputs_only_where_no_norm_follows() -> None:
    """Instance norm undoes any factor on the conv before it: there spectral norm changes gradients, not scores."""
    plain, spectral = scores(changed(spectral_norm=False, norm="none")), scores(changed(norm="none"))
    assert (plain[0] - spectral[0]).abs().max() > 1e-2
    torch.testing.assert_close(scores(changed(spectral_norm=False))[0], scores(DISCRIMINATOR)[0], rtol=0, atol=1e-3)


def test_spectral_norm_sits_between_first_and_score_conv() -> None:
    names = [name for name, _ in build_discriminator(DISCRIMINATOR, 5).named_parameters() if "original" in name]
    assert names == [f"scales.{s}.convs.{n}.parametrizations.weight.original" for s in (0, 1) for n in (1, 2)]


def test_normalised_scores_are_score_over_score_plus_slope() -> None:
    """o / (n + |o|) with n the norm of the gradient with respect to the whole full-size input, map channels included."""
    discriminator = build_discriminator(changed(kind="gradient_normalised", spectral_norm=False), 5)
    image, mask = random_inputs(5, (32, 32))
    raw = discriminator.eval()(mask, image)
    normalised = discriminator.train()(mask, image)
    for number, scale in enumerate(discriminator.scales):
        x = torch.cat([mask, image], 1).requires_grad_()
        views = torch.cat([mask, image], 1), torch.cat([x[:, :5, ::2, ::2], discriminator.pyramid(x[:, 5:])[1]], 1)
        scores = scale(x if number == 0 else views[1])[-1]
        (slope,) = torch.autograd.grad(scores.sum(), x)
        expected = scores / (slope.flatten(1).norm(dim=1).view(-1, 1, 1, 1) + scores.abs())
        torch.testing.assert_close(raw[number][-1], scores)
        torch.testing.assert_close(normalised[number][-1], expected)
        assert normalised[number][-1].abs().max() < 1
        assert all(torch.equal(a, b) for a, b in zip(raw[number][:-1], normalised[number][:-1], strict=True))


def test_gradients_of_normalised_scores_go_through_the_slope() -> None:
    """By finite differences, in double precision: the slope is differentiated too."""
    torch.manual_seed(0)
    discriminator = build_discriminator(changed(kind="gradient_normalised", norm="none", scales=1, width=2), 2).double()
    image, mask = (x.double() for x in random_inputs(2, (8, 8), batch=1))
    towards = torch.randn_like(image)

    def score(step: float) -> torch.Tensor:
        return discriminator(mask, image + step * towards)[0][-1].sum()

    inward = image.clone().requires_grad_()
    discriminator(mask, inward)[0][-1].sum().backward()  # type: ignore[no-untyped-call]
    assert inward.grad is not None
    slope = (score(1e-5) - score(-1e-5)) / 2e-5
    torch.testing.assert_close((inward.grad * towards).sum(), slope.detach(), rtol=1e-4, atol=1e-8)


def test_the_generators_update_sees_the_same_normalised_scores() -> None:
    discriminator = build_discriminator(changed(kind="gradient_normalised", spectral_norm=False), 5).requires_grad_(
        False
    )
    fake, mask = random_inputs(5, (32, 32))
    real, _ = random_inputs(5, (32, 32), seed=1)
    fake.requires_grad_()
    views = views_of(discriminator, mask)
    for together, apart in zip(
        discriminate(discriminator, mask, fake, real), judge(discriminator, views, fake, real), strict=True
    ):
        for left, right in zip(together, apart, strict=True):
            torch.testing.assert_close(left[-1], right[-1])
    fake_features, real_features = judge(discriminator, views, fake, real)
    assert fake_features[0][-1].requires_grad and not real_features[0][-1].requires_grad


@pytest.mark.parametrize("size", [(32, 32), (48, 32), (30, 22)])
def test_the_map_of_a_coarse_scale_is_average_pooled_or_the_nearest_pixel(size: tuple[int, int]) -> None:
    _, mask = random_inputs(5, size)
    pooled, nearest = (
        Discriminator(changed(kind=kind), 5).views(mask) for kind in ("multiscale", "gradient_normalised")
    )
    assert [view.shape for view in pooled] == [view.shape for view in nearest]
    assert set(nearest[1].unique().tolist()) == {0, 1} and torch.equal(
        nearest[1].sum(1), torch.ones_like(nearest[1][:, 0])
    )
    assert len(pooled[1].unique()) > 2


def test_start_values_are_torchs_own_without_a_gain() -> None:
    torch.manual_seed(0)
    own = build_discriminator(changed(init_gain=None, spectral_norm=False), 5).scales[0].convs[0]
    torch.manual_seed(0)
    torch.testing.assert_close(own.weight, torch.nn.Conv2d(8, 8, 4).weight)


def test_a_discriminator_that_is_differentiated_twice_is_not_compiled() -> None:
    with pytest.raises(UserError, match=r"differentiated twice; set train.compile=false"):
        compose(["discriminator.kind=gradient_normalised", "train.compile=true"])


@pytest.mark.parametrize(("key", "value"), [("scales", 0), ("layers", 1), ("norm", "layer"), ("width", 1.5)])
def test_wrong_values_are_refused(key: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=key):
        changed(**{key: value})

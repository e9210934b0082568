"""SemanticStyleGAN at small sizes: fusion, codes, class tables, discriminator and the contract, against closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from pipeline.data.label_spaces import label_space
from pipeline.errors import UserError
from pipeline.models.contract import ComposingGenerator
from pipeline.models.semanticstylegan.codes import CodeBook
from pipeline.models.semanticstylegan.discriminator import deviation
from pipeline.models.semanticstylegan.generator import SemanticStyleGan, real_mask
from pipeline.models.semanticstylegan.layers import doubled, filtered
from pipeline.models.semanticstylegan.synthesis import fusion_weights
from pipeline.schema.model_semanticstylegan import MERGES, SemanticStyleganModel
from pipeline.training.unconditional import path_lengths, pooled_difference, squared_gradients
from tests.pipeline.models.small_models import random_inputs, small_config, small_generator

RELEASE = {"code_width": 8, "local_width": 4, "local_layers": 10, "base_layers": 2, "depth_layers": 6}


def small(num_classes: int = 5, size: tuple[int, int] = (16, 16), **changes: object) -> SemanticStyleGan:
    made = small_generator("semanticstylegan", num_classes, size, **changes)
    assert isinstance(made, SemanticStyleGan)
    return made.eval()


def test_the_mask_is_a_softmax_of_depths_and_weighs_features() -> None:
    depths = torch.randn(4, 2, 9)
    mask, weights = fusion_weights(depths, (), None)
    torch.testing.assert_close(mask, depths.exp() / depths.exp().sum(dim=0))
    torch.testing.assert_close(weights, mask, atol=1e-6, rtol=1e-5)  # nothing is transparent: the two are one


def test_transparent_classes_lie_over_the_others_and_leave_the_mask_alone() -> None:
    depths = torch.log(torch.tensor([0.2, 0.3, 0.5]))[:, None, None]
    mask, weights = fusion_weights(depths, (2,), None)
    torch.testing.assert_close(mask.flatten(), torch.tensor([0.2, 0.3, 0.5]))
    # The opaque ones share 1 between them as 2 : 3; the transparent one's 0.5 comes on top, so the sum is 1.5.
    torch.testing.assert_close(weights.flatten(), torch.tensor([0.4, 0.6, 0.5]))


def test_a_class_that_is_left_out_gives_its_place_to_the_rest() -> None:
    depths = torch.log(torch.tensor([0.2, 0.3, 0.5]))[:, None, None]
    mask, weights = fusion_weights(depths, (), torch.tensor([[1.0, 1.0, 0.0]]))
    torch.testing.assert_close(mask.flatten(), torch.tensor([0.4, 0.6, 0.0]))
    torch.testing.assert_close(weights.flatten(), torch.tensor([0.4, 0.6, 0.0]))


def test_the_28_codes_of_13_classes_go_to_130_layers() -> None:
    book = CodeBook(release_config(), 13)
    assert book.count == 28
    assert book.index[0].tolist() == [2] * 6 + [3] * 4  # the background: its shape six times, no base
    for k in range(1, 13):
        assert book.index[k].tolist() == [0, 1] + [2 + 2 * k] * 4 + [3 + 2 * k] * 4
    codes = torch.arange(28.0).view(1, 28, 1)
    assert torch.equal(book.expand(codes)[0, :, :, 0].long(), book.index)
    assert torch.equal(book.expand(torch.ones(3, 7)), torch.ones(3, 13, 10, 7))


def test_style_mixing_takes_the_base_of_the_first_and_for_each_class_one_of_three_pairs() -> None:
    book = CodeBook(release_config(), 13)
    torch.manual_seed(0)
    mixed = book.mixed(torch.zeros(400, 1), torch.ones(400, 1))[..., 0].long()
    assert not mixed[:, :2].any()
    pairs = mixed[:, 2:].reshape(-1, 2)
    counts = {pair: int((pairs == torch.tensor(pair)).all(dim=1).sum()) for pair in ((0, 0), (0, 1), (1, 1))}
    assert sum(counts.values()) == 400 * 13, "the shape of the second with the texture of the first does not occur"
    assert all(abs(count / (400 * 13) - 1 / 3) < 0.03 for count in counts.values())


def test_exchanging_codes_of_classes_touches_those_codes_alone() -> None:
    generator = small(19, merge="celebamask_13", transparent=(10, 12), **RELEASE)
    first, second = torch.zeros(2, 28, 8), torch.ones(2, 28, 8)
    hair, eyes = 13, (4, 5)  # labels of the data; the network's classes 7 and 2

    def taken(classes: list[list[int]] | None, **what: bool) -> list[list[int]]:
        mixed = generator.exchanged(first, second, classes, **what)
        return [row.nonzero().flatten().tolist() for row in mixed[..., 0]]

    assert taken([[hair], list(eyes)], shape=False, texture=True) == [[17], [7]]
    assert taken([[hair], list(eyes)], shape=True, texture=False) == [[16], [6]]
    assert taken(None, shape=False, texture=True) == [list(range(3, 28, 2))] * 2
    assert taken(None, shape=True, texture=False) == [[0, 1, *range(2, 28, 2)]] * 2


def test_the_table_of_celebamask_merges_sides_and_mouth() -> None:
    merged: dict[int, list[str]] = {}
    for name, k in zip(label_space("celebamask_hq").classes, MERGES["celebamask_13"], strict=True):
        merged.setdefault(k, []).append(name)
    assert [merged[k] for k in range(13)] == [
        ["background"], ["skin"], ["l_eye", "r_eye"], ["l_brow", "r_brow"], ["mouth", "u_lip", "l_lip"], ["nose"],
        ["l_ear", "r_ear"], ["hair"], ["neck_l", "neck"], ["cloth"], ["eye_g"], ["hat"], ["ear_r"],
    ]  # fmt: skip
    generator = small(19, merge="celebamask_13", transparent=(10, 12))
    _, mask = random_inputs(19)
    labels = generator.merged(mask).argmax(dim=1)
    assert torch.equal(labels, torch.tensor(MERGES["celebamask_13"])[mask.argmax(dim=1)])
    assert torch.equal(generator.merged(mask).sum(dim=1), torch.ones(2, 16, 16))


@pytest.mark.parametrize("size", [(16, 16), (32, 16), (24, 24)])
def test_any_number_of_classes_and_sizes_gives_picture_and_mask(size: tuple[int, int]) -> None:
    for num_classes in (2, 7):
        generator = small(num_classes, size)
        image, mask = random_inputs(num_classes, size)
        codes = generator.encode_style(image, mask)
        assert codes.shape == (2, 2 + 2 * num_classes, 8)
        made = generator.synthesize(mask, codes)
        assert made.image.shape == (2, 3, *size) and made.image.abs().max() <= 1
        assert made.layout is not None and made.layout.shape == (2, num_classes, *size)
        discriminator = generator.own_discriminator()
        assert discriminator(made.image, made.layout).shape == (2, 1)
        assert discriminator(made.image, None).shape == (2, 1)


def test_the_layout_asked_for_changes_nothing() -> None:
    generator = small()
    image, mask = random_inputs()
    codes = generator.encode_style(image, mask)
    assert isinstance(generator, ComposingGenerator) and generator.capabilities.layout == "own"
    assert torch.equal(generator.synthesize(mask, codes).image, generator.synthesize(mask.flip(1), codes).image)


def test_texture_codes_leave_the_coarse_mask_and_shape_codes_move_it() -> None:
    generator = small()
    codes = generator.mapping(torch.randn(4 * 12, 8)).view(4, 12, 8)
    before = generator.compose(codes, fixed_noise=True)
    everything = [list(range(5))] * 4
    texture = generator.exchanged(codes, codes.flip(0), everything, shape=False, texture=True)
    shape = generator.exchanged(codes, codes.flip(0), everything, shape=True, texture=False)
    assert torch.equal(generator.compose(texture, fixed_noise=True).coarse, before.coarse)
    assert not torch.equal(generator.compose(texture, fixed_noise=True).image, before.image)
    assert (generator.compose(shape, fixed_noise=True).coarse - before.coarse).abs().max() > 1e-3


def test_fused_features_are_the_weighted_sum_of_each_class_s_own() -> None:
    """The fast form weighs the hidden layer; this is the literal one, class by class."""
    composer = small().composer
    hidden, weights = torch.randn(5, 2, 64, 4), torch.rand(5, 2, 64)
    literal = (composer.local.to_feature(hidden) * weights.unsqueeze(3)).sum(dim=0)  # (N,P,F)
    composer.coarse_size = (8, 8)
    torch.testing.assert_close(
        composer._fused(hidden, weights), literal.transpose(1, 2).unflatten(2, (8, 8)), rtol=1e-4, atol=1e-5
    )


def test_resampling_keeps_a_constant_and_doubles_the_size() -> None:
    x = torch.full((1, 2, 8, 8), 3.0)
    twice = doubled(x)
    assert twice.shape == (1, 2, 16, 16)
    torch.testing.assert_close(twice[..., 2:-2, 2:-2], torch.full((1, 2, 12, 12), 3.0))
    torch.testing.assert_close(filtered(x, 0), torch.full((1, 2, 5, 5), 3.0))


def test_minibatch_deviation_is_that_of_images_n_over_group_apart() -> None:
    x = torch.randn(8, 3, 2, 2)
    spread = deviation(x, 4)
    for place in range(2):
        group = x[place::2]
        expected = (group.var(dim=0, unbiased=False) + 1e-8).sqrt().mean()
        torch.testing.assert_close(spread[place::2], expected.expand(4, 1, 2, 2))
    torch.testing.assert_close(deviation(x[:1], 4), torch.full((1, 1, 2, 2), 1e-4))


def test_r1_of_a_linear_score_is_the_squared_norm_of_its_weights() -> None:
    image_weight, mask_weight = torch.randn(3, 4, 4), torch.randn(2, 4, 4)
    image, mask = torch.randn(5, 3, 4, 4, requires_grad=True), torch.randn(5, 2, 4, 4, requires_grad=True)
    score = (image * image_weight).sum(dim=(1, 2, 3)) + (mask * mask_weight).sum(dim=(1, 2, 3))
    r1_image, r1_mask = squared_gradients(score.unsqueeze(1), image, mask)
    torch.testing.assert_close(r1_image, image_weight.square().sum())
    torch.testing.assert_close(r1_mask, mask_weight.square().sum())


def test_path_length_of_a_linear_picture() -> None:
    """Each code adds its mean to every pixel of one channel: the gradient into a code is the noise's sum over that channel."""
    codes = torch.randn(2, 1, 3, 4, requires_grad=True)  # three codes, one a channel
    image = codes.mean(dim=3)[:, 0, :, None, None].expand(-1, -1, 2, 2)
    noise = torch.randn(2, 3, 2, 2)
    found = path_lengths(image, codes, noise)
    into_code = noise.sum(dim=(2, 3)) / 2 / 4  # over the root of 4 pixels, spread over 4 entries
    expected = (4 * into_code.square()).mean(dim=1).sqrt()
    torch.testing.assert_close(found, expected)


def test_the_mask_regulariser_is_zero_when_pooling_gives_the_coarse_mask() -> None:
    generator = small()
    made = generator.compose(torch.randn(2, 8), fixed_noise=True)
    pooled = torch.nn.functional.avg_pool2d(made.mask, 2)
    agreeing = type(made)(made.image, made.mask, pooled, made.depths)
    assert pooled_difference(agreeing).item() == 0.0
    assert pooled_difference(made).item() == pytest.approx((pooled - made.coarse).square().mean().item(), rel=1e-5)


def test_noise_is_fixed_for_pictures_and_drawn_for_training() -> None:
    generator = small()
    for conv in generator.composer.render.convs:
        torch.nn.init.ones_(conv.get_parameter("noise_weight"))
    w = torch.randn(1, 8)
    assert torch.equal(generator.compose(w, fixed_noise=True).image, generator.compose(w, fixed_noise=True).image)
    assert not torch.equal(generator.compose(w, fixed_noise=False).image, generator.compose(w, fixed_noise=False).image)


def test_sampled_codes_are_drawn_towards_the_mean_by_truncation() -> None:
    _, mask = random_inputs()
    noise = torch.randn(2, 8)
    full, none = (small(truncation=share).sample_style(mask, noise) for share in (1.0, 0.0))
    generator = small()
    assert torch.equal(full, generator.mapping(noise).unsqueeze(1).expand(-1, 12, -1))
    torch.testing.assert_close(none, generator.mean_codes(2))
    z = torch.randn(10_000, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(generator.mean_w, generator.mapping(z).mean(dim=0))


def test_a_real_mask_is_one_hot_times_two_minus_one() -> None:
    assert real_mask(torch.tensor([0.0, 1.0])).tolist() == [-1.0, 1.0]


@pytest.mark.parametrize(
    ("changes", "num_classes", "said"),
    [
        ({"merge": "celebamask_13"}, 5, "model.merge is celebamask_13, a table for 19 labels; these data have 5"),
        ({"transparent": (5,)}, 5, r"model.transparent is \[5\]; this network's classes are 0 to 4"),
    ],
)
def test_tables_that_do_not_fit_the_data_are_named(changes: dict[str, object], num_classes: int, said: str) -> None:
    with pytest.raises(UserError, match=said):
        small(num_classes, **changes)
    with pytest.raises(UserError, match="multiples of its stride 4"):
        small(size=(18, 16))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"depth_layers": 1}, "must ascend"),
        ({"coarse_stage": 2}, r"coarse_stage is 2; allowed: 1 to 1"),
        ({"transparent": (-1,)}, "different class indices from 0"),
    ],
)
def test_sizes_that_contradict_each_other_are_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        small_config("semanticstylegan", **changes)


def test_gradients_reach_every_parameter() -> None:
    generator = small(encoder={"width": 4, "share": 0.5, "lr": 1e-3, "code_weight": 1.0, "mask_weight": 1.0})
    image, mask = random_inputs()
    made = generator.compose(generator.mapping(torch.randn(2, 8)), fixed_noise=False)
    rebuilt = generator.render(generator.encode_style(image, mask))
    (made.image.sum() + made.mask.sum() + rebuilt.image.square().sum()).backward()
    silent = [name for name, part in generator.named_parameters() if part.grad is None]
    assert silent == []
    assert math.isfinite(sum(part.grad.abs().sum().item() for part in generator.parameters() if part.grad is not None))


def release_config() -> SemanticStyleganModel:
    made = small_config("semanticstylegan", **RELEASE)
    assert isinstance(made, SemanticStyleganModel)
    return made

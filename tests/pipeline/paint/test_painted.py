"""A style put together from photos, in closed form with the region-mean painter; and what a family leaves out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from pipeline.config import compose
from pipeline.data.label_spaces import SPACES, label_space
from pipeline.editing.painted import encoded, mask_of, mixed_style, painted, refusals
from pipeline.models.build import build_generator
from pipeline.models.contract import Capabilities, Generator, Synthesis
from pipeline.models.kept import StyleMemory
from pipeline.models.noise import standard_normal
from pipeline.schema.painting import StyleRecipe
from tests.pipeline.metrics.doubles import painter
from tests.pipeline.tiny import TINY

CPU = torch.device("cpu")
SPACE = label_space("celebamask_hq")
LABEL = np.repeat(np.asarray([[1], [13]], dtype=np.uint8), 4, axis=1)  # skin above hair
COLOURS = torch.tensor([[0.0, 0.5, 1.0], [1.0, -1.0, 0.0]])  # of everything in the two photos


def recipe(**changes: object) -> StyleRecipe:
    plain = {"base": 0, "towards": None, "position": 0.0, "noise": 0.0, "seed": 0, "classes": {}}
    return StyleRecipe.model_validate({**plain, **changes})


def styles(place: int) -> Tensor:
    return COLOURS[place].expand(1, SPACE.num_classes, 3)


def colours(**changes: object) -> list[list[float]]:
    """Colours of the two rows of `LABEL`."""
    image = painted(painter(), recipe(**changes), SPACE, LABEL, styles, CPU).image
    return [image[0, :, row, 0].tolist() for row in (0, 1)]


def test_base_way_and_single_classes_by_their_formulas() -> None:
    first, second = COLOURS.tolist()
    between = (0.75 * COLOURS[0] + 0.25 * COLOURS[1]).tolist()
    assert colours() == [first, first]
    assert colours(base=1) == [second, second]
    assert colours(towards=1, position=0.25) == [between, between]
    assert colours(towards=1, position=1.0) == [second, second]
    assert colours(classes={"hair": 1}) == [first, second]
    assert colours(towards=1, position=0.25, classes={"hair": 0}) == [between, first], "a class's own photo holds"


def test_a_photo_is_encoded_under_its_own_map_not_the_painted_one() -> None:
    image = np.zeros((2, 4, 3), dtype=np.uint8)
    image[1] = 255
    style = encoded(painter(), image, LABEL, CPU)
    assert style[0, 1].tolist() == [-1, -1, -1] and style[0, 13].tolist() == [1, 1, 1]


class Sampler(Generator):
    """Its picture is its style, one number a picture; noise is its style."""

    def __init__(self, capabilities: Capabilities) -> None:
        super().__init__()
        self.num_classes, self.stride, self.capabilities = SPACE.num_classes, 1, capabilities

    def sample_style(self, mask: Tensor, noise: Tensor) -> Tensor:
        return noise

    def synthesize(self, mask: Tensor, style: Tensor, *, attention: bool = True) -> Synthesis:
        return Synthesis(style.view(1, -1, 1, 1).expand(1, 3, *mask.shape[2:]) + standard_normal(1, like=mask))


def test_noise_leads_from_the_photo_s_style_to_a_drawn_one_and_scales_where_there_is_no_photo_s() -> None:
    mask = mask_of(LABEL, SPACE.num_classes, CPU)
    drawn = torch.randn(1, 1, generator=torch.Generator().manual_seed(3))
    family = Sampler(Capabilities(style="global", sampling=True, noise_width=1))
    mixed = mixed_style(family, recipe(noise=0.25, seed=3), SPACE, mask, lambda place: torch.full((1, 1), 2.0))
    assert torch.equal(mixed, torch.lerp(torch.full((1, 1), 2.0), drawn, 0.25))
    family = Sampler(Capabilities(style="none", sampling=True, noise_width=1))
    mixed = mixed_style(family, recipe(noise=0.25, seed=3), SPACE, mask, lambda place: torch.empty(1, 0))
    assert torch.equal(mixed, 0.25 * drawn)


def test_a_family_that_draws_noise_in_every_pass_repeats_by_the_seed() -> None:
    family = Sampler(Capabilities(style="global"))
    images = [
        painted(family, recipe(seed=seed), SPACE, LABEL, lambda place: torch.zeros(1, 1), CPU).image
        for seed in (5, 5, 6)
    ]
    assert torch.equal(images[0], images[1]) and not torch.equal(images[0], images[2])


def test_refusals_name_the_reason_by_capability() -> None:
    assert set(refusals(Capabilities(style="per_class", sampling=True, attention=True)).values()) == {""}
    label_alone = refusals(Capabilities(style="none"))
    assert label_alone["photo"] == "the family takes no style from an image"
    assert label_alone["classes"] == "the family has no style per class"
    assert "draws its layout itself" in refusals(Capabilities(style="codes", layout="own"))["layout"]


def test_a_recipe_knows_the_one_photo_of_a_class_or_that_there_is_none() -> None:
    mixed = recipe(base=0, towards=1, position=0.5, classes={"hair": 2})
    assert mixed.photo_of("hair") == 2 and mixed.photo_of("skin") is None
    assert recipe(towards=1, position=1.0).photo_of("skin") == 1
    assert recipe(towards=1, position=0.0).photo_of("skin") == 0
    assert recipe(noise=0.1).photo_of("skin") is None
    with pytest.raises(ValidationError):
        recipe(position=1.5)


@pytest.mark.parametrize("name", SPACES)
def test_written_ids_read_back_as_the_classes_they_were(name: str) -> None:
    space = label_space(name)
    classes = np.arange(space.num_classes, dtype=np.uint8)
    assert np.array_equal(space.decode(np.asarray(space.raw_ids())[classes], name), classes)


@pytest.mark.parametrize("overrides", [("model=sean",), ("model=oasis",), ("model=scam",), ("model=inade",)], ids=str)
def test_families_draw_their_noise_from_the_seed_and_leave_torch_s_generator_alone(overrides: tuple[str, ...]) -> None:
    """Two runs are drawn at the same time in two threads: what one draws must not change the other's noise."""
    config = compose([*TINY, *overrides])
    generator = build_generator(config.model, SPACE.num_classes, config.data.hw).eval()
    label = np.zeros(config.data.hw, dtype=np.uint8)
    style = encoded(generator, np.zeros((*label.shape, 3), dtype=np.uint8), label, CPU)
    before = torch.get_rng_state()
    pictures = [
        painted(generator, recipe(seed=seed), SPACE, label, lambda place: style, CPU).image for seed in (5, 6, 5)
    ]
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(pictures[0], pictures[2])
    torch.manual_seed(5)
    with torch.no_grad():
        plain = generator.synthesize(mask_of(label, SPACE.num_classes, CPU), style).image
    assert torch.equal(pictures[0], plain), "as torch's own generator with that seed"


@pytest.mark.parametrize("size", ["size=16", "size=64"])  # codes spread over regions alone; folded into weights as well
def test_what_is_kept_of_a_style_leaves_the_pictures_of_other_maps_and_styles_as_they_are(size: str) -> None:
    config = compose([*TINY, "model=sean", size])
    generator = build_generator(config.model, SPACE.num_classes, config.data.hw).eval()
    memory, random = StyleMemory(), np.random.default_rng(0)
    labels = random.integers(0, SPACE.num_classes, (2, *config.data.hw))
    photos = random.integers(0, 256, (2, *config.data.hw, 3)).astype(np.uint8)
    styles = [encoded(generator, photo, labels[0], CPU) for photo in photos]
    made = 0
    for label, style in ((0, 0), (1, 0), (1, 1), (0, 1), (0, 0)):

        def draw(kept: StyleMemory | None, label: int = label, style: int = style) -> Tensor:
            return painted(
                generator, recipe(), SPACE, labels[label], lambda place: styles[style], CPU, memory=kept
            ).image

        before = {owner: kept[2] for owner, kept in memory.kept.items()}
        assert torch.equal(draw(memory), draw(None))
        made += any(memory.kept[owner][2] is not kept for owner, kept in before.items())
    assert memory.kept and made == 2, "made anew where the style is another one, and only there"

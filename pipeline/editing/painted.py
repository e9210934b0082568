"""A painted label map in a style put together from photos: what one stroke of the paint page, and its repetition, computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.data.batch import image_tensor, one_hot
from pipeline.data.label_spaces import LabelSpace
from pipeline.editing.tasks import refusal
from pipeline.models.contract import Capabilities, Generator, Synthesis
from pipeline.models.kept import StyleMemory, style_kept
from pipeline.models.noise import noise_seeded
from pipeline.schema.painting import StyleRecipe

Wish = Literal["layout", "photo", "towards", "classes", "noise", "attention"]
Styles = Callable[[int], Tensor]  # place of a style photo -> its style (1,...)


def refusals(capabilities: Capabilities) -> dict[Wish, str]:
    """Why a family cannot do what the paint page offers, "" where it can: asked of its capabilities, never of its name."""
    given = capabilities.layout == "given"
    photo = refusal("global_style_transfer", capabilities)
    return {
        "layout": "" if given else "the family draws its layout itself and cannot be told a painted one",
        "photo": photo,
        "towards": photo,
        "classes": refusal("style_transfer", capabilities),
        "noise": refusal("sampling", capabilities),
        "attention": "" if capabilities.attention else "the family has no attention",
    }


def encoded(generator: Generator, image: NDArray[np.uint8], label: NDArray[np.integer], device: torch.device) -> Tensor:
    """Style (1,...) of a photo (H,W,3) under its own label map (H,W)."""
    with torch.no_grad():
        return generator.encode_style(
            image_tensor(image[None]).to(device), mask_of(label, generator.num_classes, device)
        )


def mask_of(label: NDArray[np.integer], num_classes: int, device: torch.device) -> Tensor:
    """(1,K,H,W) one-hot of a label map (H,W)."""
    return one_hot(torch.from_numpy(label.astype(np.int64)[None]).to(device), num_classes)


def mixed_style(generator: Generator, recipe: StyleRecipe, space: LabelSpace, mask: Tensor, styles: Styles) -> Tensor:
    """The style (1,...) of a recipe for the layout `mask` (1,K,H,W); what the family cannot do is left out.

    First the way from `base` to `towards`, then that towards a drawn style, then single classes: what is said of a class holds
    whatever the rest is drawn as. A family that takes no style from a photo scales its noise instead.
    """
    can = refusals(generator.capabilities)
    style = styles(recipe.base)
    if recipe.towards is not None and recipe.position > 0 and not can["towards"]:
        style = torch.lerp(style, styles(recipe.towards), recipe.position)
    if recipe.noise > 0 and not can["noise"]:
        drawn = torch.randn(
            1, generator.capabilities.noise_width, generator=torch.Generator().manual_seed(recipe.seed)
        ).to(mask.device)
        if can["photo"]:
            style = generator.sample_style(mask, recipe.noise * drawn)
        else:
            style = torch.lerp(style, generator.sample_style(mask, drawn), recipe.noise)
    if recipe.classes and not can["classes"]:
        style = style.clone()
        for name, place in recipe.classes.items():
            style[:, space.index(name)] = styles(place)[:, space.index(name)]
    return style


def painted(
    generator: Generator,
    recipe: StyleRecipe,
    space: LabelSpace,
    label: NDArray[np.integer],
    styles: Styles,
    device: torch.device,
    *,
    attention: bool = False,
    memory: StyleMemory | None = None,
) -> Synthesis:
    """The picture of a painted label map (H,W).

    `memory`: of this generator, where many maps are painted in one style; the picture is the same bits. Some families draw noise
    in every pass: they draw it from the recipe's seed, for a picture must repeat.
    """
    mask = mask_of(label, generator.num_classes, device)
    with torch.no_grad(), noise_seeded(recipe.seed, device), style_kept(memory or StyleMemory()):
        style = mixed_style(generator, recipe, space, mask, styles)
        return generator.synthesize(mask, style, attention=attention)

"""HaarPSI: equality with its definition, recorded numbers, degradations, and what every image metric must hold."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from pipeline.data.procfaces import layout_of, light_of, render, styles_of
from pipeline.metrics.haarpsi import haarpsi
from pipeline.metrics.images import ImageBatch, from_uint8

Pictures = np.ndarray  # (N,H,W,3) uint8


def pair(height: int = 32, width: int = 48, noise: float = 0.1, count: int = 3) -> tuple[ImageBatch, ImageBatch]:
    generator = torch.Generator().manual_seed(1)
    real = torch.rand(count, 3, height, width, generator=generator)
    fake = (real + noise * torch.randn(real.shape, generator=generator)).clamp(0, 1)
    return ImageBatch(fake, "unit"), ImageBatch(real, "unit")


def faces(size: int, count: int = 6) -> Pictures:
    return np.stack([render(layout_of(0, i), styles_of(0, i), light_of(0, i), size, size) for i in range(count)])


def each(pictures: Pictures, change: Callable[[Image.Image], Image.Image]) -> Pictures:
    return np.stack([np.asarray(change(Image.fromarray(picture))) for picture in pictures])


def noisy(pictures: Pictures, deviation: float) -> Pictures:
    drawn = np.random.default_rng(0).normal(size=pictures.shape)
    return np.clip(pictures + deviation * drawn, 0, 255).round().astype(np.uint8)


def blurred(pictures: Pictures, radius: float) -> Pictures:
    return each(pictures, lambda picture: picture.filter(ImageFilter.GaussianBlur(radius)))


def shifted(pictures: Pictures, pixels: float) -> Pictures:
    return np.roll(pictures, int(pixels), axis=2)


def compressed(pictures: Pictures, quality: float) -> Pictures:
    def through_jpeg(picture: Image.Image) -> Image.Image:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=int(quality))
        return Image.open(file)

    return each(pictures, through_jpeg)


@pytest.mark.parametrize("size", [(16, 16), (33, 48), (31, 17)])
def test_it_is_what_its_paper_defines_at_even_and_odd_sizes(size: tuple[int, int]) -> None:
    for noise in (0.02, 0.1, 0.5):
        fake, real = pair(*size, noise=noise, count=1)
        expected = written_out(fake.tensor[0].numpy(), real.tensor[0].numpy())
        assert haarpsi(fake, real).item() == pytest.approx(expected, abs=1e-9)


def written_out(fake: np.ndarray, real: np.ndarray) -> float:
    """Sections 2 and 3.1 of the paper in loops, for one pair (3,H,W) in [0, 1]: halve, filter, compare, weigh."""
    matrix = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
    images = []
    for image in (fake, real):
        yiq = np.einsum("ij,jhw->ihw", matrix, image.astype(float) * 255)
        yiq = np.pad(yiq, ((0, 0), (0, yiq.shape[1] % 2), (0, yiq.shape[2] % 2)))
        images.append(yiq.reshape(3, yiq.shape[1] // 2, 2, yiq.shape[2] // 2, 2).mean(axis=(2, 4)))

    def window(plane: np.ndarray, side: int) -> np.ndarray:
        before, after = (side - 1) // 2, side // 2
        return np.lib.stride_tricks.sliding_window_view(np.pad(plane, (before, after)), (side, side))

    def edges(plane: np.ndarray, scale: int) -> np.ndarray:
        around = window(plane, 2**scale)
        half = around.shape[2] // 2
        return np.abs(around[:, :, :half].sum(axis=(2, 3)) - around[:, :, half:].sum(axis=(2, 3))) / 2**scale

    def alike(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (2 * a * b + 30) / (a**2 + b**2 + 30)

    x, y = images
    total = weights = 0.0
    heavy = []
    for turn in (False, True):
        a, b = (image[0].T if turn else image[0] for image in images)
        similar = (alike(edges(a, 1), edges(b, 1)) + alike(edges(a, 2), edges(b, 2))) / 2
        weight = np.maximum(edges(a, 3), edges(b, 3))
        heavy.append(weight.T if turn else weight)
        total, weights = total + (weight / (1 + np.exp(-4.2 * similar))).sum(), weights + weight.sum()
    colours = [[np.abs(window(image[k], 2).mean(axis=(2, 3))) for k in (1, 2)] for image in (x, y)]
    similar = (alike(colours[0][0], colours[1][0]) + alike(colours[0][1], colours[1][1])) / 2
    weight = (heavy[0] + heavy[1]) / 2
    total, weights = total + (weight / (1 + np.exp(-4.2 * similar))).sum(), weights + weight.sum()
    return float((np.log(total / weights / (1 - total / weights)) / 4.2) ** 2)


def test_known_pictures_have_the_values_that_piq_gave_for_them() -> None:
    row = torch.linspace(0, 1, 32).expand(32, 32)
    waves = (torch.arange(32) * 0.7).sin().expand(32, 32) / 2 + 0.5
    real = torch.stack([row, row.T, waves])[None]
    fakes = torch.cat([real.flip(1), real.flip(3), 0.5 * real + 0.25, real.round()])
    found = haarpsi(ImageBatch(fakes, "unit"), ImageBatch(real.expand(4, 3, 32, 32).contiguous(), "unit"))
    assert found.tolist() == pytest.approx(
        [0.64248989, 0.48284044, 0.73161633, 0.19889558], abs=1e-6
    )  # piq 0.8.0, float64


def test_equal_images_have_one_whatever_they_show() -> None:
    image, _ = pair()
    assert haarpsi(image, image).tolist() == pytest.approx([1, 1, 1], abs=1e-12)
    for grey in (0.0, 0.5, 1.0):  # of black images nothing weighs
        flat = ImageBatch(torch.full((1, 3, 32, 32), grey), "unit")
        assert haarpsi(flat, flat).item() == pytest.approx(1, abs=1e-12)
    black, white = (ImageBatch(torch.full((1, 3, 32, 32), grey), "unit") for grey in (0.0, 1.0))
    assert 0 <= haarpsi(black, white).item() < 0.3


@pytest.mark.parametrize("size", [32, 64, 128])
@pytest.mark.parametrize(
    ("degrade", "levels"),
    [
        (noisy, (4, 12, 32, 80)),
        (blurred, (0.5, 1, 2, 4)),
        (shifted, (1, 2, 3, 4)),
        (compressed, (90, 50, 20, 5)),
    ],
    ids=["noise", "blur", "shift", "jpeg"],
)
def test_it_falls_with_every_degradation(
    degrade: Callable[[Pictures, float], Pictures], levels: tuple[float, ...], size: int
) -> None:
    real = faces(size)
    values = [haarpsi(from_uint8(degrade(real, level)), from_uint8(real)) for level in levels]
    means = [1.0, *(float(value.mean()) for value in values)]
    assert all(worse < better - 0.005 for better, worse in pairwise(means)), means
    assert bool((values[-1] < values[0]).all()), "for each image, not only on average"


def test_a_uniform_change_of_brightness_hardly_counts() -> None:
    real = torch.from_numpy(faces(64)).permute(0, 3, 1, 2).float() / 255 * 0.8
    brighter = haarpsi(ImageBatch(real + 0.1, "unit"), ImageBatch(real, "unit"))
    assert bool((brighter > 0.9).all()), "the blind spot that docs/metrics.md names"


def test_colour_counts() -> None:
    real = from_uint8(faces(64))
    grey = ImageBatch(real.tensor.mean(dim=1, keepdim=True).expand_as(real.tensor).contiguous(), "unit")
    assert bool((haarpsi(grey, real) < 0.95).all())


def test_grey_images_have_values_too() -> None:
    fake, real = (ImageBatch(batch.tensor[:, :1].expand(-1, 3, -1, -1).contiguous(), "unit") for batch in pair())
    found = haarpsi(fake, real)
    assert bool(((found > 0) & (found < 1)).all())


def test_which_image_is_the_target_and_which_way_they_lie_does_not_matter() -> None:
    fake, real = pair(33, 48)
    found = haarpsi(fake, real)
    assert haarpsi(real, fake).tolist() == pytest.approx(found.tolist(), rel=1e-12)
    lying = (ImageBatch(batch.tensor.mT.contiguous(), "unit") for batch in (fake, real))
    assert haarpsi(*lying).tolist() == pytest.approx(found.tolist(), rel=1e-12)


def test_values_do_not_depend_on_batch_or_order_or_the_declared_range() -> None:
    fake, real = pair(count=4)
    whole = haarpsi(fake, real)
    for i in (3, 0, 2, 1):
        a, b = ImageBatch(fake.tensor[i : i + 1], "unit"), ImageBatch(real.tensor[i : i + 1], "unit")
        assert haarpsi(a, b).item() == pytest.approx(whole[i].item(), rel=1e-12)
    signed = ImageBatch(fake.signed(), "signed"), ImageBatch(real.signed(), "signed")
    assert haarpsi(*signed).tolist() == pytest.approx(whole.tolist(), rel=1e-5)
    assert torch.equal(haarpsi(fake, real), whole), "the same twice"


def test_small_images_and_what_is_no_image_are_refused() -> None:
    small = ImageBatch(torch.zeros(1, 3, 15, 32), "unit")
    with pytest.raises(ValueError, match="smaller than 16 pixels"):
        haarpsi(small, small)
    with pytest.raises(TypeError, match="ImageBatch"):
        haarpsi(torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 32, 32))  # type: ignore[arg-type]
    broken: Tensor = torch.zeros(1, 3, 32, 32)
    broken[0, 0, 0, 0] = math.nan
    with pytest.raises(ValueError, match="found \\[nan"):
        ImageBatch(broken, "unit")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_values() -> None:
    fake, real = pair()
    there = haarpsi(fake.to("cuda"), real.to("cuda"))
    assert there.cpu().tolist() == pytest.approx(haarpsi(fake, real).tolist(), rel=1e-12)

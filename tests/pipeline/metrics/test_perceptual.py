"""LPIPS, DISTS and Inception features on locally made files of the right shapes: the real loading and measuring code."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from pipeline import weights
from pipeline.metrics.features import InceptionFeatures
from pipeline.metrics.images import ImageBatch
from pipeline.metrics.perceptual import Dists, Lpips, self_test
from pipeline.weights import WeightsMissing

CPU = torch.device("cpu")


class Pools(nn.Module):
    """Stands in for Inception: block means of the picture, 2048 of them, and as many squares."""

    def forward(self, x: Tensor) -> Tensor:
        pooled = torch.nn.functional.adaptive_avg_pool2d(x, [19, 18]).flatten(1)[:, :1024]
        return torch.cat([pooled, pooled * pooled], dim=1)


class InceptionDouble(nn.Module):
    """Has `layers`, as the TorchScript file has."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = Pools()

    def forward(self, x: Tensor, return_features: bool = False) -> Tensor:
        return self.layers((x - 128) / 128)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Backbones with random weights under the names of the real ones, known by their own digests."""
    from torchvision.models import alexnet, vgg16

    place = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(place / "hub"))
        for name, network in (("alexnet", alexnet(weights=None).features), ("vgg16", vgg_features(vgg16))):
            path = place / weights.FILES[name].filename
            torch.save({f"features.{key}": value for key, value in network.state_dict().items()}, path)
            know(patch, name, path)
        path = place / weights.FILES["inception"].filename
        torch.jit.script(InceptionDouble()).save(str(path))
        know(patch, "inception", path)
        yield place


def vgg_features(vgg16) -> nn.Module:  # type: ignore[no-untyped-def]
    return vgg16(weights=None, init_weights=False).features


def know(patch: pytest.MonkeyPatch, name: str, path: Path) -> None:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    patch.setitem(weights.FILES, name, replace(weights.FILES[name], sha256=digest))


def images(seed: int, count: int = 2, noise: float = 0.2) -> tuple[ImageBatch, ImageBatch]:
    generator = torch.Generator().manual_seed(seed)
    real = torch.rand(count, 3, 48, 40, generator=generator)
    fake = (real + noise * torch.randn(real.shape, generator=generator)).clamp(0, 1)
    return ImageBatch(fake, "unit"), ImageBatch(real, "unit")


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_lpips_is_the_package_on_signed_images(net: str, folder: Path) -> None:
    import lpips

    metric = Lpips(net, str(folder), CPU)  # type: ignore[arg-type]
    fake, real = images(0)
    package = lpips.LPIPS(pretrained=True, pnet_rand=True, net=net, verbose=False)
    package.net.load_state_dict(metric.network.net.state_dict())
    with torch.no_grad():
        theirs = package(fake.tensor * 2 - 1, real.tensor * 2 - 1).flatten()
    assert metric.distance(fake, real).tolist() == pytest.approx(theirs.tolist(), rel=1e-5)
    # The declaration decides: the same picture as signed batch gives the same number.
    signed = ImageBatch(fake.signed(), "signed"), ImageBatch(real.signed(), "signed")
    assert metric.distance(*signed).tolist() == pytest.approx(theirs.tolist(), rel=1e-4)
    with pytest.raises(TypeError, match="declares its range"):
        metric.distance(fake.tensor, real.tensor)  # type: ignore[arg-type]
    assert metric.weights_digest.count("+") == 1


def test_the_backbone_really_is_the_file(folder: Path) -> None:
    state = torch.load(folder / weights.FILES["alexnet"].filename, weights_only=True)
    network = Lpips("alex", str(folder), CPU).network.net
    assert torch.equal(getattr(network.slice3, "6").weight, state["features.6.weight"])


def test_dists_is_torchmetrics_on_the_same_weights(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision.models
    from torchmetrics.functional.image import dists as theirs

    metric = Dists(str(folder), CPU)
    network = torchvision.models.vgg16(weights=None, init_weights=False)
    network.features.load_state_dict(
        {key[9:]: value for key, value in torch.load(folder / weights.FILES["vgg16"].filename).items()}
    )
    monkeypatch.setattr(theirs, "vgg16", lambda weights: network)
    monkeypatch.setattr(theirs.torch, "load", lambda path: torch_load(path))
    reference = theirs.DISTSNetwork()
    fake, real = images(1)
    assert metric.distance(fake, real).tolist() == pytest.approx(reference(fake.tensor, real.tensor).tolist(), abs=1e-5)


_load = torch.load


def torch_load(path: str) -> object:
    return _load(path, map_location="cpu", weights_only=True)


@pytest.mark.parametrize("make", [lambda f: Lpips("alex", f, CPU), lambda f: Dists(f, CPU)])
def test_more_noise_is_farther_and_the_same_image_is_at_zero(make, folder: Path) -> None:  # type: ignore[no-untyped-def]
    metric = make(str(folder))
    mild, real = images(2, noise=0.05)
    strong, _ = images(2, noise=0.4)
    assert metric.distance(real, real).tolist() == pytest.approx([0, 0], abs=1e-5)
    assert bool((metric.distance(strong, real) > metric.distance(mild, real)).all())


def test_the_self_test_catches_weights_that_measure_nothing() -> None:
    class Constant:
        weights_digest = ""

        def distance(self, a: ImageBatch, b: ImageBatch) -> Tensor:
            return torch.zeros(len(a), dtype=torch.float64)

    with pytest.raises(WeightsMissing, match="self-test"):
        self_test(Constant(), "nothing", CPU)


def test_absent_backbones_say_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(WeightsMissing, match="weights fetch alexnet"):
        Lpips("alex", None, CPU)


def test_inception_features_are_clean_fids_without_the_files(folder: Path, tmp_path: Path) -> None:
    from cleanfid.fid import get_folder_features
    from cleanfid.inception_torchscript import InceptionV3W

    extractor = InceptionFeatures(str(folder), CPU)
    _, real = images(3, count=5)
    for i, picture in enumerate(real.uint8()):
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
    model = InceptionV3W(str(folder), download=False, resize_inside=False)
    theirs = get_folder_features(
        str(tmp_path), model=model, num_workers=0, batch_size=2, device=CPU, mode="clean", verbose=False
    )
    mine = extractor.features(real)
    assert mine.shape == (5, 2048)
    assert np.allclose(mine, theirs, atol=1e-6)
    assert np.array_equal(extractor.features(ImageBatch(real.tensor[3:4], "unit"))[0], mine[3])


def test_a_file_that_is_no_inception_is_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / weights.FILES["inception"].filename
    torch.jit.script(Pools()).save(str(path))
    know(monkeypatch, "inception", path)
    with pytest.raises(WeightsMissing, match="not the TorchScript Inception"):
        InceptionFeatures(str(tmp_path), CPU)

"""Feature extractors behind distribution distances: clean-fid's Inception from memory, and the project's own segmenter."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.metrics.images import ImageBatch
from pipeline.metrics.segmenter import Segmenter
from pipeline.metrics.segmenter_training import LEAST_SHARE
from pipeline.weights import WeightsMissing, verified

INCEPTION_WIDTH = 2048
INCEPTION_CHUNK = 32  # images at once: bounds memory at 299 x 299


class FeatureExtractor(Protocol):
    """Turns images into rows whose distribution is compared."""

    names: tuple[str, str]  # the Fréchet and the kernel metric
    identity: str  # weights, implementation and resize: enters fingerprints and cache keys
    width: int

    def features(self, images: ImageBatch) -> NDArray[np.float32]:
        """(N, width)."""
        ...


class InceptionFeatures:
    """clean-fid's features without the detour over PNG files: 8-bit images, PIL bicubic to 299, TorchScript Inception of 2015."""

    names = ("fid", "kid_x1000")
    width = INCEPTION_WIDTH

    def __init__(self, folder: str | None, device: torch.device) -> None:
        """Raises WeightsMissing when the file is absent or refused, or features come out wrong."""
        path, digest = verified("inception", folder)
        from cleanfid.resize import build_resizer

        self.resize: Callable[[NDArray[np.uint8]], NDArray[np.float32]] = build_resizer("clean")
        self.network = _inception(path).to(device)
        self.device = device
        self.identity = f"clean-fid {version('clean-fid')} clean resize, inception {digest}"
        self._self_test()

    def features(self, images: ImageBatch) -> NDArray[np.float32]:
        """(N, 2048) float32; images are rounded to 8 bits first, as files are."""
        found = []
        pictures = images.uint8()
        for start in range(0, len(pictures), INCEPTION_CHUNK):
            resized = np.stack([self.resize(picture) for picture in pictures[start : start + INCEPTION_CHUNK]])
            batch = torch.from_numpy(resized).permute(0, 3, 1, 2).to(self.device)  # (n,3,299,299) float32 in [0, 255]
            with torch.no_grad():
                found.append(self.network(batch).cpu().numpy())
        return np.concatenate(found)

    def _self_test(self) -> None:
        """Two unlike images must give finite, unlike features of the right width, twice the same."""
        generator = torch.Generator().manual_seed(0)
        pair = torch.stack([torch.rand(3, 64, 64, generator=generator), torch.linspace(0, 1, 64).expand(3, 64, 64)])
        first, second = (self.features(ImageBatch(pair.contiguous(), "unit")) for _ in range(2))
        sound = first.shape == (2, self.width) and bool(np.isfinite(first).all()) and np.array_equal(first, second)
        if not sound or float(np.abs(first[0] - first[1]).max()) < 1e-4:
            raise WeightsMissing("Inception fails its self-test: features of two unlike images are not usable")


def _inception(path: Path) -> torch.nn.Module:
    """clean-fid's wrapper reads `inception-2015-12-05.pt` from a folder."""
    from cleanfid.inception_torchscript import InceptionV3W

    try:
        network: torch.nn.Module = InceptionV3W(str(path.parent), download=False, resize_inside=False)
    except (RuntimeError, AttributeError) as error:
        raise WeightsMissing(f"{path} is refused: it is not the TorchScript Inception") from error
    return network.eval()


class SegmenterFeatures:
    """Mean-pooled inner features of the project's own segmenter: an in-domain space that needs no downloaded weights."""

    names = ("fd_seg", "kd_seg_x1000")

    def __init__(self, segmenter: Segmenter) -> None:
        """Raises WeightsMissing for an external segmenter, which hands out logits only."""
        if segmenter.feature_width is None:
            raise WeightsMissing("the external segmenter gives no features; fd_seg needs segmenter.external=null")
        self.segmenter = segmenter
        self.width = segmenter.feature_width
        self.identity = f"segmenter {segmenter.digest}, deviations of at least {LEAST_SHARE} of their root mean square"

    def features(self, images: ImageBatch) -> NDArray[np.float32]:
        """(N, width) float32."""
        return self.segmenter.features(images)

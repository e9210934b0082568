"""What the parts of an evaluation see of one batch: the data, the reconstruction, the attention."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.data.batch import Batch
from pipeline.errors import RunFailed
from pipeline.metrics import cost
from pipeline.metrics.images import ImageBatch
from pipeline.models.contract import Generator, instance_arguments
from pipeline.models.external import RECONSTRUCTION, ExternalPictures


def reconstruct(generator: Generator, batch: Batch, device: torch.device, first_index: int = 0) -> View:
    """Reconstruction of a batch from its own style. Raises RunFailed when the output is not finite."""
    batch = batch.to(device)
    if isinstance(generator, ExternalPictures):
        pictures = as_images(generator.pictures.read(RECONSTRUCTION, batch.keys).to(device))
        return View(batch, ImageBatch(batch.image, "signed"), pictures, [], None, 0.0, first_index)
    begin = cost.now(device)
    instances = instance_arguments(generator, batch.instance)
    style = generator.encode_style(batch.image, batch.mask, **instances)
    synthesis = generator.synthesize(batch.mask, style, attention=generator.capabilities.attention, **instances)
    seconds = cost.now(device) - begin
    return View(
        batch=batch,
        target=ImageBatch(batch.image, "signed"),
        output=as_images(synthesis.image),
        attention=synthesis.attention,
        layout=synthesis.layout,
        seconds=seconds,
        first_index=first_index,
    )


def as_images(image: Tensor) -> ImageBatch:
    """A generator's output (N,3,H,W) as a range-declared batch; RunFailed when it is not finite."""
    if not bool(torch.isfinite(image).all()):
        raise RunFailed("the generator's output is not finite: nothing can be measured on it")
    return ImageBatch(image.to(torch.float32), "signed")


@dataclass(frozen=True)
class View:
    """A batch and its reconstruction, on the evaluation's device."""

    batch: Batch
    target: ImageBatch
    output: ImageBatch
    attention: list[Tensor]  # per level (N,K,h,w) logits, or empty
    layout: Tensor | None  # (N,K',H,W) logits of the layout the family drew itself, None where it draws the given one
    seconds: float  # wall time of encode and synthesise
    first_index: int  # index of the first image within the data set

    @property
    def label(self) -> Tensor:
        """(N,H,W) int64."""
        return self.batch.label

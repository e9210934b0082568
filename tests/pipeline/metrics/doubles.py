"""Generators with known behaviour, small data sets and small protocols for the tests of metrics."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.config import compose, load_protocol
from pipeline.data import Dataset, Split, build_dataset
from pipeline.data.batch import image_tensor
from pipeline.data.procfaces.render import render_label
from pipeline.data.procfaces.styles import FaceStyles
from pipeline.editing.truth import Renderer, renderer_of
from pipeline.evaluation.context import split_source
from pipeline.evaluation.evaluator import Evaluation
from pipeline.models.build import build_generator
from pipeline.models.contract import Capabilities, Generator, Synthesis
from pipeline.records.rows import MetricRow
from pipeline.schema.data import DataConfig
from pipeline.schema.evaluation import ProtocolConfig

CLASSES = 19
CPU = torch.device("cpu")


def data_config(images: int = 12, size: int = 32, **changes: Any) -> DataConfig:
    """Procedural faces, `images` of each split."""
    counts = [f"data.{split}_images={images}" for split in ("train", "val", "test")]
    return compose([*counts, f"size={size}", "data.cache=memory"]).data.model_copy(update=changes)


def faces(images: int = 12, size: int = 32, split: Split = "test") -> Dataset:
    return build_dataset(data_config(images, size), split)


SPLITS = split_source(lambda split: build_dataset(data_config(), split))


def protocol(*groups: str, **changes: Any) -> ProtocolConfig:
    """The protocol quick with other groups and settings; `editing__pairs=3` reaches into a section."""
    config = load_protocol("quick").model_copy(update={"groups": groups, "split": "test", "images": None})
    for key, value in changes.items():
        section, inner, field = key.partition("__")
        if inner:
            value = getattr(config, section).model_copy(update={field: value})
        config = config.model_copy(update={section: value})
    return config


def painter() -> Generator:
    """The region-mean painter."""
    return build_generator(compose(["model=painter"]).model, CLASSES, (32, 32))


def rows_of(evaluation: Evaluation) -> dict[str, MetricRow]:
    """Rows by name."""
    return {row.name: row for row in evaluation.rows}


def numbers(evaluation: Evaluation, *, but: tuple[str, ...] = ()) -> dict[str, tuple[float | None, str]]:
    """Value and fingerprint of every row `but` some."""
    return {row.name: (row.value, row.fingerprint) for row in evaluation.rows if row.name not in but}


def small_ca2sis() -> Generator:
    """(CA)²-SIS as released, untrained."""
    torch.manual_seed(0)
    return build_generator(compose([]).model, CLASSES, (32, 32))


class Echo(Generator):
    """Gives back the photo it was styled with, plus noise of strength `noise` that depends on the photo alone."""

    def __init__(self, noise: float = 0.0) -> None:
        super().__init__()
        self.num_classes, self.stride, self.noise = CLASSES, 1, noise
        self.capabilities = Capabilities(style="global")
        self.calls = 0

    def encode_style(self, image: Tensor, mask: Tensor) -> Tensor:
        return image.flatten(1)

    def synthesize(self, mask: Tensor, style: Tensor, *, attention: bool = True) -> Synthesis:
        self.calls += 1
        image = style.view(-1, 3, *mask.shape[-2:])
        pattern = torch.rand(image.shape[1:], generator=torch.Generator().manual_seed(0)) * 2 - 1
        return Synthesis((image + self.noise * pattern).clamp(-1, 1))


class RendererGenerator(Generator):
    """The perfect editor: recognises the photo and draws with the renderer.

    The style code of a class is (face that its look comes from, face that its light comes from); the light of the picture is
    the one most classes bring along.
    """

    def __init__(self, dataset: Dataset) -> None:
        super().__init__()
        self.num_classes, self.stride = CLASSES, 1
        self.capabilities = Capabilities(style="per_class")
        renderer = renderer_of(dataset)
        assert renderer is not None
        self.renderer: Renderer = renderer
        self.known = image_tensor(np.stack([dataset[i].image for i in range(len(dataset))]))

    def encode_style(self, image: Tensor, mask: Tensor) -> Tensor:
        nearest = torch.cdist(image.flatten(1), self.known.flatten(1)).argmin(dim=1)
        return nearest.view(-1, 1, 1).expand(-1, CLASSES, 2).to(torch.float32).clone()

    def synthesize(self, mask: Tensor, style: Tensor, *, attention: bool = True) -> Synthesis:
        pictures = []
        for label, codes in zip(mask.argmax(dim=1).numpy(), style.round().long(), strict=True):
            looks = [self.renderer._look(int(code)) for code in codes[:, 0]]
            styles = FaceStyles(tuple(look.classes[k] for k, (look, _) in enumerate(looks)))
            _, light = self.renderer._look(int(codes[:, 1].mode().values))
            pictures.append(render_label(label, styles, light))
        return Synthesis(image_tensor(np.stack(pictures)))

"""The second training stage: the mapping network learns to draw styles from noise (release of (CA)²-SIS, multimodal generation)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline import checkpoint
from pipeline.errors import UserError
from pipeline.losses import diversity_loss
from pipeline.models.contract import Generator, GeneratorPass
from pipeline.records import RunRecord
from pipeline.records.store import SHORT_ID


class SamplingPass(nn.Module):
    """Training pass of stage two: two styles drawn from noise for each layout, and how different their images are."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, image: Tensor, mask: Tensor, *, attention: bool) -> GeneratorPass:
        """As `Generator.forward`; `image` (N,3,H,W) only says how many styles to draw."""
        noises = [
            torch.randn(image.shape[0], self.generator.capabilities.noise_width, device=image.device) for _ in range(2)
        ]
        styles = [self.generator.sample_style(mask, noise) for noise in noises]
        made = self.generator.synthesize(mask, styles[0], attention=attention)
        other = self.generator.synthesize(mask, styles[1], attention=False)
        return GeneratorPass(made, styles[0], {"diversity": diversity_loss(made.image, other.image, *noises)})


def load_first_stage(record: RunRecord, generator: Generator, discriminator: nn.Module) -> None:
    """Start from the networks of a finished run; only what the second stage trains may be missing there."""
    if record.state != "finished":
        raise UserError(f"init_from: run {record.id[:SHORT_ID]} is {record.state}, not finished")
    state = checkpoint.load(record, checkpoint.FINAL)
    trained_here = {id(parameter) for parameter in generator.sampling_parameters()}
    own = {name for name, parameter in generator.named_parameters() if id(parameter) in trained_here}
    try:
        missing, unexpected = generator.load_state_dict(state["generator"], strict=False)
        discriminator.load_state_dict(state["discriminator"])
    except RuntimeError as error:
        raise UserError(f"init_from: run {record.id[:SHORT_ID]} has other sizes: {error}") from error
    if unexpected or set(missing) - own:
        names = ", ".join(sorted([*unexpected, *(set(missing) - own)])[:3])
        raise UserError(f"init_from: run {record.id[:SHORT_ID]} is another network: {names} do not fit")

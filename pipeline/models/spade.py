"""The SPADE generator (CVPR 2019), with and without its VAE.

Semantic Image Synthesis with Spatially-Adaptive Normalization. With noise channels, OASIS's 3D noise stands beside the label map
wherever that enters.
"""

from __future__ import annotations

from torch import Tensor

from pipeline.models.conditioning import SpadeNorm
from pipeline.models.contract import Generator, Synthesis
from pipeline.models.label_driven import LabelDrivenGenerator
from pipeline.models.trunk import UpsamplingTrunk
from pipeline.schema.model_spade import SpadeModel


class SpadeGenerator(LabelDrivenGenerator):
    """SPADE's generator; see `UpsamplingTrunk` for the schedule."""

    config: SpadeModel

    def __init__(self, cfg: SpadeModel, num_classes: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.config = cfg
        channels_in = cfg.noise_channels + num_classes
        self._assemble(
            "spade",
            num_classes,
            size,
            UpsamplingTrunk(
                cfg.base_width,
                cfg.up_blocks,
                cfg.middle_upsample,
                lambda channels, last: SpadeNorm(channels, channels_in, hidden=cfg.modulation_width, norm=cfg.norm),
            ),
            map_channels=num_classes,
            noise_channels=cfg.noise_channels,
            noise=cfg.noise,
            encoder=(cfg.encoder, cfg.z_dim) if cfg.style == "vae" else None,
            init_gain=cfg.init_gain,
            spectral_norm=cfg.spectral_norm,
        )

    def synthesize(self, mask: Tensor, style: Tensor, *, attention: bool = True) -> Synthesis:
        """Image from `mask` (N,K,H,W) and `style`: z (N,Z) with the VAE, 3D noise (N,C) or (N,C,h,w), or an empty (N,0).

        There is no attention.
        """
        maps = self.with_noise(mask, style)
        return self.draw(maps, style, (maps,))


def build(cfg: SpadeModel, num_classes: int, size: tuple[int, int]) -> Generator:
    """SPADE generator of `cfg` for `num_classes` classes at `size` = (height, width)."""
    return SpadeGenerator(cfg, num_classes, size)

"""The OASIS generator: SPADE's, one block shorter, with 3D noise beside the label map.

You Only Need Adversarial Supervision for Semantic Image Synthesis (ICLR 2021). Its adversary is the discriminator's kind
`segmentation`.
"""

from __future__ import annotations

from torch import Tensor

from pipeline.models.conditioning import SpadeNorm
from pipeline.models.contract import Synthesis
from pipeline.models.label_driven import LabelDrivenGenerator
from pipeline.models.trunk import UpsamplingTrunk
from pipeline.schema.model_oasis import OasisModel


class OasisGenerator(LabelDrivenGenerator):
    """OASIS's generator: a style is its 3D noise, which can be drawn, not encoded."""

    config: OasisModel

    def __init__(self, cfg: OasisModel, num_classes: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.config = cfg
        channels_in = cfg.noise_channels + num_classes
        self._assemble(
            "oasis",
            num_classes,
            size,
            UpsamplingTrunk(
                cfg.base_width,
                cfg.up_blocks,
                False,
                lambda channels, last: SpadeNorm(channels, channels_in, hidden=cfg.modulation_width, norm=cfg.norm),
                second_middle=False,
            ),
            map_channels=num_classes,
            noise_channels=cfg.noise_channels,
            noise=cfg.noise,
            encoder=None,
            init_gain=cfg.init_gain,
            spectral_norm=cfg.spectral_norm,
        )

    def synthesize(self, mask: Tensor, style: Tensor, *, attention: bool = True) -> Synthesis:
        """Image from `mask` (N,K,H,W) and the 3D noise `style`: (N,C), (N,C,h,w), or an empty (N,0), see `with_noise`."""
        maps = self.with_noise(mask, style)
        return self.draw(maps, style, (maps,))


def build(cfg: OasisModel, num_classes: int, size: tuple[int, int]) -> OasisGenerator:
    """OASIS generator of `cfg` for `num_classes` classes at `size` = (height, width)."""
    return OasisGenerator(cfg, num_classes, size)

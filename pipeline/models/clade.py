"""The CLADE generator: SPADE's schedule, with scale and shift looked up by class instead of convolved from the map.

Efficient Semantic Image Synthesis via Class-Adaptive Normalization (TPAMI 2021). With ICPE, what is looked up is scaled by where a
pixel lies in its part.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.models.clade_norm import CladeNorm
from pipeline.models.contract import GeneratorPass, InstanceGenerator, Synthesis
from pipeline.models.label_driven import LabelDrivenGenerator
from pipeline.models.positions import as_released_when_mirrored, borders, layout_labels, part_offsets
from pipeline.models.trunk import UpsamplingTrunk
from pipeline.schema.model_clade import CladeModel


class CladeGenerator(LabelDrivenGenerator, InstanceGenerator):
    """CLADE's generator.

    Instances enter as a map of their borders, where `instance_edges` says so; without them every class is one instance. 3D noise
    has no place in a table: it stands beside the label map in the start alone.
    """

    config: CladeModel

    def __init__(self, cfg: CladeModel, num_classes: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.config = cfg
        appended = int(cfg.instance_edges)
        self._assemble(
            "clade",
            num_classes,
            size,
            UpsamplingTrunk(
                cfg.base_width,
                cfg.up_blocks,
                cfg.middle_upsample,
                lambda channels, last: CladeNorm(
                    channels, num_classes, norm=cfg.norm, icpe=cfg.icpe.enabled, edges=cfg.instance_edges
                ),
                appended=appended,
            ),
            map_channels=num_classes + appended,
            noise_channels=cfg.noise_channels,
            noise=cfg.noise,
            encoder=(cfg.encoder, cfg.z_dim) if cfg.style == "vae" else None,
            init_gain=cfg.init_gain,
            spectral_norm=cfg.spectral_norm,
        )
        if cfg.icpe.start == "fixed":
            for part in self.modules():
                if isinstance(part, CladeNorm) and part.scale_position is not None and part.shift_position is not None:
                    nn.init.zeros_(part.scale_position.weight)
                    nn.init.zeros_(part.shift_position.weight)

    def encode_style(self, image: Tensor, mask: Tensor, *, instances: Tensor | None = None) -> Tensor:
        """As `LabelDrivenGenerator.encode_style`: one style an image, whatever its instances."""
        return super().encode_style(image, mask)

    def synthesize(
        self,
        mask: Tensor,
        style: Tensor,
        *,
        attention: bool = True,
        instances: Tensor | None = None,
        offsets: Tensor | None = None,
    ) -> Synthesis:
        """Image from `mask` (N,K,H,W) and `style`: z (N,Z) with the VAE, 3D noise (N,C) or (N,C,h,w), or an empty (N,0).

        `offsets` (N,2,H,W): positions in place of those of the mask, with ICPE. There is no attention.
        """
        if self.config.icpe.enabled and offsets is None:
            offsets = self.positions(mask)
        edges: Tensor | None = None
        if self.config.instance_edges:
            edges = borders(layout_labels(mask) if instances is None else instances)
        maps = mask if edges is None else torch.cat([mask, edges.to(mask.dtype)], dim=1)
        return self.draw(self.with_noise(maps, style), style, (mask, offsets, edges))

    def positions(self, mask: Tensor) -> Tensor:
        """Positions (N,2,H,W) in the connected parts of `mask`, in training with the release's fault where it is asked for."""
        cfg = self.config.icpe
        offsets = part_offsets(layout_labels(mask), skipped=cfg.skipped_class)
        if cfg.mirror == "as_released" and self.training:  # half of the release's training samples are mirrored
            wrong = torch.rand(mask.shape[0], 1, 1, 1, device=mask.device) < 0.5
            offsets = torch.where(wrong, as_released_when_mirrored(offsets), offsets)
        return offsets

    def forward(
        self, image: Tensor, mask: Tensor, *, attention: bool, instances: Tensor | None = None
    ) -> GeneratorPass:
        """As `LabelDrivenGenerator.forward`."""
        style, terms = self.training_style(image)
        return GeneratorPass(self.synthesize(mask, style, instances=instances), style, terms)


def build(cfg: CladeModel, num_classes: int, size: tuple[int, int]) -> CladeGenerator:
    """CLADE generator of `cfg` for `num_classes` classes at `size` = (height, width)."""
    return CladeGenerator(cfg, num_classes, size)

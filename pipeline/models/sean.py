"""The SEAN generator (CVPR 2020): one style code a region.

SEAN: Image Synthesis with Semantic Region-Adaptive Normalization.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.conditioning import SeanNorm, StyleModulation, resize_nearest
from pipeline.models.contract import Capabilities, Generator, Synthesis
from pipeline.models.kernels import is_naive
from pipeline.models.norms import instance_norm
from pipeline.models.spectral import apply_spectral_norm
from pipeline.models.trunk import LEAK, UpsamplingTrunk, check_size, initialise
from pipeline.schema.model_sean import SeanModel

ENCODER_STRIDE = 4  # two stride-2 convs before the transposed one


def region_means(features: Tensor, layout: Tensor) -> Tensor:
    """Mean of `features` (N,S,h,w) in each region of `layout` (N,K,h,w) one-hot -> (N,K,S); zero where a class is absent."""
    if is_naive():
        means = features.new_zeros(features.shape[0], layout.shape[1], features.shape[1])
        for image in range(layout.shape[0]):
            for class_id in range(layout.shape[1]):
                region = layout[image, class_id] > 0  # (h,w) bool
                if region.any():
                    means[image, class_id] = features[image][:, region].mean(dim=1)
        return means
    sums = torch.einsum("nkp,nsp->nks", layout.flatten(2).to(features.dtype), features.flatten(2))  # (N,K,S)
    pixels = layout.flatten(2).sum(dim=2).to(features.dtype)  # (N,K)
    return sums / pixels.clamp(min=1).unsqueeze(2)


class RegionStyleEncoder(nn.Module):
    """Image -> feature map at half size -> mean inside each region (SEAN, section 3.2)."""

    def __init__(self, width: int, style_dim: int) -> None:
        """Widths: width, 2 width, 4 width, 8 width, style_dim (release: 32, 64, 128, 256, 512)."""
        super().__init__()
        self.conv_in = nn.Conv2d(3, width, 3, padding=1, padding_mode="reflect")
        self.down_0 = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.down_1 = nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(4 * width, 8 * width, 3, stride=2, padding=1, output_padding=1)
        self.conv_out = nn.Conv2d(8 * width, style_dim, 3, padding=1, padding_mode="reflect")

    def features(self, image: Tensor) -> Tensor:
        """image (N,3,H,W) float32 [-1,1] -> (N,style_dim,H/2,W/2) in [-1,1], before pooling."""
        x = image
        for conv in (self.conv_in, self.down_0, self.down_1, self.up):
            x = F.leaky_relu(instance_norm(conv(x)), LEAK)
        return torch.tanh(self.conv_out(x))

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        """image (N,3,H,W), mask (N,K,H,W) one-hot -> codes (N,K,style_dim); zero where a class has no pixel at half size."""
        features = self.features(image)
        return region_means(features, resize_nearest(mask, (features.shape[-2], features.shape[-1])))


class SeanGenerator(Generator):
    """SEAN's generator: SPADE's schedule, starting from the label map, with SEAN blocks for norms."""

    def __init__(self, cfg: SeanModel, num_classes: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.config = cfg
        self.num_classes = num_classes
        self.size = size
        self.capabilities = Capabilities(style="per_class")
        self.encoder = RegionStyleEncoder(cfg.encoder_width, cfg.style_dim)
        self.trunk = UpsamplingTrunk(
            cfg.base_width,
            cfg.up_blocks,
            cfg.middle_upsample,
            lambda channels, last: SeanNorm(
                channels,
                num_classes,
                cfg.style_dim,
                hidden=cfg.modulation_width,
                use_style=cfg.style_in_last_block or not last,
                norm=cfg.norm,
                noise=cfg.noise,
            ),
        )
        self.stride = max(self.trunk.stride, ENCODER_STRIDE)
        check_size("sean", size, self.stride)
        self.start = nn.Conv2d(num_classes, self.trunk.start_width, 3, padding=1)
        initialise(self, cfg.init_gain)
        for part in self.modules():
            if isinstance(part, StyleModulation):  # K stacked linear layers, which `initialise` does not see as such
                for weight in part.class_weight:
                    nn.init.xavier_normal_(weight.data, cfg.init_gain)
        if cfg.spectral_norm:
            apply_spectral_norm(conv for block in self.trunk.blocks() for conv in block.convs())

    def encode_style(self, image: Tensor, mask: Tensor) -> Tensor:
        """Style codes (N,K,S) of each region; zero where a class is absent."""
        check_size("sean", (image.shape[-2], image.shape[-1]), self.stride)
        codes: Tensor = self.encoder(image, mask)
        return codes

    def synthesize(self, mask: Tensor, style: Tensor, *, attention: bool = True) -> Synthesis:
        """Image from `mask` (N,K,H,W) and codes `style` (N,K,S); there is no attention."""
        height, width = mask.shape[-2:]
        check_size("sean", (height, width), self.stride)
        start = self.start(resize_nearest(mask, (height // self.trunk.stride, width // self.trunk.stride)))  # (N,C,h,w)
        return Synthesis(self.trunk(start, (mask, style)))


def build(cfg: SeanModel, num_classes: int, size: tuple[int, int]) -> Generator:
    """SEAN generator of `cfg` for `num_classes` classes at `size` = (height, width)."""
    return SeanGenerator(cfg, num_classes, size)

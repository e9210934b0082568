"""The SPADE generator (CVPR 2019), with and without its VAE.

Semantic Image Synthesis with Spatially-Adaptive Normalization.

`style: none` starts from the label map and takes no style; `style: vae` starts from one global z, encoded from a
reference image (mean when encoding, sampled when training) or drawn from a standard normal.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.errors import UserError
from pipeline.models.conditioning import SpadeNorm, resize_nearest
from pipeline.models.contract import Capabilities, Generator, GeneratorPass, Synthesis
from pipeline.models.norms import instance_norm
from pipeline.models.spectral import apply_spectral_norm
from pipeline.models.trunk import LEAK, UpsamplingTrunk, check_size, initialise
from pipeline.models.variational import kl_divergence
from pipeline.schema.model_spade import SpadeEncoder, SpadeModel


class ImageEncoder(nn.Module):
    """Image -> mean and log-variance of z: stride-2 3x3 convs, no bias, instance norm, leaky ReLU, two linear layers."""

    def __init__(self, cfg: SpadeEncoder, z_dim: int) -> None:
        super().__init__()
        self.size = cfg.size
        widths = [
            3,
            *[cfg.width * 2 ** min(layer, 3) for layer in range(cfg.layers)],
        ]  # release: 64 128 256 512 512 512
        self.convs = nn.ModuleList(
            nn.Conv2d(widths[layer], widths[layer + 1], 3, stride=2, padding=1, bias=False)
            for layer in range(cfg.layers)
        )
        features = widths[-1] * (cfg.size // 2**cfg.layers) ** 2
        self.mean = nn.Linear(features, z_dim)
        self.log_variance = nn.Linear(features, z_dim)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """image (N,3,H,W) float32 [-1,1] -> mean (N,Z), log-variance (N,Z)."""
        x = image
        if tuple(x.shape[-2:]) != (self.size, self.size):
            x = F.interpolate(x, size=(self.size, self.size), mode="bilinear")
        for conv in self.convs:
            x = F.leaky_relu(instance_norm(conv(x)), LEAK)
        flat = x.flatten(1)  # (N, features)
        return self.mean(flat), self.log_variance(flat)


class SpadeGenerator(Generator):
    """SPADE's generator; see `UpsamplingTrunk` for the schedule."""

    def __init__(self, cfg: SpadeModel, num_classes: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.config = cfg
        self.num_classes = num_classes
        self.size = size
        self.trunk = UpsamplingTrunk(
            cfg.base_width,
            cfg.up_blocks,
            cfg.middle_upsample,
            lambda channels, last: SpadeNorm(channels, num_classes, hidden=cfg.modulation_width, norm=cfg.norm),
        )
        self.stride = self.trunk.stride
        check_size("spade", size, self.stride)
        self.start_size = (size[0] // self.stride, size[1] // self.stride)
        self.encoder: ImageEncoder | None = None
        self.start: nn.Conv2d | nn.Linear
        if cfg.style == "vae":
            self.capabilities = Capabilities(style="global", sampling=True, noise_width=cfg.z_dim)
            self.encoder = ImageEncoder(cfg.encoder, cfg.z_dim)
            self.start = nn.Linear(cfg.z_dim, self.trunk.start_width * self.start_size[0] * self.start_size[1])
        else:
            self.capabilities = Capabilities(style="none")
            self.start = nn.Conv2d(num_classes, self.trunk.start_width, 3, padding=1)
        initialise(self, cfg.init_gain)
        if cfg.spectral_norm:
            apply_spectral_norm(conv for block in self.trunk.blocks() for conv in block.convs())
            apply_spectral_norm(self.encoder.convs if self.encoder is not None else [])

    def encode_style(self, image: Tensor, mask: Tensor) -> Tensor:
        """Mean of z (N,Z) with the VAE, else an empty (N,0)."""
        if self.encoder is None:
            return image.new_zeros(image.shape[0], 0)
        mean: Tensor = self.encoder(image)[0]
        return mean

    def encode_distribution(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of z, each (N,Z); VAE only."""
        if self.encoder is None:
            raise UserError("model.style is none: this SPADE has no image encoder; set model.style=vae")
        mean, log_variance = self.encoder(image)
        return mean, log_variance

    def synthesize(self, mask: Tensor, style: Tensor, *, attention: bool = True) -> Synthesis:
        """Image from `mask` (N,K,H,W) and `style` = z (N,Z), or (N,0) without the VAE; there is no attention."""
        height, width = mask.shape[-2:]
        check_size("spade", (height, width), self.stride)
        coarse = (height // self.stride, width // self.stride)
        if isinstance(self.start, nn.Linear):
            if coarse != self.start_size:
                built = (self.start_size[0] * self.stride, self.start_size[1] * self.stride)
                raise UserError(
                    f"this SPADE-VAE was built for {built[0]}x{built[1]} pixels and cannot draw {height}x{width}"
                )
            x = self.start(style).view(-1, self.trunk.start_width, *coarse)  # (N,C,h,w)
        else:
            x = self.start(resize_nearest(mask, coarse))  # (N,C,h,w)
        return Synthesis(self.trunk(x, (mask,)))

    def sample_style(self, mask: Tensor, noise: Tensor) -> Tensor:
        """z is the standard normal `noise` (N,Z) itself; VAE only."""
        if self.encoder is None:
            return super().sample_style(mask, noise)
        return noise

    def forward(self, image: Tensor, mask: Tensor, *, attention: bool) -> GeneratorPass:
        """Training pass; with the VAE, z = mean + eps * deviation, and `regularisers["kl"]` (summed, as released)."""
        if self.encoder is None:
            return super().forward(image, mask, attention=attention)
        mean, log_variance = self.encode_distribution(image)
        mean, log_variance = mean.float(), log_variance.float()  # exp and the sum want float32 under autocast
        style = mean + torch.randn_like(mean) * torch.exp(0.5 * log_variance)  # (N,Z)
        return GeneratorPass(self.synthesize(mask, style), style, {"kl": kl_divergence(mean, log_variance)})


def build(cfg: SpadeModel, num_classes: int, size: tuple[int, int]) -> Generator:
    """SPADE generator of `cfg` for `num_classes` classes at `size` = (height, width)."""
    return SpadeGenerator(cfg, num_classes, size)

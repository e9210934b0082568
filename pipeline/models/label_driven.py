"""What SPADE and the families built on it share: a trunk started from the label map or from one global z, and 3D noise.

`style: none` starts from the label map; `style: vae` starts from one global z, encoded from a reference image (mean when
encoding, sampled when training) or drawn from a standard normal. Noise channels beside the label map (OASIS's 3D noise) are a
style without a reference: they can be drawn, not encoded.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.errors import UserError
from pipeline.models.conditioning import resize_nearest
from pipeline.models.contract import Capabilities, Generator, GeneratorPass, Synthesis
from pipeline.models.noise import standard_normal
from pipeline.models.norms import instance_norm
from pipeline.models.spectral import apply_spectral_norm
from pipeline.models.trunk import LEAK, Condition, UpsamplingTrunk, check_size, initialise
from pipeline.models.variational import kl_divergence
from pipeline.schema.model_spade import NoiseDraw, SpadeEncoder


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


class LabelDrivenGenerator(Generator):
    """A generator without styles of its own classes: label map, and z or 3D noise; its trunk's norms are the family's."""

    trunk: UpsamplingTrunk
    encoder: ImageEncoder | None
    start: nn.Conv2d | nn.Linear

    def _assemble(
        self,
        family: str,
        num_classes: int,
        size: tuple[int, int],
        trunk: UpsamplingTrunk,
        *,
        map_channels: int,
        noise_channels: int,
        noise: NoiseDraw,
        encoder: tuple[SpadeEncoder, int] | None,
        init_gain: float,
        spectral_norm: bool,
    ) -> None:
        """Everything but the trunk, and the initial weights of all.

        `map_channels`: what the start sees beside the noise; `encoder`: section and width of z, None without the VAE.
        """
        self.family, self.num_classes, self.size, self.trunk = family, num_classes, size, trunk
        self.stride = trunk.stride
        check_size(family, size, self.stride)
        self.start_size = (size[0] // self.stride, size[1] // self.stride)
        self.noise_channels, self.noise_draw = noise_channels, noise
        self.encoder = None
        if encoder is not None:
            section, z_dim = encoder
            self.capabilities = Capabilities(style="global", sampling=True, noise_width=z_dim)
            self.encoder = ImageEncoder(section, z_dim)
            self.start = nn.Linear(z_dim, trunk.start_width * self.start_size[0] * self.start_size[1])
        else:
            self.capabilities = Capabilities(style="none", sampling=noise_channels > 0, noise_width=noise_channels)
            self.start = nn.Conv2d(noise_channels + map_channels, trunk.start_width, 3, padding=1)
        initialise(self, init_gain)
        if spectral_norm:
            apply_spectral_norm(conv for block in trunk.blocks() for conv in block.convs())
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
            raise UserError(f"model.style is none: this {self.family} has no image encoder; set model.style=vae")
        mean, log_variance = self.encoder(image)
        return mean, log_variance

    def sample_style(self, mask: Tensor, noise: Tensor) -> Tensor:
        """z, or the 3D noise, is the standard normal `noise` (N,Z) itself."""
        if not self.capabilities.sampling:
            return super().sample_style(mask, noise)
        return noise

    def with_noise(self, maps: Tensor, style: Tensor) -> Tensor:
        """`maps` (N,M,H,W) behind the 3D noise of `style`, (N,C,H,W) with C + M channels; itself without noise channels.

        `style`: one vector an image (N,C), a map (N,C,h,w) that is resized by nearest neighbour, or the empty (N,0): then it is
        drawn from torch's generator, or 0 where `model.noise` says so. One vector is spread over the picture, as released.
        """
        if self.noise_channels == 0:
            return maps
        noise, size = style, (maps.shape[-2], maps.shape[-1])
        if style.numel() == 0:
            drawn = self.training or self.noise_draw == "always"
            shape = (maps.shape[0], self.noise_channels)
            noise = standard_normal(*shape, like=maps) if drawn else maps.new_zeros(shape)
        if noise.dim() == 2:
            noise = noise[:, :, None, None].expand(-1, -1, *size)
        return torch.cat([resize_nearest(noise, size).to(maps.dtype), maps], dim=1)

    def draw(self, maps: Tensor, style: Tensor, condition: Condition) -> Synthesis:
        """Picture started from `maps` (N,C,H,W), noise included, or from z = `style`, under the norms' `condition`."""
        height, width = maps.shape[-2:]
        check_size(self.family, (height, width), self.stride)
        coarse = (height // self.stride, width // self.stride)
        if isinstance(self.start, nn.Linear):
            if coarse != self.start_size:
                built = (self.start_size[0] * self.stride, self.start_size[1] * self.stride)
                raise UserError(
                    f"this {self.family} with VAE was built for {built[0]}x{built[1]} pixels and cannot draw "
                    f"{height}x{width}"
                )
            x = self.start(style).view(-1, self.trunk.start_width, *coarse)  # (N,C,h,w)
        else:
            x = self.start(resize_nearest(maps, coarse))  # (N,C,h,w)
        return Synthesis(self.trunk(x, condition))

    def training_style(self, image: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Style of a training pass and its terms; with the VAE z = mean + eps * deviation, and "kl" (summed, as released)."""
        if self.encoder is None:
            return image.new_zeros(image.shape[0], 0), {}
        mean, log_variance = self.encode_distribution(image)
        mean, log_variance = mean.float(), log_variance.float()  # exp and the sum want float32 under autocast
        style = mean + torch.randn_like(mean) * torch.exp(0.5 * log_variance)  # (N,Z)
        return style, {"kl": kl_divergence(mean, log_variance)}

    def forward(self, image: Tensor, mask: Tensor, *, attention: bool) -> GeneratorPass:
        """Training pass; with the VAE z is sampled, with noise channels the noise is drawn."""
        style, terms = self.training_style(image)
        return GeneratorPass(self.synthesize(mask, style), style, terms)

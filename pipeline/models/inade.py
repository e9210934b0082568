"""The INADE generator (CVPR 2021), with and without its instance encoder (V-INADE).

Diverse Semantic Image Synthesis via Probability Distribution Modeling.

Modulation is affine in noise: each class has a scale and a shift for the noise of each of its instances, which one linear
layer a norm turns into channels. V-INADE shifts and scales that noise by what it encodes from a reference image.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.errors import UserError
from pipeline.models.conditioning import resize_nearest
from pipeline.models.contract import Capabilities, GeneratorPass, InstanceGenerator, Synthesis
from pipeline.models.kernels import is_naive
from pipeline.models.noise import standard_normal
from pipeline.models.norms import NormKind, instance_norm, param_free_norm
from pipeline.models.sean import region_means
from pipeline.models.spectral import apply_spectral_norm
from pipeline.models.trunk import LEAK, UpsamplingTrunk, check_size, initialise
from pipeline.models.variational import kl_divergence
from pipeline.schema.model_inade import InadeModel, InstanceEncoderSection

PARTS = 2  # noise of an instance has a part for the scale and one for the shift, in this order
PROJECTION_GAIN = 1.0  # ours, Xavier-normal: at SPADE's 0.02 noise would hardly reach the modulation at the start


class InadeNorm(nn.Module):
    """Instance-adaptive denormalisation (INADE, section 3.3): gamma * norm(x) + beta, without SPADE's "1 +".

    gamma = weight[class, scale] * project(scale noise of the instance) + bias[class, scale]; beta likewise with the shift.
    """

    def __init__(self, channels: int, num_classes: int, noise_width: int, norm: NormKind) -> None:
        super().__init__()
        self.norm = param_free_norm(norm, channels)
        self.weight = nn.Parameter(torch.empty(num_classes, channels, PARTS))
        self.bias = nn.Parameter(torch.zeros(num_classes, channels, PARTS))
        self.project = nn.Linear(noise_width, channels)
        nn.init.uniform_(self.weight)
        nn.init.ones_(self.bias[..., 0].detach())  # at noise 0 the layer starts as the plain norm

    def forward(self, x: Tensor, mask: Tensor, noise: Tensor, regions: Tensor | None = None) -> Tensor:
        """x (N,C,h,w), mask (N,K,H,W) one-hot, noise (N,I,2,Z) -> (N,C,h,w).

        `regions` (N,I,H,W) one-hot says which pixels are instance i; None: instance i is class i, and I = K. Pixels of no
        class become 0.
        """
        size = (x.shape[-2], x.shape[-1])
        factors = self.project(noise)  # (N,I,2,C)
        weight, bias = self.weight.transpose(1, 2), self.bias.transpose(1, 2)  # (K,2,C)
        layout = resize_nearest(mask, size).to(factors.dtype)  # (N,K,h,w) {0,1}
        if regions is None and not is_naive():
            table = weight * factors + bias  # (N,K,2,C)
            modulation = torch.einsum("nkpc,nkhw->npchw", table, layout)
        else:
            placed = layout if regions is None else resize_nearest(regions, size).to(factors.dtype)  # (N,I,h,w)
            spread = torch.einsum("nipc,nihw->npchw", factors, placed)
            modulation = torch.einsum("kpc,nkhw->npchw", weight, layout) * spread
            modulation = modulation + torch.einsum("kpc,nkhw->npchw", bias, layout)
        gamma, beta = modulation.unbind(1)
        modulated: Tensor = self.norm(x) * gamma + beta
        return modulated


class InstanceConv(nn.Conv2d):
    """3x3 conv that sees its centre pixel's instance only: taps in another instance, and outside the picture, count zero.

    Neither the sum nor the bias is rescaled by the number of taps left, unlike the usual partial convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__(in_channels, out_channels, 3, stride=stride, padding=1)

    def forward(self, x: Tensor, ids: Tensor) -> Tensor:  # type: ignore[override]
        """x (N,C,h,w), ids (N,1,H,W) float32 instance numbers, resized to x by nearest neighbour -> (N,O,h/s,w/s)."""
        near = F.interpolate(ids, size=(x.shape[-2], x.shape[-1]), mode="nearest")
        centre = near[:, :, :: self.stride[0], :: self.stride[1]]  # (N,1,h/s,w/s)
        padded, near = F.pad(x, (1, 1, 1, 1)), F.pad(near, (1, 1, 1, 1), value=-1.0)
        taps = [
            self._shifted(padded, row, column) * (self._shifted(near, row, column) == centre).to(x.dtype)
            for row in range(3)
            for column in range(3)
        ]
        weight = self.weight.permute(0, 2, 3, 1).reshape(self.out_channels, -1, 1, 1)  # (O,9C,1,1), as the taps lie
        return F.conv2d(torch.cat(taps, dim=1), weight, self.bias)

    def _shifted(self, padded: Tensor, row: int, column: int) -> Tensor:
        """What tap (row, column) of the kernel sees at every output position; padded (N,C,h+2,w+2) -> (N,C,h/s,w/s)."""
        height, width = padded.shape[-2] - 2, padded.shape[-1] - 2
        return padded[:, :, row : row + height : self.stride[0], column : column + width : self.stride[1]]


class InstanceEncoder(nn.Module):
    """Image and instances -> mean and log-variance of each instance's noise (INADE, section 3.4).

    Instance convs down by two `layers` times and back up with skips; instance norm's statistics are the whole picture's.
    """

    def __init__(self, cfg: InstanceEncoderSection, noise_width: int) -> None:
        super().__init__()
        widths = [cfg.width * 2**layer for layer in range(cfg.layers)]  # release: 64 128 256 512
        self.down = nn.ModuleList(
            InstanceConv(before, after, stride=2) for before, after in zip([3, *widths[:-1]], widths, strict=True)
        )
        self.middle = InstanceConv(widths[-1], widths[-2])
        self.up = nn.ModuleList(
            InstanceConv(2 * widths[level], widths[max(level - 1, 0)]) for level in range(cfg.layers - 2, -1, -1)
        )  # takes what comes up, and the skip of the same size
        # Channels in four parts: mean for the scale, for the shift, log-variance for the scale, for the shift.
        self.heads = InstanceConv(cfg.width, 4 * noise_width)

    def forward(self, image: Tensor, ids: Tensor, regions: Tensor) -> tuple[Tensor, Tensor]:
        """image (N,3,H,W) [-1,1], ids (N,1,H,W), regions (N,I,H,W) one-hot -> mean, log-variance, each (N,I,2Z).

        An instance without pixels has mean 0 and log-variance 0.
        """
        x, skips = image, []
        for conv in self.down:
            x = F.leaky_relu(instance_norm(conv(x, ids)), LEAK)
            skips.append(x)
        skips.pop()
        x = self._doubled(self.middle(x, ids))
        for conv in self.up:
            x = self._doubled(conv(torch.cat([x, skips.pop()], dim=1), ids))
        pooled = region_means(self.heads(x, ids), regions)  # (N,I,4Z)
        mean, log_variance = pooled.chunk(2, dim=2)
        return mean, log_variance

    @staticmethod
    def _doubled(x: Tensor) -> Tensor:
        return F.interpolate(F.leaky_relu(instance_norm(x), LEAK), scale_factor=2, mode="bilinear")


class InadeGenerator(InstanceGenerator):
    """INADE's generator: SPADE's schedule, started from noise, with `InadeNorm` for norms.

    A style is the noise of every instance, (N,I,2Z): Z numbers for the scale, then Z for the shift.
    """

    config: InadeModel

    def __init__(self, cfg: InadeModel, num_classes: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.config = cfg
        self.num_classes = num_classes
        self.size = size
        self.trunk = UpsamplingTrunk(
            cfg.base_width,
            cfg.up_blocks,
            cfg.middle_upsample,
            lambda channels, last: InadeNorm(channels, num_classes, cfg.noise_width, cfg.norm),
        )
        self.encoder = InstanceEncoder(cfg.encoder, cfg.noise_width) if cfg.style == "vae" else None
        self.stride = max(self.trunk.stride, 2**cfg.encoder.layers if self.encoder is not None else 1)
        check_size("inade", size, self.stride)
        self.start_size = (size[0] // self.trunk.stride, size[1] // self.trunk.stride)
        self.start = nn.Linear(cfg.z_dim, self.trunk.start_width * self.start_size[0] * self.start_size[1])
        self.style_width = PARTS * cfg.noise_width
        self.capabilities = Capabilities(
            style="none" if self.encoder is None else "per_instance",
            sampling=True,
            noise_width=num_classes * self.style_width,
        )
        initialise(self, cfg.init_gain)
        for part in self.modules():
            if isinstance(part, InstanceEncoder):
                initialise(part, cfg.style_gain)
            elif isinstance(part, InadeNorm):
                initialise(part.project, PROJECTION_GAIN)
        if cfg.spectral_norm:
            apply_spectral_norm(conv for block in self.trunk.blocks() for conv in block.convs())

    def encode_style(self, image: Tensor, mask: Tensor, *, instances: Tensor | None = None) -> Tensor:
        """Means of the instances' noise (N,I,2Z); 0 for an instance without pixels; (N,0) without the encoder."""
        if self.encoder is None:
            return image.new_zeros(image.shape[0], 0)
        return self.encode_distribution(image, mask, instances=instances)[0]

    def encode_distribution(
        self, image: Tensor, mask: Tensor, *, instances: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the instances' noise, each (N,I,2Z); V-INADE only."""
        if self.encoder is None:
            raise UserError("model.style is none: this INADE has no instance encoder; set model.style=vae")
        check_size("inade", (image.shape[-2], image.shape[-1]), self.stride)
        if instances is None:
            unlabelled = 1 - mask.sum(dim=1, keepdim=True)  # (N,1,H,W): pixels of no class are a region of their own
            ids = torch.cat([mask, unlabelled], dim=1).argmax(dim=1, keepdim=True)
            regions = mask
        else:
            ids, regions = instances.unsqueeze(1), one_hot_instances(instances)
        mean, log_variance = self.encoder(image, ids.float(), regions)
        return mean, log_variance

    def synthesize(
        self,
        mask: Tensor,
        style: Tensor,
        *,
        attention: bool = True,
        instances: Tensor | None = None,
        start: Tensor | None = None,
    ) -> Synthesis:
        """Image from `mask` (N,K,H,W) and the noise `style` (N,I,2Z) of its instances; (N,0) stands for noise 0.

        (N,I,2,Z) is taken as well. `start` (N,z_dim): the noise that fills the start map; without it `model.start_noise`
        says whether it is drawn from torch's generator or 0. There is no attention.
        """
        height, width = mask.shape[-2:]
        check_size("inade", (height, width), self.trunk.stride)
        coarse = (height // self.trunk.stride, width // self.trunk.stride)
        if coarse != self.start_size:
            built = (self.start_size[0] * self.trunk.stride, self.start_size[1] * self.trunk.stride)
            raise UserError(f"this INADE was built for {built[0]}x{built[1]} pixels and cannot draw {height}x{width}")
        count = self.num_classes if instances is None else int(instances.max()) + 1
        if style.numel() == 0:
            style = style.new_zeros(mask.shape[0], count, self.style_width)
        noise = style.reshape(*style.shape[:2], PARTS, -1)  # (N,I,2,Z)
        if noise.shape[1] < count:
            raise UserError(f"style has {noise.shape[1]} rows; this layout has {count} instances")
        condition = (mask, noise) if instances is None else (mask, noise, one_hot_instances(instances, noise.shape[1]))
        if start is None:
            start = self._start_noise(noise)
        x = self.start(start).view(-1, self.trunk.start_width, *coarse)  # (N,C,h,w)
        return Synthesis(self.trunk(x, condition))

    def sample_style(self, mask: Tensor, noise: Tensor) -> Tensor:
        """The noise itself, (N,K*2Z) as (N,K,2Z): INADE's prior, one instance a class."""
        return noise.view(-1, self.num_classes, self.style_width)

    def forward(
        self, image: Tensor, mask: Tensor, *, attention: bool, instances: Tensor | None = None
    ) -> GeneratorPass:
        """Training pass: noise drawn, by V-INADE remapped to mean + noise * deviation, with `regularisers["kl"]` (summed)."""
        if self.encoder is None:
            count = self.num_classes if instances is None else int(instances.max()) + 1
            style = torch.randn(image.shape[0], count, self.style_width, device=image.device)
            return GeneratorPass(self.synthesize(mask, style, instances=instances), style)
        mean, log_variance = self.encode_distribution(image, mask, instances=instances)
        mean, log_variance = mean.float(), log_variance.float()  # exp and the sum want float32 under autocast
        style = mean + torch.randn_like(mean) * torch.exp(0.5 * log_variance)  # (N,I,2Z)
        kl = kl_divergence(mean, log_variance)
        return GeneratorPass(self.synthesize(mask, style, instances=instances), style, {"kl": kl})

    def _start_noise(self, noise: Tensor) -> Tensor:
        drawn = self.config.start_noise == "always" or (self.config.start_noise == "train" and self.training)
        shape = (noise.shape[0], self.config.z_dim)
        return standard_normal(*shape, like=noise) if drawn else noise.new_zeros(shape)


def one_hot_instances(instances: Tensor, count: int | None = None) -> Tensor:
    """instances (N,H,W) int64 -> (N,I,H,W) float32, I = `count` or the largest id + 1; a negative id is no instance."""
    rows = torch.arange(int(instances.max()) + 1 if count is None else count, device=instances.device)
    return (instances.unsqueeze(1) == rows.view(1, -1, 1, 1)).float()


def build(cfg: InadeModel, num_classes: int, size: tuple[int, int]) -> InadeGenerator:
    """INADE generator of `cfg` for `num_classes` classes at `size` = (height, width)."""
    return InadeGenerator(cfg, num_classes, size)

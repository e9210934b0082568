"""The MaskGAN generator (CVPR 2020): the dense mapping network.

MaskGAN: Towards Diverse and Interactive Facial Image Manipulation.

One style vector an image, from the reference image and the reference mask together; it enters the residual blocks of an
encoder-decoder of the target mask as adaptive instance norm.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.contract import Capabilities, Generator, Synthesis
from pipeline.models.norms import instance_norm
from pipeline.models.trunk import check_size, initialise
from pipeline.schema.model_maskgan import MaskganModel, SpatialEncoderSection

SFT_LEAK = 0.1  # negative slope inside the feature transforms, release
LAYERS = 2  # AdaIN layers a residual block


def reflect_conv(before: int, after: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """A conv with reflection padding that keeps the size, or halves it at stride 2."""
    return nn.Conv2d(before, after, kernel, stride=stride, padding=(kernel - 1) // 2, padding_mode="reflect")


class LabelEncoder(nn.Module):
    """Reference mask -> features at a quarter of its size, and at the style encoder's smallest size. No norms."""

    def __init__(self, cfg: SpatialEncoderSection, num_classes: int) -> None:
        super().__init__()
        width = cfg.width
        self.conv_in = reflect_conv(num_classes, width, 7)
        self.down_0 = reflect_conv(width, 2 * width, 4, stride=2)
        self.down_1 = reflect_conv(2 * width, 4 * width, 4, stride=2)
        self.middle = nn.ModuleList(reflect_conv(4 * width, 4 * width, 4, stride=2) for _ in range(cfg.middle))

    def forward(self, mask: Tensor) -> tuple[Tensor, Tensor]:
        """mask (N,K,H,W) one-hot -> (N,4w,H/4,W/4) and (N,4w,H/s,W/s), both before an activation."""
        fine = self.down_1(F.relu(self.down_0(F.relu(self.conv_in(mask)))))
        coarse = fine
        for conv in self.middle:
            coarse = conv(F.relu(coarse))
        return fine, coarse


class FeatureTransform(nn.Module):
    """Spatial feature transform: x * scale + shift, each two 1x1 convs of the label features; without a "1 +"."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(2))
        self.shift = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(2))

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        """x, label (N,C,h,w) -> (N,C,h,w)."""
        scale = self.scale[1](F.leaky_relu(self.scale[0](label), SFT_LEAK))
        shift = self.shift[1](F.leaky_relu(self.shift[0](label), SFT_LEAK))
        transformed: Tensor = x * scale + shift
        return transformed


class SpatialStyleEncoder(nn.Module):
    """Reference image, steered by its mask at two sizes -> mean over all pixels -> style vector (MaskGAN, section 3.2)."""

    def __init__(self, cfg: SpatialEncoderSection, num_classes: int, style_width: int) -> None:
        super().__init__()
        width = cfg.width
        self.label = LabelEncoder(cfg, num_classes)
        self.conv_in = reflect_conv(3, width, 7)
        self.down_0 = reflect_conv(width, 2 * width, 4, stride=2)
        self.down_1 = reflect_conv(2 * width, 4 * width, 4, stride=2)
        self.transform_0 = FeatureTransform(4 * width)
        self.middle = nn.ModuleList(reflect_conv(4 * width, 4 * width, 4, stride=2) for _ in range(cfg.middle))
        self.transform_1 = FeatureTransform(4 * width)
        self.to_style = nn.Conv2d(4 * width, style_width, 1)

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        """image (N,3,H,W) [-1,1], mask (N,K,H,W) one-hot -> (N,style_width)."""
        fine, coarse = self.label(mask)
        x = F.relu(self.down_1(F.relu(self.down_0(F.relu(self.conv_in(image))))))
        x = self.transform_0(x, fine)
        for conv in self.middle:
            x = F.relu(conv(x))
        x = self.transform_1(x, coarse)
        style: Tensor = self.to_style(x.mean(dim=(2, 3), keepdim=True))
        return style.flatten(1)


class AdaptiveBlock(nn.Module):
    """Residual block: twice reflect-padded 3x3 conv and adaptive instance norm, ReLU between them, nothing after the sum."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(reflect_conv(width, width, 3) for _ in range(LAYERS))

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """x (N,C,h,w), style (N,2,2,C): per layer shift, then scale -> (N,C,h,w)."""
        first, second = self.convs
        out: Tensor = x + adaptive_norm(second(F.relu(adaptive_norm(first(x), style[:, 0]))), style[:, 1])
        return out


def adaptive_norm(x: Tensor, style: Tensor) -> Tensor:
    """x (N,C,h,w) normalised per image and channel (eps 1e-5), times scale, plus shift; style (N,2,C): shift, scale."""
    shift, scale = style[..., None, None].unbind(1)
    return instance_norm(x) * scale + shift


class MaskganGenerator(Generator):
    """MaskGAN's generator; a style is the shifts and scales of all AdaIN layers, (N, blocks*2*2*C)."""

    config: MaskganModel

    def __init__(self, cfg: MaskganModel, num_classes: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.config = cfg
        self.num_classes = num_classes
        self.size = size
        self.capabilities = Capabilities(style="global")
        self.trunk_stride = 2**cfg.downsamplings
        self.stride = max(self.trunk_stride, 2 ** (2 + cfg.encoder.middle))
        check_size("maskgan", size, self.stride, single=True)  # no norms in the encoders: a single pixel is enough
        check_size("maskgan", size, self.trunk_stride)
        widths = [cfg.base_width * 2**level for level in range(cfg.downsamplings + 1)]  # release: 64 128 256 512 1024
        self.coarse_width = widths[-1]
        style_width = cfg.blocks * LAYERS * 2 * self.coarse_width
        self.encoder = SpatialStyleEncoder(cfg.encoder, num_classes, style_width)
        self.conv_in = reflect_conv(num_classes, widths[0], 7)
        self.down = nn.ModuleList(
            nn.Conv2d(widths[level], widths[level + 1], 3, stride=2, padding=1) for level in range(cfg.downsamplings)
        )
        self.blocks = nn.ModuleList(AdaptiveBlock(self.coarse_width) for _ in range(cfg.blocks))
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(widths[level + 1], widths[level], 3, stride=2, padding=1, output_padding=1)
            for level in reversed(range(cfg.downsamplings))
        )
        self.conv_out = reflect_conv(widths[0], 3, 7)
        initialise(self, cfg.init_gain)
        initialise(self.encoder, cfg.style_gain)
        assert self.encoder.to_style.bias is not None, "built with a bias"
        nn.init.ones_(self._layers(self.encoder.to_style.bias.detach().unsqueeze(0))[..., 1, :])  # scales start at 1

    def encode_style(self, image: Tensor, mask: Tensor) -> Tensor:
        """Style vector (N, blocks*2*2*C) of `image` under `mask`, which may be that of another picture."""
        check_size("maskgan", (image.shape[-2], image.shape[-1]), self.stride, single=True)
        style: Tensor = self.encoder(image, mask)
        return style

    def synthesize(self, mask: Tensor, style: Tensor, *, attention: bool = True) -> Synthesis:
        """Image from `mask` (N,K,H,W) and `style` (N, blocks*2*2*C); there is no attention."""
        check_size("maskgan", (mask.shape[-2], mask.shape[-1]), self.trunk_stride)
        layers = self._layers(style)
        x = F.relu(instance_norm(self.conv_in(mask)))
        for conv in self.down:
            x = F.relu(instance_norm(conv(x)))
        for number, block in enumerate(self.blocks):
            x = block(x, layers[:, number])
        for conv in self.up:
            x = F.relu(instance_norm(conv(x)))
        return Synthesis(torch.tanh(self.conv_out(x)))

    def _layers(self, style: Tensor) -> Tensor:
        """(N, blocks*2*2*C) -> (N,blocks,2,2,C): block, layer, shift or scale."""
        return style.view(style.shape[0], -1, LAYERS, 2, self.coarse_width)


def build(cfg: MaskganModel, num_classes: int, size: tuple[int, int]) -> MaskganGenerator:
    """MaskGAN generator of `cfg` for `num_classes` classes at `size` = (height, width)."""
    return MaskganGenerator(cfg, num_classes, size)

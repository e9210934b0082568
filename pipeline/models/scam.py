"""The SCAM generator (SCAM, ECCV 2022): several latents a label, which exchange with the pixels of that label twice a block.

A style is the latents of every label, one label a row: (N,K,L*D). `latent_rows` and `rows_of` lead from one form to the other.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.errors import UserError
from pipeline.models.conditioning import resize_nearest
from pipeline.models.contract import Capabilities, Generator, Synthesis
from pipeline.models.latent_encoder import LatentEncoder
from pipeline.models.masked_attention import LabelMasks, LatentBlock, LatentChange, MaskedAttention, positional_code
from pipeline.models.noise import pixel_noise
from pipeline.models.norms import InstanceNorm2d
from pipeline.models.trunk import LEAK
from pipeline.schema.model_scam import ScamModel

MOST_HALVINGS = 4  # the last four blocks halve the width, those before them keep it; source: release


class ScamModulation(nn.Module):
    """Semantic cross-attention modulation: latents look at pixels, pixels at the new latents, which scale and shift them.

    Duplex: latents change by attention to the pixels of their label; simplex: by a small network that sees no picture.
    """

    def __init__(self, cfg: ScamModel, tokens: int, channels: int, *, duplex: bool, noise: bool) -> None:
        super().__init__()
        self.noise = cfg.noise if noise else "off"
        self.to_latents: LatentBlock | LatentChange
        if duplex:
            self.to_latents = LatentBlock(
                tokens, cfg.style_dim, channels, cfg.attention_width, cfg.heads, cfg.absent_attention
            )
        else:
            self.to_latents = LatentChange(cfg.style_dim, closed=False)
        self.to_pixels = MaskedAttention(channels, cfg.style_dim, cfg.attention_width, cfg.heads, cfg.absent_attention)
        self.gamma = nn.Linear(channels, channels)
        self.beta = nn.Linear(channels, channels)
        self.norm = InstanceNorm2d(channels)  # statistics of the whole picture, not of a label
        if self.noise != "off":
            self.noise_scale = nn.Parameter(torch.zeros(channels))  # (C,) learned strength, starts at no noise

    def forward(self, x: Tensor, latents: Tensor, masks: LabelMasks) -> tuple[Tensor, Tensor]:
        """x (N,C,h,w), latents (N,T,D) -> modulated x after its leaky ReLU, and the changed latents."""
        size = (x.shape[2], x.shape[3])
        pixels = (x + positional_code(x.shape[1], size, x)).flatten(2).transpose(1, 2)  # (N,h*w,C)
        allowed = masks.at(size)  # (N,T,h*w)
        if isinstance(self.to_latents, LatentBlock):
            latents = self.to_latents(latents, pixels, allowed)
        else:
            latents = self.to_latents(latents)
        attended = self.to_pixels(pixels, latents, allowed.transpose(1, 2))  # (N,h*w,C)
        gamma, beta = (
            layer(attended).transpose(1, 2).unflatten(2, size) for layer in (self.gamma, self.beta)
        )  # (N,C,h,w) each
        out = (1 + gamma) * self.norm(x) + beta
        if self.noise == "always" or (self.noise == "train" and self.training):
            out = out + self.noise_scale.to(out.dtype).view(1, -1, 1, 1) * self.noise_map(out)
        return F.leaky_relu(out, LEAK), latents

    def noise_map(self, x: Tensor) -> Tensor:
        """One standard normal number a pixel of `x`, for all its channels: (N,1,h,w)."""
        return pixel_noise(x)


class ScamBlock(nn.Module):
    """Modulation and 3x3 conv, nearest upsampling, modulation and 3x3 conv; then this size's part of the image is added.

    No residual path. The image's own modulation is simplex, without noise, and keeps its latents to itself; the last block has
    none.
    """

    def __init__(self, cfg: ScamModel, tokens: int, before: int, after: int, *, last: bool) -> None:
        super().__init__()
        middle = min(before, after)
        self.mod_0 = ScamModulation(cfg, tokens, before, duplex=cfg.duplex, noise=True)
        self.conv_0 = nn.Conv2d(before, middle, 3, padding=1)
        self.mod_1 = ScamModulation(cfg, tokens, middle, duplex=cfg.duplex, noise=True)
        self.conv_1 = nn.Conv2d(middle, after, 3, padding=1)
        self.mod_image = None if last else ScamModulation(cfg, tokens, after, duplex=False, noise=False)
        self.to_image = nn.Conv2d(after, 3, 1)

    def forward(
        self, x: Tensor, latents: Tensor, image: Tensor | None, masks: LabelMasks, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """x (N,before,h,w), latents (N,T,D), image so far (N,3,h,w) or None -> x (N,after,*size), latents, image."""
        x, latents = self.mod_0(x, latents, masks)
        x = self.conv_0(F.leaky_relu(x, LEAK))  # the modulation ends in one already: slope 0.04 in all, as released
        x, latents = self.mod_1(F.interpolate(x, size=size, mode="nearest"), latents, masks)
        x = self.conv_1(F.leaky_relu(x, LEAK))
        own = self.to_image(x if self.mod_image is None else self.mod_image(x, latents, masks)[0])  # (N,3,*size)
        return x, latents, own if image is None else own + F.interpolate(image, size=size, mode="nearest")


class ScamGenerator(Generator):
    """SCAM's encoder and generator."""

    config: ScamModel
    label_of: Tensor
    place_of: Tensor

    def __init__(self, cfg: ScamModel, num_classes: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.config = cfg
        self.num_classes = num_classes
        self.size = size
        self.stride = 1  # the last block draws the exact size
        self.capabilities = Capabilities(style="per_class")
        start_size(size, cfg.up_blocks)
        counts = [cfg.background_latents, *[cfg.latents] * (num_classes - 1)]
        self.row_length = max(counts)  # latents a row has room for
        owned = [(label, number) for label, count in enumerate(counts) for number in range(count)]
        # On the CPU even where the network is built without memory (released weights): they are made, not read.
        label_of = torch.tensor([label for label, _ in owned], device="cpu")  # (T,)
        place_of = torch.tensor([label * self.row_length + number for label, number in owned], device="cpu")  # (T,)
        self.register_buffer("label_of", label_of, persistent=False)
        self.register_buffer("place_of", place_of, persistent=False)
        tokens = len(label_of)
        self.encoder = LatentEncoder(cfg.encoder, label_of, cfg.style_dim, cfg.absent_attention)
        halvings = [min(MOST_HALVINGS, cfg.up_blocks - level) for level in range(cfg.up_blocks + 1)]  # still to come
        widths = [cfg.base_width * 2**count for count in halvings]
        self.start = nn.Conv2d(num_classes, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList(
            ScamBlock(cfg, tokens, widths[level], widths[level + 1], last=level == cfg.up_blocks - 1)
            for level in range(cfg.up_blocks)
        )

    def encode_style(self, image: Tensor, mask: Tensor) -> Tensor:
        """Latents of each label, one label a row (N,K,L*D); of absent labels too."""
        return self.rows_of(self.encoder(image, mask))

    def synthesize(self, mask: Tensor, style: Tensor, *, attention: bool = True) -> Synthesis:
        """Image from `mask` (N,K,H,W) and latents `style` (N,K,L*D).

        Its attention is imposed by the mask, so there are no logits to pull towards it, and none are given.
        """
        size = (mask.shape[2], mask.shape[3])
        coarse = start_size(size, self.config.up_blocks)
        masks = LabelMasks(mask, self.label_of)
        latents = self.latent_rows(style)
        x, image = self.start(resize_nearest(mask, coarse)), None
        for number, block in enumerate(self._blocks()):
            doubled = (x.shape[2] * 2, x.shape[3] * 2)
            x, latents, image = block(x, latents, image, masks, size if number == len(self.blocks) - 1 else doubled)
        assert image is not None, "there is at least one block"
        return Synthesis(torch.tanh(image))

    def rows_of(self, latents: Tensor) -> Tensor:
        """Latents (N,T,D) as rows of labels (N,K,L*D); a row with room to spare ends in zeros."""
        slots = latents.new_zeros(latents.shape[0], self.num_classes * self.row_length, latents.shape[2])
        rows = slots.index_copy(1, self.place_of, latents)
        return rows.view(latents.shape[0], self.num_classes, -1)

    def latent_rows(self, style: Tensor) -> Tensor:
        """What `rows_of` made back to latents: (N,K,L*D) -> (N,T,D)."""
        return style.unflatten(2, (self.row_length, -1)).flatten(1, 2).index_select(1, self.place_of)

    def _blocks(self) -> list[ScamBlock]:
        return [cast("ScamBlock", block) for block in self.blocks]


def start_size(size: tuple[int, int], blocks: int) -> tuple[int, int]:
    """Size (height, width) of the first feature map: the short side over 2^blocks, the long one in proportion.

    The release divides by the aspect ratio where it should multiply for pictures wider than high; all its data are square or
    tall, for which this is its rule.
    """
    height, width = size
    short = min(size) >> blocks
    long = round(short * max(size) / min(size)) if short else 0
    if short == 0 or short * long == 1:
        least = 2**blocks
        raise UserError(
            f"image size {height}x{width} does not suit scam with {blocks} up blocks: both sides must be at least {least} pixels, "
            f"and one at least {2 * least}"
        )
    return (long, short) if height > width else (short, long)


def build(cfg: ScamModel, num_classes: int, size: tuple[int, int]) -> ScamGenerator:
    """SCAM generator of `cfg` for `num_classes` classes at `size` = (height, width)."""
    return ScamGenerator(cfg, num_classes, size)

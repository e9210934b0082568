"""The (CA)²-SIS generator: grouped style encoder, mask embedder, decoder conditioned by class-adaptive cross-attention.

Semantic Image Synthesis via Class-Adaptive Cross-Attention (arXiv 2308.16071). The class maps of the mask embedder,
mixed by a 1x1 convolution, go through stages of residual block + transformer block; each stage's pixels attend to the K
class style codes. Which conditioning a stage uses is a config value, so that cross-attention, SPADE, SEAN and CLADE
are compared in one and the same decoder.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.errors import UserError
from pipeline.models.blocks import ResidualBlock, TransformerBlock, TransformerOptions
from pipeline.models.class_access import ClassOptions
from pipeline.models.contract import Capabilities, Generator, Synthesis
from pipeline.models.head_maps import level_names
from pipeline.models.kernels import is_naive
from pipeline.models.mapping import MappingNetwork
from pipeline.models.mask_embedder import MaskEmbedder
from pipeline.models.precision import wide
from pipeline.models.style_encoder import build_style_encoder
from pipeline.schema.model_ca2sis import Ca2sisModel


class DecoderStage(nn.Module):
    """One resolution of the decoder: residual block (upsampling except in the first stage), then transformer block."""

    def __init__(self, in_channels: int, out_channels: int, options: TransformerOptions, *, upsample: bool) -> None:
        super().__init__()
        self.residual = ResidualBlock(in_channels, out_channels, upsample=upsample)
        self.transformer = TransformerBlock(out_channels, options)

    def forward(self, x: Tensor, style: Tensor, mask: Tensor, *, attention: bool) -> tuple[Tensor, list[Tensor]]:
        """x (N,C,h,w), style (N,K,S), mask (N,K,H,W) -> features (N,C',h',w') and per layer logits (N,K,h',w')."""
        out: tuple[Tensor, list[Tensor]] = self.transformer(self.residual(x), style, mask, attention=attention)
        return out


class Ca2sisGenerator(Generator):
    """(CA)²-SIS. Height and width are fixed at construction and divisible by `stride` = 2^(stages-1)."""

    def __init__(self, cfg: Ca2sisModel, num_classes: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.num_classes, self.size, self.stride = num_classes, size, cfg.stride
        if num_classes < 2:
            raise UserError(f"data has {num_classes} classes; ca2sis needs at least 2")
        if size[0] % cfg.stride or size[1] % cfg.stride or min(size) < cfg.stride:
            raise UserError(
                f"size {size[0]}x{size[1]} (height x width): both must be divisible by {cfg.stride}, the stride of "
                f"model.stages={cfg.stages}"
            )
        self.config: Ca2sisModel = cfg
        self.exclude_background = cfg.exclude_background
        self.encoder = build_style_encoder(cfg.encoder, num_classes)
        self.embedder = MaskEmbedder(cfg.mask_embedder, size, cfg.stride)
        self.mapping: MappingNetwork | None = None
        if cfg.mapping.enabled:
            self.mapping = MappingNetwork(
                num_classes,
                self.encoder.code_width,
                noise_width=cfg.mapping.noise_width,
                hidden=cfg.mapping.hidden,
                shared_layers=cfg.mapping.shared_layers,
                head_layers=cfg.mapping.head_layers,
            )
        widths = cfg.stage_widths
        self.mix = nn.Conv2d(num_classes - int(cfg.exclude_background), 2 * widths[0], 1)
        self.stages = nn.ModuleList(
            DecoderStage(
                2 * widths[0] if index == 0 else widths[index - 1],
                width,
                self._options(cfg, index),
                upsample=index > 0,
            )
            for index, width in enumerate(widths)
        )
        self.to_rgb = nn.Conv2d(widths[-1], 3, 1)
        self.capabilities = Capabilities(
            style="per_class",
            sampling=cfg.mapping.enabled,
            attention="cross_attention" in cfg.stage_conditioning,
            shape_embedding=True,
            noise_width=cfg.mapping.noise_width if cfg.mapping.enabled else 0,
        )

    def _options(self, cfg: Ca2sisModel, index: int) -> TransformerOptions:
        last = index == cfg.stages - 1
        return TransformerOptions(
            heads=cfg.attention.last_heads if last else cfg.attention.heads,
            head_width=cfg.attention.last_head_width if last else cfg.attention.head_width,
            depth=cfg.depth,
            feed_forward=cfg.feed_forward,
            self_attention=index in cfg.attention.self_attention,
            conditioning=cfg.stage_conditioning[index],
            num_classes=self.num_classes,
            style_dim=self.encoder.code_width,
            classes=ClassOptions.of(cfg.attention, self.num_classes, cfg.encoder.codes_per_class),
            modulation_hidden=cfg.modulation.hidden,
            modulation_style_channels=cfg.modulation.style_channels,
            modulation_norm=cfg.modulation.norm,
            checkpointing=cfg.checkpointing,
        )

    def encode_style(self, image: Tensor, mask: Tensor) -> Tensor:
        """Style codes (N,K,S) in (-1,1) of `image` (N,3,H,W float32 [-1,1]) under `mask` (N,K,H,W one-hot).

        S = style_dim x pooled levels (release: 1280), coarsest level first, times the codes a class, one behind the
        other. The code of an absent class is tanh(bias), a learned default that is not zero. Raises UserError on
        another mask size or class count than the generator was built for.
        """
        self._check(mask)
        codes: Tensor = self.encoder(image, mask)
        return codes

    def embed_shape(self, mask: Tensor) -> Tensor:
        """Mask embedding (N,K',h*w) of `mask` (N,K,H,W one-hot): one first-stage map a class, row by row.

        K' excludes the background (class 0) if the config says so.
        """
        self._check(mask)
        embedding: Tensor = self.embedder(mask[:, 1:] if self.exclude_background else mask)
        return embedding

    def synthesize(self, mask: Tensor, style: Tensor, *, attention: bool = True) -> Synthesis:
        """Image (N,3,H,W) in [-1,1] of layout `mask` (N,K,H,W one-hot) in `style` (N,K,S).

        With `attention`, also the head-averaged pre-softmax logits (N,K,h,w) of every cross-attention layer, coarsest
        stage first; without, none are computed. The image is the same.
        """
        return self.synthesize_embedded(mask, self.embed_shape(mask), style, attention=attention)

    def synthesize_embedded(self, mask: Tensor, shape: Tensor, style: Tensor, *, attention: bool = True) -> Synthesis:
        """As `synthesize` from a mask embedding `shape` (N,K',h*w).

        `mask` is read by the conditionings `spade`, `sean` and `clade` and by masked attention alone.
        """
        x = self.mix(shape.unflatten(2, self.embedder.side))  # (N,16*base_width,h,w) in the release
        if not is_naive():  # channels of a pixel together: its token is then a view of the feature map
            x = x.contiguous(memory_format=torch.channels_last)
        maps: list[Tensor] = []
        for stage in self.stages:
            x, logits = stage(x, style, mask, attention=attention)
            maps += logits
        return Synthesis(torch.tanh(wide(self.to_rgb(x))), maps)

    def access_tables(self) -> dict[str, Tensor]:
        """As `Generator.access_tables`, under masking `access`."""
        heights, tables = [], []
        for index, stage in enumerate(stage for stage in self.stages if isinstance(stage, DecoderStage)):
            for attention in stage.transformer.cross_attentions():
                heights.append(self.size[0] // self.stride << index)
                tables.append(attention.access_table())
        return {
            name: table.detach() for name, table in zip(level_names(heights), tables, strict=True) if table is not None
        }

    def sampling_parameters(self) -> list[nn.Parameter]:
        return [] if self.mapping is None else list(self.mapping.parameters())

    def sample_style(self, mask: Tensor, noise: Tensor) -> Tensor:
        """Style codes (N,K,S) drawn from `noise` (N,noise_width) standard normal; zero for classes absent in `mask`."""
        if self.mapping is None:
            raise UserError("model.mapping.enabled is false: this generator has no mapping network to draw styles with")
        self._check(mask)
        codes: Tensor = self.mapping(noise, mask)
        return codes

    def _check(self, mask: Tensor) -> None:
        if tuple(mask.shape[1:]) != (self.num_classes, *self.size):
            raise UserError(
                f"mask is {tuple(mask.shape)}; this generator takes "
                f"(N, {self.num_classes}, {self.size[0]}, {self.size[1]})"
            )


def build(cfg: Ca2sisModel, num_classes: int, size: tuple[int, int]) -> Ca2sisGenerator:
    """The generator of a config section for K = `num_classes` at `size` (height, width).

    Raises UserError for a size the stages do not divide, and for a grouping the classes do not allow.
    """
    return Ca2sisGenerator(cfg, num_classes, size)

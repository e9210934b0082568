"""SemanticStyleGAN as a family of this project: codes in, a picture and its own mask out; photos enter by inversion.

It cannot be told which layout to draw. What the contract calls the style is all codes (N,C,D): base, and for each class shape and
texture. `encode_style` is where inversion starts: the encoder's codes, or the mean code where there is no encoder.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.errors import UserError
from pipeline.models.contract import Capabilities, ComposingGenerator, Synthesis
from pipeline.models.semanticstylegan.codes import CodeBook
from pipeline.models.semanticstylegan.discriminator import MaskedDiscriminator
from pipeline.models.semanticstylegan.encoder import PhotoEncoder, mean_of, settled
from pipeline.models.semanticstylegan.synthesis import Composer, Composition, MappingNetwork
from pipeline.models.trunk import check_size
from pipeline.schema.model_semanticstylegan import MERGES, SemanticStyleganModel

MEAN_SAMPLES = 10_000  # z behind the mean code (release)


class SemanticStyleGan(ComposingGenerator):
    """Mapping, local generators, fusion and render net, and our encoder."""

    config: SemanticStyleganModel
    mean_w: Tensor

    def __init__(self, cfg: SemanticStyleganModel, num_classes: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.config, self.num_classes, self.size = cfg, num_classes, size
        self.stride = 2**cfg.stages
        check_size("semanticstylegan", size, self.stride, single=True)
        table = merge_table(cfg, num_classes)
        self.layout_classes = max(table) + 1
        if max(cfg.transparent, default=0) >= self.layout_classes:
            raise UserError(
                f"model.transparent is {list(cfg.transparent)}; this network's classes are 0 to {self.layout_classes - 1}"
            )
        self.book = CodeBook(cfg, self.layout_classes)
        self.capabilities = Capabilities(
            style="codes", sampling=True, noise_width=cfg.code_width, layout="own", training="unconditional"
        )
        self.table = table
        self.mapping = MappingNetwork(cfg.code_width, cfg.mapping_layers, cfg.mapping_lr_factor)
        self.composer = Composer(cfg, self.layout_classes, size)
        self.encoder = (
            PhotoEncoder(cfg.encoder, self.book.count, cfg.code_width, size) if cfg.encoder.share > 0 else None
        )
        self.register_buffer("mean_w", torch.zeros(cfg.code_width))
        self.settle()

    def settle(self) -> None:
        """Take the mean code anew, after weights of the mapping network have changed."""
        if settled(self.mapping):
            self.mean_w.copy_(mean_of(self.mapping, self.config.code_width, MEAN_SAMPLES, self.mean_w.device))

    def encode_style(self, image: Tensor, mask: Tensor) -> Tensor:
        """Codes (N,C,D) that inversion of `image` starts from; the mask is not looked at."""
        mean = self.mean_codes(image.shape[0])
        return mean if self.encoder is None else mean + self.encoder(image)

    def mean_codes(self, count: int) -> Tensor:
        """(count,C,D): the mean code in every place."""
        return self.mean_w.expand(count, self.book.count, -1)

    def synthesize(self, mask: Tensor, style: Tensor, *, attention: bool = True) -> Synthesis:
        """The picture of the codes `style` (N,C,D), cut to [-1, 1], with the layout it draws; `mask` says its size alone."""
        height, width = mask.shape[-2:]
        if (height, width) != self.size:
            raise UserError(
                f"this SemanticStyleGAN was built for {self.size[0]}x{self.size[1]} pixels and cannot draw {height}x{width}"
            )
        made = self.render(style)
        return Synthesis(made.image.clamp(-1, 1), layout=made.layout)

    def render(self, style: Tensor) -> Synthesis:
        """The picture of the codes `style` (N,C,D) as it is, with the layout it draws; the noise is fixed."""
        made = self.compose(style, fixed_noise=True)
        return Synthesis(made.image, layout=made.mask)

    def sample_style(self, mask: Tensor, noise: Tensor) -> Tensor:
        """Codes (N,C,D), all equal, of noise z (N,D), drawn towards their mean by `model.truncation`."""
        w = torch.lerp(self.mean_w, self.mapping(noise), self.config.truncation)
        return w.unsqueeze(1).expand(-1, self.book.count, -1)

    def sampling_parameters(self) -> list[nn.Parameter]:
        """Those of the mapping network, which inversion does not use."""
        return list(self.mapping.parameters())

    def compose(self, codes: Tensor, *, keep: Tensor | None = None, fixed_noise: bool) -> Composition:
        """The composition of codes (N,C,D), of one code (N,D) for all places, or of a code a layer (N,K,L,D).

        `keep` (N,K of 0/1): classes that take part; `fixed_noise`: the buffers' noise, else it is drawn.
        """
        expanded = codes if codes.dim() == 4 else self.book.expand(codes)
        made: Composition = self.composer(expanded, keep=keep, fixed_noise=fixed_noise)
        return made

    def merged(self, mask: Tensor) -> Tensor:
        """The data's mask (N,K,H,W) one-hot in the classes of the network (N,K',H,W)."""
        if self.table == tuple(range(self.num_classes)):
            return mask
        table = torch.tensor(self.table, device=mask.device)
        return mask.new_zeros(mask.shape[0], self.layout_classes, *mask.shape[2:]).index_add_(1, table, mask)

    def exchanged(
        self, style: Tensor, other: Tensor, classes: Sequence[Sequence[int]] | None, *, shape: bool, texture: bool
    ) -> Tensor:
        """Codes `style` (N,C,D) with those of each image's classes (of the data) taken from `other`.

        None: of all classes, and with the shapes the base codes.
        """
        mixed = style.clone()
        if classes is None:
            places = self.book.places(range(self.layout_classes), shape=shape, texture=texture)
            places += list(range(self.book.base)) if shape else []
            mixed[:, places] = other[:, places]
            return mixed
        for number, chosen in enumerate(classes):
            places = self.book.places([self.table[k] for k in chosen], shape=shape, texture=texture)
            mixed[number, places] = other[number, places]
        return mixed

    def own_discriminator(self) -> MaskedDiscriminator:
        """The discriminator this family is trained against."""
        return MaskedDiscriminator(self.config.discriminator, self.layout_classes, self.size)


def merge_table(cfg: SemanticStyleganModel, num_classes: int) -> tuple[int, ...]:
    """The network's class of each of the data's labels."""
    if cfg.merge == "none":
        return tuple(range(num_classes))
    table = MERGES[cfg.merge]
    if len(table) != num_classes:
        raise UserError(
            f"model.merge is {cfg.merge}, a table for {len(table)} labels; these data have {num_classes}: set "
            "model.merge=none model.transparent=[]"
        )
    return table


def real_mask(mask: Tensor) -> Tensor:
    """A one-hot mask as the discriminator sees real ones: 2 m - 1."""
    return mask * 2.0 - 1.0


def build(cfg: SemanticStyleganModel, num_classes: int, size: tuple[int, int]) -> SemanticStyleGan:
    """SemanticStyleGAN of `cfg` for data of `num_classes` labels at `size` = (height, width)."""
    return SemanticStyleGan(cfg, num_classes, size)

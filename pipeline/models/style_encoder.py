"""The Multi-Resolution Grouped Style Encoder of (CA)²-SIS: image and mask -> one style code a class.

A shared first convolution, a stride-2 encoder and a bilinear decoder with skip concatenation. Every further convolution
is grouped by class; at each pooled level the features of class k are averaged inside mask k and projected to a code.
The grouping is an ablation switch. In the release a skip feature is stacked behind the decoder feature before a
convolution with K groups, so from the second level on groups and classes drift apart; `class` interleaves the two by
class first, at the same size and cost.

A class may have several codes. They need several summaries of one region, hence attention pooling: projections of one
mean would be views of the same vector, and could not tell the light part of a region from the dark one.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.errors import UserError
from pipeline.models.conditioning import resize_nearest
from pipeline.models.kernels import folds, is_naive
from pipeline.models.norms import GroupNorm
from pipeline.models.precision import full_precision, wide
from pipeline.schema.model_ca2sis import Pooling, StyleEncoderSection

COUNT_EPS = 1e-5  # added to a region's pixel count; source: release


def _conv(in_channels: int, out_channels: int, groups: int, norm_groups: int, stride: int = 1) -> nn.Sequential:
    """3x3 conv, group norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, groups=groups),
        GroupNorm(norm_groups, out_channels, eps=1e-5),
        nn.ReLU(inplace=True),
    )


class CodeProjection(nn.Module):
    """Pooled features -> tanh(W_g x + b_k): a matrix a feature group, a bias (the code of an absent class) a class and code."""

    def __init__(self, features: int, groups: int, num_classes: int, style_dim: int, codes: int) -> None:
        super().__init__()
        bound = features**-0.5  # torch's default for a kernel-1 convolution
        self.codes = codes  # a class
        self.weight = nn.Parameter(torch.empty(groups, style_dim, features).uniform_(-bound, bound))  # (G,S,c)
        self.bias = nn.Parameter(torch.empty(num_classes, codes * style_dim).uniform_(-bound, bound))  # (K,n*S)

    def forward(self, pooled: Tensor) -> Tensor:
        """(N,K,n,c) float32 -> (N,K,n,S) in (-1, 1)."""
        images = pooled.shape[0]
        projected = self._projected(pooled.transpose(1, 2).flatten(0, 1))  # (N*n,K,S)
        by_code = projected.unflatten(0, (images, self.codes)).transpose(1, 2)  # (N,K,n,S)
        return (by_code + self.bias.unflatten(1, (self.codes, -1))).tanh()

    def _projected(self, pooled: Tensor) -> Tensor:
        """(N,K,c) -> (N,K,S), without bias."""
        num_classes, groups = self.bias.shape[0], self.weight.shape[0]
        if is_naive():
            codes = [F.linear(pooled[:, k], self.weight[k * groups // num_classes]) for k in range(num_classes)]
            return torch.stack(codes, dim=1)
        if groups == num_classes:
            return torch.bmm(pooled.transpose(0, 1), self.weight.mT).transpose(0, 1)
        parts = [F.linear(pooled[:, own], self.weight[g]) for g, own in enumerate(group_slices(num_classes, groups))]
        return torch.cat(parts, dim=1)


def group_slices(num_classes: int, groups: int) -> list[slice]:
    """The classes of each of `groups` feature groups: class k belongs to group floor(k * groups / num_classes)."""
    firsts = [-(-g * num_classes // groups) for g in range(groups + 1)]  # ceil(g K / G)
    return [slice(first, last) for first, last in itertools.pairwise(firsts)]


def region_mean(features: Tensor, mask: Tensor, groups: int) -> Tensor:
    """Mean of each class's own feature group inside its mask, sum / (pixels + 1e-5); zero for an absent class.

    features (N,groups*c,h,w); mask (N,K,h,w) one-hot -> (N,K,c), float32 also under autocast.
    """
    num_classes = mask.shape[1]
    with full_precision(features):
        features = wide(features)
        m = mask.to(features.dtype).flatten(2)  # (N,K,P)
        if folds():
            # One product of all masks with all features, of which each class keeps its own group: more arithmetic than K
            # small products and less time, since channels-last features and their gradient stay as they are.
            pixels = features.permute(0, 2, 3, 1).flatten(1, 2)  # (N,P,G*c)
            total = _own_group((m @ pixels).unflatten(2, (groups, -1)))
        else:
            x = features.unflatten(1, (groups, -1)).flatten(3)  # (N,G,c,P)
            own = [x[:, k * groups // num_classes] for k in range(num_classes)]
            if is_naive():
                total = torch.stack([(x * m[:, k : k + 1]).sum(dim=2) for k, x in enumerate(own)], dim=1)
            else:
                total = torch.einsum("nkcp,nkp->nkc", torch.stack(own, dim=1), m)
        return total / (m.sum(dim=2, keepdim=True) + COUNT_EPS)


class RegionAttention(nn.Module):
    """n attention-weighted means of each class's own features inside its mask, zero for an absent class.

    Softmax over the region's pixels of query . feature / sqrt(c), with one learned query a class and code.
    """

    def __init__(self, features: int, num_classes: int, codes: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(num_classes, codes, features))  # (K,n,c); equal ones would stay equal

    def forward(self, features: Tensor, mask: Tensor, groups: int) -> Tensor:
        """features (N,groups*c,h,w); mask (N,K,h,w) one-hot -> (N,K,n,c), float32 also under autocast."""
        with full_precision(features):
            x = wide(features).unflatten(1, (groups, -1)).flatten(3)  # (N,G,c,P)
            m = mask.flatten(2)  # (N,K,P)
            queries = self.queries * x.shape[2] ** -0.5
            if is_naive():
                return self._loop(x, m, queries)
            if groups == mask.shape[1]:
                return self._weighted(torch.einsum("kjc,nkcp->nkjp", queries, x), m, x)
            parts = []
            for g, own in enumerate(group_slices(mask.shape[1], groups)):
                scores = torch.einsum("kjc,ncp->nkjp", queries[own], x[:, g])
                parts.append(self._weighted(scores, m[:, own], x[:, g : g + 1]))
            return torch.cat(parts, dim=1)

    def _weighted(self, scores: Tensor, m: Tensor, x: Tensor) -> Tensor:
        """Scores (N,K,n,P), masks (N,K,P), features (N,K or 1,c,P) -> weighted means (N,K,n,c)."""
        outside = (m == 0).unsqueeze(2)
        there = m.amax(dim=2)[..., None, None]  # (N,K,1,1): 0 where the region is empty
        weights = scores.masked_fill(outside, torch.finfo(scores.dtype).min).softmax(dim=-1) * there
        return weights @ x.transpose(2, 3)

    def _loop(self, x: Tensor, m: Tensor, queries: Tensor) -> Tensor:
        """Image by image and class by class, over the pixels of the region alone."""
        groups, classes = x.shape[1], m.shape[1]
        means = []
        for image, regions in zip(x, m, strict=True):
            for k in range(classes):
                own = image[k * groups // classes][:, regions[k] > 0]  # (c,pixels)
                weights = (queries[k] @ own).softmax(dim=-1)  # (n,pixels)
                means.append(weights @ own.t())
        return torch.stack(means).unflatten(0, (x.shape[0], classes))


def _own_group(x: Tensor) -> Tensor:
    """(N,K,G,c) -> (N,K,c): of each class, the group it belongs to."""
    num_classes, groups = x.shape[1], x.shape[2]
    if groups == num_classes:
        return x.diagonal(dim1=1, dim2=2).transpose(1, 2)
    return torch.cat([x[:, own, g] for g, own in enumerate(group_slices(num_classes, groups))], dim=1)


class StyleEncoder(nn.Module):
    """Image (N,3,H,W) and mask (N,K,H,W) -> codes (N,K,n*levels*style_dim): code after code, in each the coarsest level first."""

    def __init__(
        self,
        num_classes: int,
        *,
        channels: int,  # of the first layer, over all groups; doubling per level
        groups: int,  # feature groups, G <= K
        interleave: bool,  # skips are put beside the decoder features of their group; False: stacked behind all of them
        depth: int,
        pooled_strides: tuple[int, ...],
        style_dim: int,
        pooling: Pooling,
        codes_per_class: int,
    ) -> None:
        super().__init__()
        self.num_classes, self.groups, self.interleave, self.pooling = num_classes, groups, interleave, pooling
        self.code_width = codes_per_class * style_dim * len(pooled_strides)
        self.parameter_ratio = 1.0  # of this encoder to the grouped one of its section; set by `build_style_encoder`
        self.first = _conv(3, channels, 1, groups)
        self.down = nn.ModuleList(
            _conv(channels * 2**i, channels * 2 ** (i + 1), groups, groups, stride=2) for i in range(depth)
        )
        self.strides = [2**i for i in range(depth - 1, -1, -1) if 2**i >= min(pooled_strides)]  # of the decoder levels
        self.up = nn.ModuleList(
            _conv(channels * 2 * stride, channels * stride, groups, groups)
            if level == 0
            else _conv(channels * 4 * stride, channels * stride, groups, groups)
            for level, stride in enumerate(self.strides)
        )
        self.codes = nn.ModuleDict(
            {
                str(stride): CodeProjection(
                    channels * stride // groups, groups, num_classes, style_dim, codes_per_class
                )
                for stride in pooled_strides
            }
        )
        self.regions = nn.ModuleDict(
            {
                str(stride): RegionAttention(channels * stride // groups, num_classes, codes_per_class)
                for stride in pooled_strides
                if pooling == "attention"
            }
        )
        self.to(memory_format=torch.channels_last)  # as the features are, else every pass would turn the weights

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        """image (N,3,H,W) float32 [-1,1], mask (N,K,H,W) one-hot -> (N,K,code_width) float32 in (-1,1)."""
        if not is_naive():  # on CPUs, all layers that follow are faster with a pixel's channels together
            image = image.contiguous(memory_format=torch.channels_last)
        return torch.cat(self.level_codes(self.first(image), mask), dim=-1).flatten(2)

    def level_codes(self, features: Tensor, mask: Tensor) -> list[Tensor]:
        """Codes (N,K,n,S) of every pooled level, coarsest first, from the first layer's output (N,C,H,W)."""
        skips = [features]
        for layer in self.down:
            skips.append(layer(skips[-1]))
        x = skips.pop()  # coarsest
        codes: list[Tensor] = []
        for level, (stride, layer) in enumerate(zip(self.strides, self.up, strict=True)):
            if level > 0:
                x = self._join(x, skips.pop())
            x = F.interpolate(
                x, size=skips[-1].shape[-2:], mode="bilinear", align_corners=False
            )  # x2 where sizes are even
            x = layer(x)
            if str(stride) in self.codes:
                codes.append(self.codes[str(stride)](self._pooled(x, mask, str(stride))))
        return codes

    def _pooled(self, x: Tensor, mask: Tensor, stride: str) -> Tensor:
        """Features (N,G*c,h,w) of a level, mask (N,K,H,W) -> (N,K,n,c)."""
        layout = resize_nearest(mask, (x.shape[2], x.shape[3]))
        if self.pooling == "attention":
            pooled: Tensor = self.regions[stride](x, layout, self.groups)
            return pooled
        if self.pooling == "global":
            layout = torch.ones_like(layout)
        return region_mean(x, layout, self.groups).unsqueeze(2)

    def _join(self, x: Tensor, skip: Tensor) -> Tensor:
        """Concatenate decoder feature and skip, both (N,C,h,w) -> (N,2C,h,w)."""
        if not self.interleave:
            return torch.cat([x, skip], dim=1)
        both = [part.unflatten(1, (self.groups, -1)) for part in (x, skip)]  # (N,G,c,h,w)
        return torch.cat(both, dim=2).flatten(1, 2)


def build_style_encoder(section: StyleEncoderSection, num_classes: int) -> StyleEncoder:
    """The encoder of a config section.

    `release`, `class`: one feature group a class. An integer G: classes share G groups of neighbours, at equal total
    width. `shared`: one group. `shared_matched`: one group, with the width whose parameter count is closest to the
    grouped encoder's (`parameter_ratio` says how close). Raises UserError for a group count the classes or channels do
    not allow.
    """
    channels = num_classes * section.width
    if section.grouping in ("release", "class"):
        groups = num_classes
    elif section.grouping in ("shared", "shared_matched"):
        groups = 1
    else:
        groups = int(section.grouping)
        if groups > num_classes or channels % groups:
            raise UserError(
                f"model.encoder.grouping={groups}: allowed are divisors of {channels} (classes x width) "
                f"up to {num_classes} (classes)"
            )

    def make(total_channels: int, group_count: int) -> StyleEncoder:
        return StyleEncoder(
            num_classes,
            channels=total_channels,
            groups=group_count,
            interleave=section.grouping != "release",
            depth=section.depth,
            pooled_strides=section.pooled_strides,
            style_dim=section.style_dim,
            pooling=section.pooling,
            codes_per_class=section.codes_per_class,
        )

    if section.grouping != "shared_matched":
        return make(channels, groups)
    with torch.device("meta"):
        target = _parameters(make(channels, num_classes))
        low, high = 1, channels  # parameter counts grow with the width: bisect to the last width at or below the target
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if _parameters(make(middle, 1)) <= target else (low, middle)
        width = min((low, high), key=lambda candidate: abs(_parameters(make(candidate, 1)) - target))
    encoder = make(width, 1)
    encoder.parameter_ratio = _parameters(encoder) / target
    return encoder


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())

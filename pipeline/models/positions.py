"""Where a pixel lies inside its segment: CLADE's positional encoding ("distance map"), and borders of instances.

Positions are taken from the label map a network is given, not from a file made beforehand, so they move with an edit.
"""

from __future__ import annotations

import torch
from torch import Tensor

_EPS = 1e-5  # added to the largest offset of a part: a part without extent gets 0; source: release

_NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))  # half of the eight: each pair of pixels is looked at once


def layout_labels(mask: Tensor) -> Tensor:
    """One-hot (N,K,H,W) -> class index (N,H,W) int64; K where a pixel has no class."""
    unlabelled = 1 - mask.sum(dim=1, keepdim=True)
    return torch.cat([mask, unlabelled], dim=1).argmax(dim=1)


def connected_parts(labels: Tensor) -> Tensor:
    """Parts of equal label, 8-connected: (N,H,W) integers -> (N,H,W) int64, the largest pixel number in the pixel's part.

    Pixels are numbered through the batch. Numbers spread to neighbours and along their own pointers at once, so that the
    rounds needed grow slowly with the length of a part.
    """
    batch, height, width = labels.shape
    ids = torch.arange(labels.numel(), device=labels.device).view(batch, height, width)
    pairs = []
    for down, right in _NEIGHBOURS:
        first = (slice(None), slice(0, height - down), slice(max(-right, 0), width - max(right, 0)))
        second = (slice(None), slice(down, height), slice(max(right, 0), width + min(right, 0)))
        pairs.append((first, second, labels[first] == labels[second]))
    while True:
        grown = ids.clone()
        for first, second, same in pairs:
            upper, lower = grown[first], grown[second]  # one pixel is in both, of different pairs: after each other
            grown[first] = torch.where(same, torch.maximum(upper, lower), upper)
            grown[second] = torch.where(same, torch.maximum(lower, grown[first]), lower)
        flat = grown.flatten()
        grown = flat[flat].view_as(ids)  # a number is that of a pixel of the same part: its number is good too
        if torch.equal(grown, ids):
            return ids
        ids = grown


@torch.compiler.disable  # type: ignore[untyped-decorator]
@torch.no_grad()
def part_offsets(labels: Tensor, *, skipped: int | None = None, normalise: bool = True) -> Tensor:
    """Signed offset of each pixel from the centroid of its connected part: (N,H,W) integers -> (N,2,H,W) float32.

    Channel 0 is vertical (rows), channel 1 horizontal. With `normalise`, each part and channel is divided by its largest
    absolute offset. Pixels of the label `skipped` get 0 (CLADE, TPAMI 2021, "intra-class positional encoding").
    """
    batch, height, width = labels.shape
    if labels.is_meta:  # for counting a network's operations: shapes alone
        return torch.zeros(batch, 2, height, width, device=labels.device)
    part = connected_parts(labels).flatten()  # (P,)
    rows = torch.arange(height, device=labels.device, dtype=torch.float64).view(1, -1, 1).expand(batch, -1, width)
    columns = torch.arange(width, device=labels.device, dtype=torch.float64).view(1, 1, -1).expand(batch, height, -1)
    pixels = torch.zeros(part.numel(), dtype=torch.float64, device=labels.device)
    pixels = pixels.scatter_add(0, part, torch.ones_like(pixels))
    channels = []
    for place in (rows.flatten(), columns.flatten()):
        offset = place - (torch.zeros_like(pixels).scatter_add(0, part, place) / pixels.clamp(min=1))[part]
        if normalise:
            reach = torch.zeros_like(pixels).scatter_reduce(0, part, offset.abs(), "amax")
            offset = offset / (reach[part] + _EPS)
        channels.append(offset.view(batch, height, width))
    offsets = torch.stack(channels, dim=1)  # (N,2,H,W) float64
    if skipped is not None:
        offsets = offsets * (labels != skipped).unsqueeze(1)
    return offsets.float()


def as_released_when_mirrored(offsets: Tensor) -> Tensor:
    """What CLADE's release feeds with a mirrored sample instead of that sample's `offsets` (N,2,H,W).

    It mirrors photo and labels left to right, but turns the distance map upside down, and changes no sign.
    """
    unmirrored = offsets.flip(3) * offsets.new_tensor([1.0, -1.0]).view(1, 2, 1, 1)
    return unmirrored.flip(2)


def borders(ids: Tensor) -> Tensor:
    """1 where the left, right, upper or lower neighbour has another id: (N,H,W) integers -> (N,1,H,W) float32."""
    across, along = ids[:, 1:] != ids[:, :-1], ids[:, :, 1:] != ids[:, :, :-1]
    found = torch.zeros(ids.shape, dtype=torch.bool, device=ids.device)
    found[:, 1:] |= across
    found[:, :-1] |= across
    found[:, :, 1:] |= along
    found[:, :, :-1] |= along
    return found.unsqueeze(1).float()

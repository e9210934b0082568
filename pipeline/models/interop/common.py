"""What every importer of released weights does: account for each key, by name where missing, extra or misshapen."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pipeline.errors import UserError
from pipeline.models.contract import Generator
from pipeline.schema.base import Section

_SHOWN = 3  # keys named in one message


@dataclass(frozen=True)
class ReleaseShape:
    """What a released state dict says about its network."""

    config: Section  # model section that builds the same network here
    num_classes: int
    size: tuple[int, int]  # (height, width) pixels


class Place(NamedTuple):
    """Where a size shows: dimension `dimension` of each key that matches `pattern`, divided by `divisor`."""

    pattern: str
    dimension: int
    divisor: int = 1


class ReleaseState:
    """A release's state dict, with a ledger: each key is taken, or ignored knowingly, or the import fails."""

    def __init__(self, state: Mapping[str, Tensor], what: str) -> None:
        """`what` names the file in messages, for instance "SPADE generator". A uniform "module." prefix is dropped."""
        if not isinstance(state, Mapping) or not state:
            raise UserError(f"{what}: expected a state dict (key -> tensor), found {type(state).__name__} without keys")
        for key, value in state.items():
            if not isinstance(key, str) or not isinstance(value, Tensor):
                raise UserError(f"{what}: entry {key!r} is a {type(value).__name__}; a state dict holds tensors only")
        wrapped = all(key.startswith("module.") for key in state)
        self.what = what
        self._tensors = {key.removeprefix("module.") if wrapped else key: value for key, value in state.items()}
        self._open = set(self._tensors)

    def read(self, what: str, places: Iterable[Place]) -> int:
        """The size `what` by majority over `places`, so that one misshapen tensor is named later, not believed here."""
        votes = Counter(vote for place in places for vote in self._vote(place))
        if not votes:
            raise UserError(f"{self.what}: no key tells its {what}; is this the file of another network?")
        return votes.most_common(1)[0][0]

    def _vote(self, place: Place) -> list[int]:
        pattern = re.compile(place.pattern)
        shapes = [tuple(value.shape) for key, value in self._tensors.items() if pattern.fullmatch(key)]
        sizes = [shape[place.dimension] for shape in shapes if place.dimension < len(shape)]
        return [size // place.divisor for size in sizes if size >= place.divisor and size % place.divisor == 0]

    def count(self, pattern: str, first: int = 0) -> int:
        """Number of consecutive n = first, first + 1, ... for which some key starts with `pattern.format(n)`."""
        number = first
        while any(key.startswith(pattern.format(number)) for key in self._tensors):
            number += 1
        return number - first

    def has(self, pattern: str) -> bool:
        """Whether any key matches `pattern` as a whole."""
        return any(re.fullmatch(pattern, key) for key in self._tensors)

    def reorder(self, places: Mapping[str, tuple[int, int]], order: Sequence[int]) -> None:
        """Bring classes into our order: `places` maps a pattern of keys to (dimension, index of its first class).

        Tensors that are too small are left for `take` to name.
        """
        for key, value in self._tensors.items():
            for pattern, (dimension, first) in places.items():
                if re.fullmatch(pattern, key) and dimension < value.dim():
                    size = value.shape[dimension]
                    moved = [*range(first), *(first + index for index in order), *range(first + len(order), size)]
                    if size >= first + len(order):
                        self._tensors[key] = value.index_select(dimension, torch.tensor(moved, device=value.device))

    def dimensions(self, key: str) -> int | None:
        """Number of dimensions of `key`, None where it is missing."""
        return self._tensors[key].dim() if key in self._tensors else None

    def take(self, key: str, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """A copy of `key`, which must have this shape, as `dtype`."""
        return self._checked(key, shape).detach().to(device="cpu", dtype=dtype, copy=True)

    def ignore(self, key: str, shape: Sequence[int]) -> None:
        """Account for a key that the network owns but never reads; it must be there all the same."""
        self._checked(key, shape)

    def _checked(self, key: str, shape: Sequence[int]) -> Tensor:
        if key not in self._tensors:
            raise UserError(f"{self.what}: key {key} is missing")
        value = self._tensors[key]
        if tuple(value.shape) != tuple(shape):
            raise UserError(
                f"{self.what}: key {key} has shape {tuple(value.shape)}; the other sizes call for {tuple(shape)}"
            )
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise UserError(f"{self.what}: key {key} holds values that are not finite")
        self._open.discard(key)
        return value

    def finish(self) -> None:
        """Fail if any key was neither taken nor ignored."""
        if self._open:
            extra = sorted(self._open)
            more = f" and {len(extra) - _SHOWN} more" if len(extra) > _SHOWN else ""
            raise UserError(
                f"{self.what}: extra key {', '.join(extra[:_SHOWN])}{more}; this network has no place for it"
            )


class Assembly:
    """The state dict of one of our networks, filled key by key from a release's."""

    def __init__(self, build: Callable[[], nn.Module]) -> None:
        """`build` makes the network, without memory for its weights, which are then those of the release."""
        with torch.device("meta"):
            self.network = build()
        self._wanted = {key: (tuple(value.shape), value.dtype) for key, value in self.network.state_dict().items()}
        self._filled: dict[str, Tensor] = {}

    def shape(self, key: str) -> tuple[int, ...]:
        """Shape of our `key`."""
        return self._wanted[key][0]

    def has(self, name: str) -> bool:
        """Whether our network has the layer or parameter `name`."""
        return any(key == name or key.startswith(f"{name}.") for key in self._wanted)

    def copy(self, key: str, source: ReleaseState, source_key: str, *, ones: tuple[int, int] = (0, 0)) -> None:
        """Our `key` is the release's `source_key`, which has so many dimensions of size 1 more, (in front, behind)."""
        shape, dtype = self._wanted[key]
        self._filled[key] = source.take(source_key, _with_ones(shape, ones), dtype).view(shape)

    def stack(
        self, key: str, source: ReleaseState, source_keys: Sequence[str], *, ones: tuple[int, int] = (0, 0)
    ) -> None:
        """Our `key` holds the release's `source_keys` along its first dimension; `ones` as in `copy`."""
        shape, dtype = self._wanted[key]
        theirs = _with_ones(shape[1:], ones)
        parts = [source.take(source_key, theirs, dtype).view(shape[1:]) for source_key in source_keys]
        self._filled[key] = torch.stack(parts)

    def fill(self, key: str, value: Tensor) -> None:
        """Our `key` has no counterpart in the release: it starts as `value`."""
        self._filled[key] = value

    def join(self, key: str, source: ReleaseState, source_keys: Sequence[str]) -> None:
        """Our `key` holds the release's `source_keys` one after the other along its first dimension, in equal parts."""
        shape, dtype = self._wanted[key]
        part = (shape[0] // len(source_keys), *shape[1:])
        self._filled[key] = torch.cat([source.take(source_key, part, dtype) for source_key in source_keys])

    def layer(self, key: str, source: ReleaseState, source_key: str) -> None:
        """A conv or linear layer: weight, bias where ours has one; with spectral norm weight_orig, weight_u, weight_v."""
        if f"{key}.parametrizations.weight.original" in self._wanted:
            self.copy(f"{key}.parametrizations.weight.original", source, f"{source_key}.weight_orig")
            self.copy(f"{key}.parametrizations.weight.0.u", source, f"{source_key}.weight_u")
            self.copy(f"{key}.parametrizations.weight.0.v", source, f"{source_key}.weight_v")
        else:
            self.copy(f"{key}.weight", source, f"{source_key}.weight")
        if f"{key}.bias" in self._wanted:
            self.copy(f"{key}.bias", source, f"{source_key}.bias")

    def running_statistics(self, key: str, source: ReleaseState, source_key: str) -> None:
        """The three buffers of a batch norm without affine."""
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.copy(f"{key}.{name}", source, f"{source_key}.{name}")

    def finish(self) -> nn.Module:
        """The network with the release's weights, in eval mode."""
        self.network.load_state_dict(self._filled, strict=True, assign=True)
        for parameter in self.network.parameters():
            parameter.requires_grad_(True)
        return self.network.eval()


def unknown_last(num_classes: int) -> list[int]:
    """Order of a release's classes that moves its class 0 ("unlabelled") behind all others, where this project has it."""
    return [*range(1, num_classes), 0]


def _with_ones(shape: tuple[int, ...], ones: tuple[int, int]) -> tuple[int, ...]:
    return (1,) * ones[0] + shape + (1,) * ones[1]


def as_generator(network: nn.Module) -> Generator:
    """Narrow the type of an assembled network."""
    assert isinstance(network, Generator), "importers of generators build generators"
    return network


def read_trunk(state: ReleaseState) -> tuple[int, int, bool]:
    """(base_width, up_blocks, middle_upsample) of the trunk SPADE and SEAN share.

    A fifth up block exists with the release's "most" upsampling only, which upsamples between the middle blocks too;
    whether four up blocks mean "normal" or "more" cannot be read off, and "normal" is the release's default.
    """
    up_blocks = state.count("up_{}.")
    if up_blocks == 0:
        raise UserError(f"{state.what}: key up_0.conv_0.weight_orig is missing")
    last = up_blocks - 1
    base_width = state.read(
        "base width",
        [
            Place(r"conv_img\.weight", 1),
            Place(rf"up_{last}\.conv_[01]\.(weight_orig|weight_u|bias)", 0),
            Place(rf"up_{last}\.conv_s\.weight_orig", 0),
            Place(r"head_0\.conv_[01]\.(weight_orig|weight_u|bias)", 0, 2**up_blocks),
        ],
    )
    return base_width, up_blocks, up_blocks > 4


def read_mask_branch(state: ReleaseState) -> tuple[int, int]:
    """(modulation_width, num_classes) from the convs of all mask branches."""
    convs = r".*\.mlp_shared\.0\.weight"
    return state.read("modulation width", [Place(convs, 0)]), state.read("number of classes", [Place(convs, 1)])


def read_start_size(state: ReleaseState, channels: int) -> tuple[int, int]:
    """(height, width) of the map that fc fills: square, or twice as wide as high (the release's aspect ratios 1 and 2)."""
    pixels = state.read("start size", [Place(r"fc\.(weight|bias)", 0, channels)])
    side, half = math.isqrt(pixels), math.isqrt(pixels // 2)
    if side * side == pixels:
        return side, side
    if 2 * half * half == pixels:
        return half, 2 * half
    raise UserError(f"{state.what}: key fc.weight fills {pixels} pixels, which is no map of aspect ratio 1 or 2")


def fill_trunk(
    assembly: Assembly, state: ReleaseState, up_blocks: int, norm_name: str, fill_norm: Callable[[str, str], None]
) -> None:
    """Fill the shared trunk; `fill_norm(our prefix, their prefix)` fills one norm.

    `norm_name` is the release's ("norm" or "ace").
    """
    names = {"head": "head_0", "middle_0": "G_middle_0", "middle_1": "G_middle_1"}
    names |= {f"up.{level}": f"up_{level}" for level in range(up_blocks)}
    for ours, theirs in names.items():
        branches = (
            "01s" if ours.startswith("up") else "01"
        )  # the width changes in up blocks only, so they have a shortcut
        for branch in branches:
            assembly.layer(f"trunk.{ours}.conv_{branch}", state, f"{theirs}.conv_{branch}")
            fill_norm(f"trunk.{ours}.norm_{branch}", f"{theirs}.{norm_name}_{branch}")
    assembly.layer("trunk.to_image", state, "conv_img")

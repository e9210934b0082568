"""Pivotal tuning: the weights of a composing family follow one photo, whose codes stand still (Roich et al. 2021, section 3.2).

What tuning changes is kept as differences to the network's weights, in half precision and on disk: whole networks, one a photo,
would fit into no memory, and every edit of a photo would cost another tuning. A style says itself whose weights it is drawn with,
in one row behind its codes, so edits of a photo keep to the weights of that photo.
"""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from pipeline.errors import RunFailed, UserError
from pipeline.evaluation.photo_loss import Distance, layout_loss, picture_loss
from pipeline.metrics import cost
from pipeline.models.contract import ComposingGenerator, Synthesis
from pipeline.progress import LongStep
from pipeline.records import atomic
from pipeline.schema.evaluation import InversionConfig

Differences = dict[
    str, Tensor
]  # by parameter name, float16: tuned minus trained; what tuning does not reach is left out
Draw = Callable[[ComposingGenerator], Synthesis]
NOBODY = -1.0  # in the last row of a style: drawn with the weights as they were trained
SECONDS = "seconds"  # of a tuning, in its file


def tune(
    family: ComposingGenerator,
    photo: Tensor,
    mask: Tensor,
    codes: Tensor,
    cfg: InversionConfig,
    perceptual: Distance,
    seed: int,
) -> Differences:
    """What `cfg.tuning` makes of the weights for a photo (1,3,H,W) [-1,1] with `mask` (1,K,H,W) and codes (1,C,D).

    The loss is inversion's, without the pull on the codes, and with weight `locality` the same between what tuned and trained
    weights draw of codes at `locality_distance` from the photo's towards sampled ones (section 3.3). `seed`: of these. Raises
    RunFailed when a loss is not finite.
    """
    budget = cfg.tuning
    trained = {name: parameter.detach() for name, parameter in family.named_parameters()}
    weights = {name: value.clone().requires_grad_() for name, value in trained.items()}
    optimiser = torch.optim.Adam(weights.values(), lr=budget.lr)
    labels = family.merged(mask).argmax(dim=1)
    noise = torch.Generator().manual_seed(seed)
    for step in range(budget.steps):
        near = _nearby(family, mask, codes, budget.locality_distance, noise) if budget.locality > 0 else None
        with torch.enable_grad():
            made = drawn(family, weights, lambda tuned: tuned.render(codes))
            loss = picture_loss(made.image, photo, cfg, perceptual).sum()
            if cfg.mask > 0:
                loss = loss + layout_loss(made, labels, cfg).sum()
            if near is not None:
                before = family.render(near).image.detach()
                after = drawn(family, weights, lambda tuned, near=near: tuned.render(near)).image  # type: ignore[misc]
                loss = loss + budget.locality * picture_loss(after, before, cfg, perceptual).sum()
            gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
        if not bool(torch.isfinite(loss)):
            raise RunFailed(
                f"pivotal tuning: the loss is not finite after {step} steps; a smaller protocol.inversion.tuning.lr may help"
            )
        for weight, gradient in zip(weights.values(), gradients, strict=True):
            weight.grad = gradient
        optimiser.step()
    return {
        name: (weight.detach() - trained[name]).half() for name, weight in weights.items() if weight.grad is not None
    }


def drawn(family: ComposingGenerator, weights: dict[str, Tensor], draw: Draw) -> Synthesis:
    """What `draw` gives of the family with `weights` in place of its own, which are left alone."""
    made: Synthesis = functional_call(
        _Carrier(family), {f"family.{name}": weight for name, weight in weights.items()}, (draw,)
    )
    return made


class Pivots:
    """Photos that are drawn with weights of their own: tuned when they are first needed, kept on disk, read when used."""

    def __init__(
        self, family: ComposingGenerator, cfg: InversionConfig, perceptual: Distance, folder: Path | None
    ) -> None:
        """`folder`: where an evaluation in progress keeps its state; None: a temporary one, gone with this object."""
        self.family, self.cfg, self.perceptual, self.folder = family, cfg, perceptual, folder
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._numbers: dict[str, int] = {}  # by the digest of what a photo's codes were found for
        self._ready: set[int] = set()  # on disk, whole
        self._waiting: dict[int, tuple[Tensor, Tensor, Tensor]] = {}  # photo, mask and codes, until they are tuned

    def marked(self, codes: Tensor, keys: Sequence[str], image: Tensor, mask: Tensor) -> Tensor:
        """Codes (N,C,D) of photos and masks with these keys, and a row more that says whose weights they are drawn with."""
        numbers = []
        for row, key in enumerate(keys):
            number = self._numbers.setdefault(key, len(self._numbers))
            numbers.append(number)
            if number in self._ready or number in self._waiting:
                continue
            if self._read(key) is not None:  # of an attempt that was cut short, or of another process
                self._ready.add(number)
                continue
            at = slice(row, row + 1)
            self._waiting[number] = (image[at].cpu(), mask[at].cpu(), codes[at].cpu())
        return with_owner(codes, torch.tensor(numbers, dtype=codes.dtype))

    def synthesize(self, style: Tensor, draw: Callable[[ComposingGenerator, Tensor, slice], Synthesis]) -> Synthesis:
        """`draw(family, codes, rows)` of a marked style, each picture with the weights of its photo."""
        made = []
        numbers = style[:, -1, 0].tolist()
        shown = LongStep(
            "pictures with weights tuned to their photo:", len(numbers)
        )  # long where they are tuned only now
        for row, number in enumerate(numbers):
            shown.update(row)
            at = slice(row, row + 1)
            codes = style[at, :-1]
            if number == NOBODY:
                made.append(draw(self.family, codes, at))
                continue
            differences, _ = self.tuned(int(number))
            weights = {name: value + differences[name].to(value) for name, value in self._own() if name in differences}
            made.append(drawn(self.family, weights, lambda tuned, codes=codes, at=at: draw(tuned, codes, at)))  # type: ignore[misc]
        shown.update(len(numbers))
        layouts = [one.layout for one in made if one.layout is not None]
        return Synthesis(torch.cat([one.image for one in made]), layout=torch.cat(layouts) if layouts else None)

    def tuned(self, number: int) -> tuple[Differences, float]:
        """What tuning changed for a photo, on the CPU, and the seconds it took; tuned now where that is not on disk."""
        key = list(self._numbers)[number]
        found = self._read(key)
        if found is not None:
            if self._waiting.pop(number, None) is not None:
                self._ready.add(number)
            return found
        device = next(self.family.parameters()).device
        photo, mask, codes = (tensor.to(device) for tensor in self._waiting.pop(number))
        begin = cost.now(device)
        changed = tune(self.family, photo, mask, codes, self.cfg, self.perceptual, int(key[:8], 16))
        seconds = cost.now(device) - begin
        arrays: dict[str, Any] = {name: value.cpu().numpy() for name, value in changed.items()}
        arrays[SECONDS] = np.float64(seconds)
        atomic.write_with(self._path(key), lambda file: np.savez(file, **arrays), durable=False)
        self._ready.add(number)
        return {name: value.cpu() for name, value in changed.items()}, seconds

    def check_room(self, photos: int) -> None:
        """Raise UserError where the disk does not hold the tuned weights of so many photos."""
        folder = self._path("").parent
        folder.mkdir(parents=True, exist_ok=True)
        missing = photos - len(list(folder.glob(self._path("*").name)))
        needed, free = 2 * cost.parameter_count(self.family) * missing, shutil.disk_usage(folder).free
        if needed > free:
            raise UserError(
                f"protocol.inversion.tuning: the tuned weights of {missing} photos take {needed / 1e9:.1f} GB in {folder}, "
                f"where {free / 1e9:.1f} GB are free; measure fewer images (protocol.images), or do without tuning"
            )

    def forget(self) -> None:
        """Remove all tuned weights: the pictures of their photos are done."""
        for key in self._numbers:
            self._path(key).unlink(missing_ok=True)
        self._numbers, self._ready, self._waiting = {}, set(), {}

    def _own(self) -> list[tuple[str, Tensor]]:
        return [(name, parameter.detach()) for name, parameter in self.family.named_parameters()]

    def _read(self, key: str) -> tuple[Differences, float] | None:
        try:
            with np.load(self._path(key), allow_pickle=False) as archive:
                found = {name: archive[name] for name in archive.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            return None
        seconds = float(found.pop(SECONDS))
        return {name: torch.from_numpy(value) for name, value in found.items()}, seconds

    def _path(self, key: str) -> Path:
        if self.folder is not None:
            return self.folder / f"tuned_{key}.npz"
        if self._temporary is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="tuned-weights-")
        return Path(self._temporary.name) / f"tuned_{key}.npz"


def with_owner(codes: Tensor, numbers: Tensor) -> Tensor:
    """Codes (N,C,D) and the row (N,1,D) that says for whose photo they are drawn: numbers (N,)."""
    row = numbers.to(codes).view(-1, 1, 1).expand(-1, 1, codes.shape[2])
    return torch.cat([codes, row], dim=1)


def _nearby(family: ComposingGenerator, mask: Tensor, codes: Tensor, distance: float, noise: torch.Generator) -> Tensor:
    """Codes at `distance` from `codes` (1,C,D) on the way to sampled ones."""
    z = torch.randn(1, family.capabilities.noise_width, generator=noise).to(codes)
    way = family.sample_style(mask, z) - codes
    return codes + distance * way / way.norm().clamp_min(torch.finfo(way.dtype).tiny)


class _Carrier(nn.Module):
    """A family whose `forward` is whatever it is handed: what `functional_call` exchanges weights in."""

    def __init__(self, family: ComposingGenerator) -> None:
        super().__init__()
        self.family = family

    def forward(self, draw: Draw) -> Synthesis:
        return draw(self.family)

"""The noise that a pass draws: from torch's own generator, or within `noise_seeded` from one of the caller's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

_source: ContextVar[torch.Generator | None] = ContextVar("noise_source", default=None)


@contextmanager
def noise_seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Inside this context, passes on `device` draw what torch's generator, seeded with `seed`, would give them; it is left alone.

    Holds for the thread that enters it: passes in several threads do not draw from each other's noise.
    """
    token = _source.set(torch.Generator(device).manual_seed(seed))
    try:
        yield
    finally:
        _source.reset(token)


def standard_normal(*shape: int, like: Tensor) -> Tensor:
    """Standard normal numbers of a shape, on the device and in the dtype of `like`."""
    return torch.randn(*shape, generator=_source.get(), device=like.device, dtype=like.dtype)


def pixel_noise(x: Tensor) -> Tensor:
    """One standard normal number a pixel of `x` (N,C,h,w), for all its channels: (N,1,h,w)."""
    return standard_normal(x.shape[0], 1, *x.shape[-2:], like=x)

"""What passes share while style and weights stay as they are: one style, one layout after another, as somebody paints them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")


@dataclass
class StyleMemory:
    """Of each module, what it made of the last style; for a network that is not trained meanwhile."""

    kept: dict[nn.Module, tuple[Tensor, int, Any]] = field(default_factory=dict)  # style, pixels, what was made of them


_memory: ContextVar[StyleMemory | None] = ContextVar("style_memory", default=None)


@contextmanager
def style_kept(memory: StyleMemory) -> Iterator[None]:
    """Inside this context, modules take what they made of an equal style from `memory`: the same bits, not computed again."""
    token = _memory.set(memory)
    try:
        yield
    finally:
        _memory.reset(token)


def of_style(owner: nn.Module, style: Tensor, pixels: int, make: Callable[[], T]) -> T:
    """What `owner` makes of a style for a layout of so many pixels: made now, or inside `style_kept` perhaps before."""
    memory = _memory.get()
    if memory is None:
        return make()
    kept = memory.kept.get(owner)
    if kept is None or kept[1] != pixels or not torch.equal(kept[0], style):
        kept = (style, pixels, make())
        memory.kept[owner] = kept
    made: T = kept[2]
    return made

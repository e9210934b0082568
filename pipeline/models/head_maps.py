"""Looking at single attention heads: scores are handed to an observer where one listens, and never built otherwise.

The decoder returns head-averaged logits, which is what the attention loss sees (paper: attention loss). What one head attends
to is a question of evaluation alone, so it is asked from outside, around an ordinary pass, and changes nothing in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor

_observed: ContextVar[list[Tensor] | None] = ContextVar("observed_heads", default=None)


@contextmanager
def observed_heads() -> Iterator[list[Tensor]]:
    """The yielded list receives scaled pre-softmax scores (N,heads,P,K) float32 of every layer that is asked for logits.

    In this context alone, in the order in which layers run.
    """
    found: list[Tensor] = []
    token = _observed.set(found)
    try:
        yield found
    finally:
        _observed.reset(token)


def heads_observed() -> bool:
    """Whether somebody listens: scores are worth building."""
    return _observed.get() is not None


def show_heads(scores: Tensor) -> None:
    """Hand (N,heads,P,K) scores to the observer, if there is one."""
    found = _observed.get()
    if found is not None:
        found.append(scores.detach().float())


def level_names(heights: Iterable[int]) -> list[str]:
    """Names of attention levels: the height of each one's map, with a running number where several levels share it."""
    names: list[str] = []
    for height in map(str, heights):
        repeats = sum(name == height or name.startswith(f"{height}_") for name in names)
        names.append(height if repeats == 0 else f"{height}_{repeats + 1}")
    return names

"""Which form of a computation runs: the vectorised one, or the literal loop it must agree with.

The published code loops over images and classes in several places. This project computes the same numbers without
loops; the loops stay as oracles for tests and as the reference row of the benchmark. The choice changes speed only, so
it is no config key.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_naive: ContextVar[bool] = ContextVar("naive_kernels", default=False)


@contextmanager
def naive_kernels() -> Iterator[None]:
    """Inside this context, modules run their literal loops instead of the vectorised forms; nesting is harmless."""
    token = _naive.set(True)
    try:
        yield
    finally:
        _naive.reset(token)


def is_naive() -> bool:
    """True inside `naive_kernels()`."""
    return _naive.get()

"""Which form of a computation runs: the fastest exact one, the plain one, or the literal loop both must agree with.

The published code loops over images and classes and multiplies matrices one after the other. This project computes the
same numbers without loops, and where it pays with matrices multiplied together first. The other forms stay: the loops as
oracles of tests and as the reference row of the benchmark, the plain form for counting a network's FLOPs as it is
written down. The choice changes speed only, so it is no config key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

Form = Literal["fast", "plain", "naive"]

_form: ContextVar[Form] = ContextVar("kernel_form", default="fast")


@contextmanager
def kernel_form(form: Form) -> Iterator[None]:
    """Inside this context, modules run in `form`; nesting is harmless."""
    token = _form.set(form)
    try:
        yield
    finally:
        _form.reset(token)


def naive_kernels() -> Any:
    """Context in which modules run their literal loops, explicit matrices and recomputation, as the releases do."""
    return kernel_form("naive")


def plain_kernels() -> Any:
    """Context in which matrix products are taken one by one, as the network is written down: for counting FLOPs."""
    return kernel_form("plain")


def is_naive() -> bool:
    """True inside `naive_kernels()`."""
    return _form.get() == "naive"


def folds() -> bool:
    """Whether matrices may be multiplied together before they meet the pixels."""
    return _form.get() == "fast"


def bound(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` in the form that is current now, whenever and in whatever thread it is called (recomputation)."""
    form = _form.get()

    def run(*args: Any, **kwargs: Any) -> Any:
        with kernel_form(form):
            return function(*args, **kwargs)

    return run

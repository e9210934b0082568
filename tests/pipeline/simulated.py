"""CUDA tensors without a GPU: shapes, types and devices as they would be, no values (torch's FakeTensorMode).

Two tensors of different devices in one operation raise, as they would on a GPU. Where code reads a value off a tensor, the answer
is a constant (true, 0.5, 1), and arrays hold ones, after the same refusal to read an array off a GPU that torch has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

CUDA = torch.device("cuda")
MODE = FakeTensorMode(
    allow_non_fake_inputs=True
)  # real tensors (of arrays) become simulated ones of the CPU; one for all tests
aten = torch.ops.aten


class Answers(TorchDispatchMode):
    """Answers what a tensor without values cannot: a number read off it, and results whose shape depends on values."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One value of each kind is found: one place that is not zero, one distinct value."""
        if func is aten._local_scalar_dense.default:
            return True if args[0].dtype == torch.bool else 0.5 if args[0].is_floating_point() else 1
        if func is aten.equal.default:
            return args[0].device == args[1].device and args[0].shape == args[1].shape
        if func is aten.nonzero.default:
            return args[0].new_zeros((1, args[0].dim()), dtype=torch.int64)
        if func is aten._unique2.default:
            return tuple(args[0].new_zeros(1, dtype=dtype) for dtype in (args[0].dtype, torch.int64, torch.int64))
        if func is aten.bincount.default:
            return args[0].new_zeros(args[2], dtype=torch.int64)  # of `minlength` numbers
        if func is aten.index.Tensor:
            args = (args[0], [place for index in args[1] for place in _places(index)])
        return func(*args, **(kwargs or {}))


def _places(index: Tensor | None) -> list[Tensor | None]:
    """A boolean index as the indices of the one place it selects."""
    if index is None or index.dtype != torch.bool:
        return [index]
    return [index.new_zeros(1, dtype=torch.int64) for _ in range(index.dim())]


_numpy, _tolist = Tensor.numpy, Tensor.tolist


def _array(self: Tensor, *, force: bool = False) -> np.ndarray:
    if not isinstance(self, FakeTensor):
        return _numpy(self, force=force)
    if self.device.type != "cpu":
        raise TypeError(f"can't convert {self.device} device type tensor to numpy")
    if self.requires_grad:
        raise RuntimeError("Can't call numpy() on Tensor that requires grad.")
    return _ones(self)


def _list(self: Tensor) -> Any:
    return _ones(self).tolist() if isinstance(self, FakeTensor) else _tolist(self)


def _ones(tensor: Tensor) -> np.ndarray:
    return np.ones(tuple(tensor.shape), dtype=str(tensor.dtype).removeprefix("torch."))


def _moved(self: nn.Module, function: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """`nn.Module._apply` with new parameters: torch would exchange the insides of the old ones, which simulated ones refuse."""
    for child in self.children():
        _moved(child, function)
    with torch.no_grad():
        for name, parameter in self._parameters.items():
            if parameter is not None:
                self._parameters[name] = nn.Parameter(function(parameter), parameter.requires_grad)
        for name, buffer in self._buffers.items():
            if buffer is not None:
                self._buffers[name] = function(buffer)
    return self


@contextmanager
def simulated_cuda() -> Iterator[None]:
    """While the block runs, tensors are simulated, and what asks the CUDA driver hears of a GPU that knows bfloat16.

    Gradients are not computed: torch's engine wants a real device for that.
    """
    real_state = torch.get_rng_state()
    with ExitStack() as stack:
        for target, name, substitute in (
            (Tensor, "numpy", _array),
            (Tensor, "tolist", _list),
            (Tensor, "backward", lambda self: None),
            (nn.Module, "_apply", _moved),
            (torch.cuda, "synchronize", lambda device=None: None),
            (torch.cuda, "get_device_name", lambda device=None: "simulated GPU"),
            (torch.cuda, "max_memory_allocated", lambda device=None: 0),
            (torch.cuda, "get_rng_state", lambda device=None: real_state),
            (torch.cuda, "set_rng_state", lambda state, device=None: None),
            (torch.cuda, "is_bf16_supported", lambda including_emulation=True: True),
            (torch.cuda.amp.common, "amp_definitely_not_available", lambda: False),
        ):
            stack.enter_context(patch.object(target, name, substitute))
        stack.enter_context(MODE)
        stack.enter_context(Answers())
        yield

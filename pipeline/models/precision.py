"""Where autocast must not reach: sums, statistics and losses that want float32."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


def full_precision(x: Tensor) -> AbstractContextManager[Any]:
    """Context without autocast on the device of `x`; what runs on shapes alone (meta device) needs none."""
    return nullcontext() if x.device.type == "meta" else torch.autocast(x.device.type, enabled=False)


def wide(x: Tensor) -> Tensor:
    """`x` in float32 where it is narrower, as it is where it is not."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x

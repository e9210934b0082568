"""Where autocast must not reach: sums, statistics and losses that want float32."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


def full_precision(x: Tensor) -> AbstractContextManager[Any]:
    """Context without autocast on the device of `x`; what runs on shapes alone (meta device) needs none."""
    return nullcontext() if x.device.type == "meta" else torch.autocast(x.device.type, enabled=False)

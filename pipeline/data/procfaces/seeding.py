"""Random streams of the procedural faces: one a (seed, index, purpose), whatever the split sizes are."""

from __future__ import annotations

from typing import Literal

import numpy as np

Purpose = Literal["layout", "styles", "light"]
_STREAMS: dict[Purpose, int] = {"layout": 1, "styles": 2, "light": 3}


def stream(seed: int, index: int, purpose: Purpose) -> np.random.Generator:
    """Generator of face `index` of data seed `seed` for one purpose; PCG64 through SeedSequence, platform independent."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([_STREAMS[purpose], seed, index])))

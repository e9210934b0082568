"""Map and reduce of an evaluation: what one batch contributes, how contributions add up, and how they survive a kill.

A contribution is a dict of arrays; the prefix of the key says how it is reduced: `each/` one value an image, concatenated;
`sum/` added; `feat/` rows of features, concatenated. Nothing of the images themselves is kept, so memory stays bounded.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Contribution = dict[str, NDArray]


@dataclass
class Totals:
    """Reduced contributions of the batches seen so far, in order."""

    parts: dict[str, list[NDArray]] = field(default_factory=dict)
    sums: dict[str, NDArray] = field(default_factory=dict)

    def add(self, contribution: Contribution) -> None:
        """Reduce one more batch; a key without a known prefix raises ValueError."""
        for key, value in contribution.items():
            kind = key.partition("/")[0]
            if kind == "sum":
                self.sums[key] = value if key not in self.sums else self.sums[key] + value
            elif kind in ("each", "feat"):
                self.parts.setdefault(key, []).append(value)
            else:
                raise ValueError(f"contribution {key!r}: the prefix must be each/, sum/ or feat/")

    def stacked(self, key: str) -> NDArray:
        """All rows of an `each/` or `feat/` key, in the order of the images."""
        return np.concatenate(self.parts[key])

    def each(self) -> dict[str, NDArray]:
        """Every `each/` key without its prefix."""
        return {key[5:]: np.concatenate(value) for key, value in self.parts.items() if key.startswith("each/")}

    def has(self, key: str) -> bool:
        """Whether any batch contributed `key`."""
        return key in self.parts or key in self.sums

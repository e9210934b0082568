"""How numbers are printed: precision follows uncertainty, and is the same in a whole column."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pipeline.errors import UserError, nearest

MINUS = "−"
PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
SCALED_FROM = 1e5  # columns whose largest value is below this are printed as they are
SIGNIFICANT = 4  # digits of the largest value, where no spread says how many are meant
MOST_DECIMALS = 8


def scale_of(values: Sequence[float], unit: str) -> tuple[float, str]:
    """Divisor and unit for a column: 1,234,567 -> (1e6, "M"), 2.5e8 FLOP -> (1e6, "MFLOP")."""
    largest = max((abs(value) for value in values), default=0.0)
    if largest < SCALED_FROM:
        return 1.0, unit
    return next((factor, f"{prefix}{unit}") for factor, prefix in PREFIXES if largest >= factor)


def units_of(base: str) -> dict[str, float]:
    """Units in which a number may be given whose own unit is `base`, and how much of that each is; "" is its own too."""
    prefixed = {} if base == "dB" else {f"{prefix}{base}": factor for factor, prefix in reversed(PREFIXES)}
    return {"": 1.0, base: 1.0, **prefixed} if base else {"": 1.0, **prefixed, "%": 0.01}


def factor_of(unit: str, base: str, origin: str, metric: str) -> float:
    """What turns a number given in `unit` into one in `base`. Raises UserError for a unit that says nothing of that."""
    known = units_of(base)
    if unit not in known:
        raise UserError(
            f"{origin}: {metric} has unit {unit!r}, which is not understood{nearest(unit, list(known))}; there are: "
            f"{', '.join(name or 'empty' for name in known)}"
        )
    return known[unit]


def unscaled(unit: str, scale: float) -> str:
    """The unit that `scale_of` has put a prefix before: "GFLOP", 1e9 -> "FLOP"."""
    return unit.removeprefix(dict(PREFIXES).get(scale, ""))


def decimals_of(values: Sequence[float], spreads: Sequence[float]) -> int:
    """Decimals of a column: two digits of the median spread, or four digits of the largest value without any spread."""
    positive = sorted(spread for spread in spreads if spread > 0)
    if positive:
        return _decimals(positive[len(positive) // 2], 2)
    largest = max((abs(value) for value in values), default=0.0)
    if all(value == round(value) for value in values):
        return 0
    return _decimals(largest, SIGNIFICANT)


def _decimals(value: float, digits: int) -> int:
    exponent = math.floor(math.log10(value))
    rounded = round(value, digits - 1 - exponent)  # 0.0996 with two digits is 0.10, one decimal less
    exponent = math.floor(math.log10(rounded)) if rounded > 0 else exponent
    return min(max(digits - 1 - exponent, 0), MOST_DECIMALS)


def number(value: float, decimals: int, *, sign: bool = False) -> str:
    """Fixed decimals with a true minus sign; never "-0.00"."""
    text = f"{value:+.{decimals}f}" if sign else f"{value:.{decimals}f}"
    if float(text) == 0:
        text = text.lstrip("+-")
    return text.replace("-", MINUS)

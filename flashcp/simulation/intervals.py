"""95% intervals over packs, by the normal approximation.

A speed-up is a ratio of means over the same packs, so its interval is that of a paired ratio (the
delta method): packs that are slow under both strategies do not widen it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_Z = 1.959964


@dataclass(frozen=True)
class Interval:
    """A mean or a ratio with its 95% interval; without one (low = high) for a single pack."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, Any]:
        """Return value, low and high."""
        return {"value": self.value, "low": self.low, "high": self.high}


def mean_interval(values: NDArray[np.float64]) -> Interval:
    """Return the mean of independent values, [values]."""
    mean = float(values.mean())
    return _around(mean, values - mean, values.size)


def ratio_interval(above: NDArray[np.float64], below: NDArray[np.float64]) -> Interval:
    """Return mean(above) / mean(below) of paired values, [values] each."""
    ratio = float(above.mean() / below.mean())
    return _around(ratio, (above - ratio * below) / below.mean(), above.size)


def _around(value: float, deviations: NDArray[np.float64], count: int) -> Interval:
    if count < 2:
        return Interval(value, value, value)
    half = _Z * float(np.sqrt((deviations**2).sum() / (count - 1) / count))
    return Interval(value, value - half, value + half)

"""Leaves out exchanges that were measured too slow, as no message of their size can be.

Noise is one-sided: what else runs only adds. A message that took much longer than a larger one of
the same group, or than the line between its neighbours, was held up, so it is left out of the fit,
and its size is predicted from its neighbours. The largest is held against the line through the two
before it. Lines are what an exchange follows where its protocol does not change; the largest step
between protocols in the bundled tables lies 1.5 times above its line.
Made monotone alone, as the bundled tables are, a point three times as slow moved itself by up to
150% and its neighbour by 25%. What is left out stays among the profile's points and in its errors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from costmodel.calibrated_points import TransferPoint

_SLOWER = 1.25  # than a larger message
_ABOVE_LINE = 1.6
_LINE = 2  # points that make one


def without_spikes(points: Sequence[TransferPoint]) -> list[TransferPoint]:
    """Return the points of one group and collective, rising in size, without those held up."""
    ordered = sorted(points, key=lambda point: point.total_bytes)
    kept: list[TransferPoint] = []
    least = float("inf")
    for point in reversed(ordered):
        if point.us <= _SLOWER * least:
            kept.append(point)
            least = min(least, point.us)
    kept.reverse()
    if len(kept) <= _LINE:
        return kept
    lines = [(i - 1, i + 1) for i in range(1, len(kept) - 1)] + [(len(kept) - 3, len(kept) - 2)]
    return [
        kept[0],
        *(
            point
            for point, (low, high) in zip(kept[1:], lines, strict=True)
            if point.us <= _ABOVE_LINE * _on_line(kept[low], kept[high], point.total_bytes)
        ),
    ]


def _on_line(low: TransferPoint, high: TransferPoint, total_bytes: int) -> float:
    """Return the time at `total_bytes` on the line through two points."""
    width = high.total_bytes - low.total_bytes
    if width == 0:
        return max(low.us, high.us)
    rate = max(high.us - low.us, 0.0) / width
    return low.us + rate * (total_bytes - low.total_bytes)

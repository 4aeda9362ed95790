"""What copies cost, from the copies that a calibration measured.

Rows picked by an index, as the executor picks them, give the memory's rate; slices of one row, one
after another, the host's time of queueing a copy, for which copies a shard wait where shards are
short. Slices of all sizes give a cost a piece and a rate, for comparison with the paper's.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from costmodel.copies import CopyModel
from costmodel.estimate import Source
from costmodel.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from costmodel.calibrated_points import CopyPoint, QueuePoint
    from costmodel.profile import Profile


def copy_model(
    points: Sequence[CopyPoint], queued: Sequence[QueuePoint], base: Profile
) -> CopyModel:
    """Return what copies cost; taken over from `base` unless both layouts were measured."""
    by_layout: dict[str, list[CopyPoint]] = defaultdict(list)
    for point in points:
        by_layout[point.layout].append(point)
    if not by_layout["contiguous"] or not by_layout["gathered"]:
        figures = base.copies
        return CopyModel(
            *(
                taken_over(figure, base)
                for figure in (
                    figures.per_shard_us,
                    figures.per_shard_gbps,
                    figures.memory_gbps,
                    figures.memory_share,
                )
            )
        )
    whole, rows = (_rate(by_layout[layout]) for layout in ("contiguous", "gathered"))
    piece_us, bytes_per_us = _per_piece(by_layout["per shard"] or by_layout["contiguous"])
    return CopyModel(
        per_shard_us=measured(2 * piece_us, "slices copied one by one, both directions"),
        per_shard_gbps=measured(bytes_per_us / 1e3, "slices copied one by one"),
        memory_gbps=measured(2 * max(whole, rows) / 1e3, "contiguous copies, read and written"),
        memory_share=measured(min(1.0, rows / max(whole, rows)), "rows gathered by an index"),
        queue_us=_queue(queued),
    )


def _rate(points: Sequence[CopyPoint]) -> float:
    """Return the bytes copied a microsecond, the median."""
    return float(np.median([point.moved_bytes / point.us for point in points]))


def _per_piece(points: Sequence[CopyPoint]) -> tuple[float, float]:
    """Return the cost of a piece and the bytes a microsecond that explain the copies' times.

    Relative errors, weighted down where large, as all fits here.
    """
    us = np.array([point.us for point in points])
    design = np.array([[point.pieces, point.moved_bytes] for point in points]) / us[:, None]
    weights = np.ones(len(points))
    solution = np.zeros(2)
    for _ in range(20):
        root = np.sqrt(weights)
        solution = np.linalg.lstsq(design * root[:, None], root, rcond=None)[0]
        if solution[1] <= 0:  # pieces alone explain it: bytes cost what they do at best
            solution[1] = 1.0 / max(point.moved_bytes / point.us for point in points)
        solution[0] = max(solution[0], 0.0)
        weights = np.minimum(1.0, 0.1 / np.maximum(np.abs(design @ solution - 1), 1e-12))
    return _short(solution[0]), _short(1.0 / solution[1])


def _queue(points: Sequence[QueuePoint]) -> Figure | None:
    if not points:
        return None
    return measured(float(np.median([point.us for point in points])), "a slice's copy, queued")


def taken_over(figure: Figure, base: Profile) -> Figure:
    """Return a figure of another profile, marked so."""
    return Figure(figure.value, Source.REPORTED, f"taken over from {base.name}: {figure.reference}")


def measured(value: float, reference: str) -> Figure:
    """Return a figure that was measured."""
    return Figure(_short(value), Source.MEASURED, f"measured: {reference}")


def _short(value: float) -> float:
    return float(f"{value:.5g}")

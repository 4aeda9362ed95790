"""Measures what one device does by itself besides attention: copies, launches, matrix products.

Copies are of KV as exchanges lay it out, rows of [2, heads, head size]: all rows at once, rows
picked by an index as the executor picks them, and slices one by one as published implementations
copy shards.
"""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from costmodel.calibrated_points import (
    LAYOUTS,
    CopyPoint,
    LaunchPoint,
    MatmulPoint,
    Point,
    QueuePoint,
)
from executor.calibration.timing import Run, Sample, Stopwatch
from executor.rows import move, take_into

PIECES = (4, 32)
# More than caches hold: between two exchanges of a run attention has long displaced their buffers.
_ROTATED_BYTES = 2e8
_MOST_PAIRS = 64
_ROW = (2, 8, 128)  # K and V of 8 heads of 128: 4 KB in bf16
_ROW_BYTES = 2 * 8 * 128 * 2
_MATMULS = {"cpu": (256, 512, 1024), "cuda": (2048, 4096, 8192)}
_LAUNCHES = {"cpu": 200, "cuda": 1000}


def planned(sizes: tuple[int, ...], device: torch.device) -> list[dict[str, Any]]:
    """Return the identity of everything that is to be measured, copies of these sizes with it."""
    found: list[dict[str, Any]] = [{"kind": LaunchPoint.kind}, {"kind": QueuePoint.kind}]
    for size in sizes:
        rows = max(size // _ROW_BYTES, 1)
        for layout in LAYOUTS:
            found += [
                {
                    "kind": CopyPoint.kind,
                    "layout": layout,
                    "moved_bytes": rows * _ROW_BYTES,
                    "pieces": pieces,
                }
                for pieces in (PIECES if layout == "per shard" else (1,))
                if pieces <= rows
            ]
    # Last: on a CPU without units for half precision one of these may take all of the time.
    found += [{"kind": MatmulPoint.kind, "flops": 2.0 * n**3} for n in _MATMULS[device.type]]
    return found


def measure(
    what: dict[str, Any], watch: Stopwatch, repeats: int, dtype: torch.dtype
) -> list[Point]:
    """Measure the point of this identity; matrix products in the precision of attention."""
    if what["kind"] == LaunchPoint.kind:
        return [measure_launch(watch, repeats)]
    if what["kind"] == QueuePoint.kind:
        return [measure_queue(watch, repeats)]
    if what["kind"] == MatmulPoint.kind:
        return [measure_matmul(what["flops"], watch, repeats, dtype)]
    copy = what["layout"], what["moved_bytes"], what["pieces"]
    return [measure_copy(*copy, watch, repeats)]


def measure_copy(
    layout: str, moved_bytes: int, pieces: int, watch: Stopwatch, repeats: int
) -> CopyPoint:
    """Measure one kind of copy."""
    rows = moved_bytes // _ROW_BYTES
    pairs = [
        (
            _rows(rows, watch.device),
            torch.empty((rows, *_ROW), dtype=torch.bfloat16, device=watch.device),
        )
        for _ in range(int(min(max(_ROTATED_BYTES // (2 * moved_bytes), 2), _MOST_PAIRS)))
    ]
    runs = [_copy(layout, source, target, pieces) for source, target in pairs]
    sample = watch.kernel(runs, 3 * repeats)
    return CopyPoint(
        layout=layout, moved_bytes=moved_bytes, pieces=pieces, us=sample.us, spread=sample.spread
    )


def measure_launch(watch: Stopwatch, repeats: int) -> LaunchPoint:
    """Measure one further kernel of next to no work; on a GPU the host's time of queueing it."""
    tiny = torch.zeros(1, device=watch.device)
    count = _LAUNCHES[watch.device.type]

    def many() -> None:
        for _ in range(count):
            tiny.add_(1.0)

    sample = _queued(many, watch, repeats)
    return LaunchPoint(us=sample.us / count, spread=sample.spread)


def measure_queue(watch: Stopwatch, repeats: int) -> QueuePoint:
    """Measure one further copy of a slice of one row, as `executor.published` copies shards."""
    count = _LAUNCHES[watch.device.type]
    source, target = _rows(count, watch.device), _rows(count, watch.device)

    def many() -> None:
        for row in range(count):
            target[row : row + 1] = source[row : row + 1]

    sample = _queued(many, watch, repeats)
    return QueuePoint(us=sample.us / count, spread=sample.spread)


def _queued(many: Run, watch: Stopwatch, repeats: int) -> Sample:
    """Time the host's queueing of kernels of next to no work; on a CPU it does them itself."""
    if watch.device.type != "cuda":
        return watch.kernel([many], repeats)
    sample = Stopwatch(torch.device("cpu")).kernel([many], repeats)
    torch.cuda.synchronize(watch.device)
    return sample


def measure_matmul(flops: float, watch: Stopwatch, repeats: int, dtype: torch.dtype) -> MatmulPoint:
    """Measure one matrix product, what linear layers do."""
    n = round((flops / 2) ** (1 / 3))
    a, b = (torch.ones((n, n), dtype=dtype, device=watch.device) for _ in range(2))
    out = torch.empty_like(a)
    sample = watch.kernel([lambda: torch.mm(a, b, out=out)], repeats)
    return MatmulPoint(flops=flops, us=sample.us, spread=sample.spread)


def _rows(count: int, device: torch.device) -> Tensor:
    return torch.ones((count, *_ROW), dtype=torch.bfloat16, device=device)


def _copy(layout: str, source: Tensor, target: Tensor, pieces: int) -> Run:
    if layout == "contiguous":
        return lambda: target.copy_(source)
    rows = source.shape[0]
    if layout == "gathered":
        # Neighbours that are not neighbours in memory, as the shards of a plan.
        index = torch.arange(rows, device=source.device).view(-1, 1)
        index = index.reshape(2, -1).t().reshape(-1) if rows % 2 == 0 else index.flip(0).reshape(-1)
        if source.device.type == "cpu":
            return lambda: take_into(target, source, index)
        to = torch.arange(rows, device=source.device).flip(0)  # with the kernel of a run's rows
        return lambda: move(target, to, source, index)
    cuts = [rows * i // pieces for i in range(pieces + 1)]

    def slices() -> None:
        for begin, end in pairwise(cuts):
            target[begin:end].copy_(source[begin:end])

    return slices

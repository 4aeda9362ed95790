"""Measures what attention and an exchange cost each other when they run side by side.

Attention is repeated until it takes about two thirds of what the exchange takes alone; then both
are run, alone and together, in turn, so that drifts of the machine meet all three alike. The
exchange is begun first and ends last, so the time of attention beside it is all beside it.
"""

import time
from collections.abc import Callable

import numpy as np
import torch
import torch.distributed as dist

from costmodel.calibrated_points import OverlapPoint
from executor.calibration.timing import Stopwatch, summed_up
from executor.calibration.transfers import Group
from executor.kernels import Segments, select
from executor.transfers import Collective, Pattern, Start
from executor.transport import Transport

_BYTES = {"cpu": (2**22, 2**24), "cuda": (2**26, 2**28)}
_TOKENS = {"cpu": 128, "cuda": 2048}
_SHARE = 2 / 3
COLLECTIVE = "all_gather"


def measure_overlap(
    group: Group, watch: Stopwatch, repeats: int, dtype: torch.dtype
) -> OverlapPoint:
    """Measure both beside each other, the median over sizes of the exchange; all ranks call it."""
    points = [_measure(size, group, watch, repeats, dtype) for size in _BYTES[watch.device.type]]
    return sorted(points, key=lambda point: point.attention_factor)[len(points) // 2]


def _measure(
    size: int, group: Group, watch: Stopwatch, repeats: int, dtype: torch.dtype
) -> OverlapPoint:
    if group.group is None or group.control is None:
        raise AssertionError("only ranks of the group measure it")
    device, transport = watch.device, Transport(group.group)
    elements = size // 2 // group.ranks * group.ranks
    request = Start(
        [
            Collective(
                Pattern.ALL_GATHER,
                torch.ones(elements // group.ranks, dtype=torch.bfloat16, device=device),
                torch.ones(elements, dtype=torch.bfloat16, device=device),
            )
        ]
    )
    attend = _attention(device, dtype)

    def exchange() -> None:
        transport.start(request).wait()

    attend()
    exchange()
    dist.barrier(group.control)
    alone = np.array([_time(watch, attend), _time(watch, exchange)])
    agreed = torch.from_numpy(alone)
    dist.all_reduce(agreed, dist.ReduceOp.MAX, group=group.control)
    calls = max(1, int(_SHARE * float(agreed[1]) / float(agreed[0])))

    def attention() -> None:
        for _ in range(calls):
            attend()

    rows = []
    for _ in range(max(2 * repeats, 5)):
        dist.barrier(group.control)
        row = [_time(watch, attention)]
        dist.barrier(group.control)
        row.append(_time(watch, exchange))
        dist.barrier(group.control)
        row += _together(watch, transport, request, attention)
        rows.append(row)
    slowest = torch.tensor(rows, dtype=torch.float64)
    dist.all_reduce(slowest, dist.ReduceOp.MAX, group=group.control)
    samples = [summed_up(column, device) for column in slowest.t().tolist()]
    return OverlapPoint(
        collective=COLLECTIVE,
        ranks=group.ranks,
        attention_us=samples[0].us,
        exchange_us=samples[1].us,
        attention_beside_us=samples[2].us,
        exchange_beside_us=samples[3].us,
        spread=max(sample.spread for sample in samples),
    )


def _attention(device: torch.device, dtype: torch.dtype) -> Callable[[], object]:
    tokens = _TOKENS[device.type]
    kernel, segments = select(device, dtype, 128), Segments.of([tokens], [tokens], device)
    if segments is None:
        raise AssertionError("there is one segment")
    q, k, v = (torch.ones((tokens, 8, 128), dtype=dtype, device=device) for _ in range(3))
    return lambda: kernel.forward(q, k, v, segments, 128**-0.5)


def _time(watch: Stopwatch, run: Callable[[], object]) -> float:
    return watch.repeats([run], 1)[0]


def _together(
    watch: Stopwatch, transport: Transport, request: Start, attention: Callable[[], object]
) -> list[float]:
    """Return until when attention and the exchange last when both are begun at once."""
    if watch.device.type != "cuda":
        began = time.perf_counter()
        ticket = transport.start(request)
        attention()
        attended = time.perf_counter()
        ticket.wait()
        return [(attended - began) * 1e6, (time.perf_counter() - began) * 1e6]
    events = [torch.cuda.Event(enable_timing=True) for _ in range(3)]  # type: ignore[no-untyped-call]
    events[0].record()
    ticket = transport.start(request)
    attention()
    events[1].record()
    ticket.wait()
    events[2].record()
    torch.cuda.synchronize(watch.device)
    return [float(events[0].elapsed_time(event)) * 1e3 for event in events[1:]]

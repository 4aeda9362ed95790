"""Measures what the host takes to post one message of an exchange of needed KV.

Every rank sends the next one pieces of K and of V and receives as many from the one before, small
ones, as `executor.landed` makes them: a slice, an operation, and its share of handing all of them
to NCCL or gloo. Only the host is timed, of the rank where it takes longest; a round ends when
everything has arrived.
"""

import time

import torch
import torch.distributed as dist

from costmodel.calibrated_points import MessagePoint
from executor.calibration.timing import Stopwatch, summed_up
from executor.calibration.transfers import Group
from executor.transfers import Messages, Start
from executor.transport import Transport

_PIECES = 16
_ROWS = 4
_WARM_UPS = 3


def measure_message(
    group: Group, watch: Stopwatch, repeats: int, dtype: torch.dtype
) -> MessagePoint:
    """Measure it over a group; all of its ranks call it and get the same."""
    if group.group is None or group.control is None:
        raise AssertionError("only ranks of the group measure it")
    transport = Transport(group.group)
    following, preceding = ((transport.rank + step) % transport.ranks for step in (1, -1))
    keys, values, came, went = (
        torch.ones((_PIECES * _ROWS, 1, 1), dtype=dtype, device=watch.device) for _ in range(4)
    )
    took = []
    for _ in range(_WARM_UPS + max(2 * repeats, 5)):
        dist.barrier(group.control)
        began = time.perf_counter()
        pieces = [slice(i * _ROWS, (i + 1) * _ROWS) for i in range(_PIECES)]
        ticket = transport.start(
            Start(
                [
                    Messages(
                        [(following, x[rows]) for rows in pieces for x in (keys, values)],
                        [(preceding, x[rows]) for rows in pieces for x in (came, went)],
                    )
                ]
            )
        )
        took.append((time.perf_counter() - began) * 1e6 / (4 * _PIECES))
        ticket.wait()
        if watch.device.type == "cuda":
            torch.cuda.synchronize(watch.device)
    own = summed_up(took[_WARM_UPS:], watch.device, alone=False)
    slowest = torch.tensor([own.us, own.spread], dtype=torch.float64)
    dist.all_reduce(slowest, dist.ReduceOp.MAX, group=group.control)
    return MessagePoint(us=float(slowest[0]), spread=float(slowest[1]))

"""Measures exchanges over groups of ranks: collectives, uneven all-to-alls, ring steps.

As nccl-tests does it: between two barriers every rank runs the exchange several times in a row, and
a round takes as long as its slowest rank. All ranks agree on how many rounds and runs there are,
since a collective that one rank runs and another does not would hang.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from costmodel.calibrated_points import NOISY_SPREAD, TransferPoint
from costmodel.collectives import COLLECTIVES
from executor.calibration.timing import Run, Stopwatch, summed_up
from executor.transfers import Collective, Messages, Pattern, Start, Transfer
from executor.transport import Transport

_ROUND_US = 3000.0
_MOST_INNER = 20
_ROUNDS = 6
_ELEMENT_BYTES = 2


@dataclass(frozen=True)
class Exchange:
    """One exchange to measure; S as `TransferPoint` counts it."""

    collective: str
    parts: str
    total_bytes: int


@dataclass(frozen=True, eq=False)
class Group:
    """Ranks that exchange with each other.

    Attributes:
        ranks: how many.
        ranks_per_node: how many of them share a node.
        group: what they exchange over; None where this rank is not among them.
        control: what they agree over, on the host.
    """

    ranks: int
    ranks_per_node: int
    group: dist.ProcessGroup | None
    control: dist.ProcessGroup | None


def planned(sizes: tuple[int, ...], ranks: int) -> list[Exchange]:
    """Return the exchanges to measure in a group of `ranks`, the most telling first."""
    found: list[Exchange] = []
    for size in sizes:
        even = size // (ranks * _ELEMENT_BYTES) * ranks * _ELEMENT_BYTES
        found += [Exchange(name, "even", even) for name in COLLECTIVES]
        found.append(Exchange("all_to_all", "uneven", even))
    return [*found[:10], Exchange("all_to_all", "empty", 0), *found[10:]]


def measure(exchange: Exchange, group: Group, watch: Stopwatch, limit_s: float) -> TransferPoint:
    """Measure one exchange; every rank of the group calls this and gets the same point.

    Args:
        exchange: what to measure.
        group: over which ranks; this one is among them.
        watch: of this rank's device.
        limit_s: seconds after which noisy rounds are no longer measured again.
    """
    if group.group is None or group.control is None:
        raise AssertionError("only ranks of the group measure it")
    run = prepare(exchange, Transport(group.group), watch.device)
    run()
    dist.barrier(group.control)
    first = watch.repeats([run], 1)[0]
    plan = torch.tensor([first])
    dist.all_reduce(plan, dist.ReduceOp.MAX, group=group.control)
    inner = int(np.clip(_ROUND_US / float(plan), 1, _MOST_INNER))
    began = time.monotonic()
    times: list[float] = []
    late = torch.zeros(1)
    while True:
        rounds = []
        for _ in range(_ROUNDS):
            dist.barrier(group.control)
            rounds += watch.repeats([run], 1, inner=inner)
        slowest = torch.tensor(rounds, dtype=torch.float64)
        dist.all_reduce(slowest, dist.ReduceOp.MAX, group=group.control)
        times += slowest.tolist()
        sample = summed_up(times, watch.device)
        late[0] = time.monotonic() - began > limit_s
        dist.all_reduce(late, dist.ReduceOp.MAX, group=group.control)
        if bool(late) or (len(times) > _ROUNDS and sample.spread <= NOISY_SPREAD):
            break
    return TransferPoint(
        collective=exchange.collective,
        parts=exchange.parts,
        ranks=group.ranks,
        ranks_per_node=group.ranks_per_node,
        total_bytes=exchange.total_bytes,
        us=sample.us,
        spread=sample.spread,
    )


def identity(exchange: Exchange, group: Group) -> dict[str, object]:
    """Return what tells an exchange's point from others."""
    return {
        "kind": TransferPoint.kind,
        "collective": exchange.collective,
        "parts": exchange.parts,
        "ranks": group.ranks,
        "ranks_per_node": group.ranks_per_node,
        "total_bytes": exchange.total_bytes,
    }


def prepare(exchange: Exchange, transport: Transport, device: torch.device) -> Run:
    """Return what runs an exchange once, to its end on this rank's stream."""
    ranks, rank = transport.ranks, transport.rank
    elements = exchange.total_bytes // _ELEMENT_BYTES

    def buffer(count: int) -> Tensor:
        return torch.ones(count, dtype=torch.bfloat16, device=device)

    transfer: Transfer
    if exchange.collective == "reduce_scatter":
        transfer = Collective(Pattern.REDUCE_SCATTER, buffer(elements), buffer(elements // ranks))
    elif exchange.collective == "all_gather":
        transfer = Collective(Pattern.ALL_GATHER, buffer(elements // ranks), buffer(elements))
    elif exchange.collective == "send_recv":
        transfer = Messages(
            [((rank + 1) % ranks, buffer(elements))], [((rank - 1) % ranks, buffer(elements))]
        )
    elif exchange.parts == "even":
        transfer = Collective(Pattern.ALL_TO_ALL, buffer(elements), buffer(elements))
    else:
        sends = splits(exchange, ranks)
        transfer = Messages(_parts(buffer, sends[rank]), _parts(buffer, sends[:, rank]))

    def run() -> None:
        transport.start(Start([transfer])).wait()

    return run


def _parts(
    buffer: Callable[[int], Tensor], elements: NDArray[np.int64]
) -> list[tuple[int, Tensor]]:
    """Return each peer's part, as executed plans lay them out: one behind the other."""
    parts = torch.split(buffer(int(elements.sum())), elements.tolist())
    return [(peer, part) for peer, part in enumerate(parts) if part.numel()]


def splits(exchange: Exchange, ranks: int) -> NDArray[np.int64]:
    """Return the elements that rank i sends to rank j, [ranks, ranks].

    An even all-to-all of S sends S / ranks to everybody, itself included. In an uneven one the
    first rank sends S in all, the others ever less and, of more than two, the last nothing; nobody
    keeps anything, and nobody receives more than S.
    """
    elements = exchange.total_bytes // _ELEMENT_BYTES
    if exchange.parts == "even":
        return np.full((ranks, ranks), elements // ranks, np.int64)
    sends = np.zeros((ranks, ranks), np.int64)
    if exchange.parts == "uneven":
        for i in range(ranks if ranks == 2 else ranks - 1):
            others = [j for j in range(ranks) if j != i]
            sends[i, others] = elements * (ranks - i) // ranks // len(others)
        sends[0, ranks - 1] += elements - int(sends[0].sum())
    return sends

"""Measures exchanges over groups of ranks: collectives, uneven all-to-alls, ring steps.

As nccl-tests does it: between two barriers every rank runs the exchange, on a GPU several times in
a row, and a round takes as long as its slowest rank. All ranks agree on how many rounds and runs
there are, since a collective that one rank runs and another does not would hang. The sizes of one
collective are measured in turn, so that a drift of the machine meets them alike: on two quiet cores
a size left out was predicted 8 to 14% off, one after the other 9 to 16%.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from costmodel.calibrated_points import TransferPoint
from costmodel.collectives import COLLECTIVES
from executor.calibration.timing import Run, Stopwatch, summed_up
from executor.transfers import Collective, Messages, Pattern, Start, Transfer
from executor.transport import Transport

_ROUND_US = 3000.0
_MOST_INNER = 20
_VISIT_US = 20_000.0  # before it is the next size's turn
_MOST_ROUNDS = 12  # of a visit
_LEAST_VISITS = 6  # however well the rounds of the first ones agree
_FIRST_SHARE = 0.5  # of the time, after which no further size is begun
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


def planned(sizes: tuple[int, ...], ranks: int) -> list[list[Exchange]]:
    """Return the exchanges to measure in a group of `ranks`: lists of one kind, to take in turn.

    The sizes of each in the given order, of which a slow group may not reach the last.
    """
    even = [size // (ranks * _ELEMENT_BYTES) * ranks * _ELEMENT_BYTES for size in sizes]
    kinds = [*((name, "even") for name in COLLECTIVES), ("all_to_all", "uneven")]
    curves = [[Exchange(*kind, size) for size in even] for kind in kinds]
    return [*curves, [Exchange("all_to_all", "empty", 0)]]


def measure(
    exchanges: Sequence[Exchange],
    group: Group,
    watch: Stopwatch,
    limit_s: float,
    tell: Callable[[float], None] = lambda _: None,
) -> list[TransferPoint]:
    """Measure exchanges in turn; every rank of the group calls this and gets the same points.

    Args:
        exchanges: what to measure.
        group: over which ranks; this one is among them.
        watch: of this rank's device.
        limit_s: seconds after which noisy ones are no longer measured again.
        tell: told after each visit which share of this is done.

    Returns:
        Their points, in order; without the last ones where the time was too short to begin them.
    """
    # The first exchange of a kind connects its ranks, over NCCL for longer than a limit may be.
    prepare(exchanges[0], Transport(group.group), watch.device)()
    dist.barrier(group.control)
    began = time.monotonic()

    def done(settled: int) -> None:
        spent = (time.monotonic() - began) / max(limit_s, 1e-3)
        tell(min(max(settled / len(exchanges), spent), 1.0))

    trials: list[_Trial] = []
    for exchange in exchanges:
        if trials and _late(began, limit_s * _FIRST_SHARE, group):
            break
        trials.append(_Trial(exchange, group, watch))
        done(0)
    unsettled = trials
    while unsettled:
        for trial in unsettled:
            trial.visit()
            done(len(trials) - len(unsettled))
        if _late(began, limit_s, group):
            break
        unsettled = [trial for trial in unsettled if not trial.settled()]
    return [trial.point() for trial in trials]


def _late(began: float, limit_s: float, group: Group) -> bool:
    """Tell whether any rank thinks that the time is up."""
    late = torch.tensor([float(time.monotonic() - began > limit_s)])
    dist.all_reduce(late, dist.ReduceOp.MAX, group=group.control)
    return bool(late)


class _Trial:
    """One exchange being measured; warmed up, with nothing measured yet."""

    def __init__(self, exchange: Exchange, group: Group, watch: Stopwatch) -> None:
        if group.group is None or group.control is None:
            raise AssertionError("only ranks of the group measure it")
        self._exchange, self._group, self._watch = exchange, group, watch
        self._run = prepare(exchange, Transport(group.group), watch.device)
        self._run()
        dist.barrier(group.control)
        # Of an exchange of nothing a GPU's clock may not move.
        first = torch.tensor(watch.repeats([self._run], 1)).clamp_min(1e-3)
        dist.all_reduce(first, dist.ReduceOp.MAX, group=group.control)
        # On a CPU, where each run waits for cores to wake, a round is one run, and there are many.
        most = _MOST_INNER if watch.device.type == "cuda" else 1
        self._inner = int(np.clip(_ROUND_US / float(first), 1, most))
        visit = _VISIT_US / (float(first) * self._inner)
        self._rounds = int(np.clip(visit, 1, _MOST_ROUNDS))
        self._times: list[float] = []

    def visit(self) -> None:
        """Measure a few rounds."""
        rounds = []
        for _ in range(self._rounds):
            dist.barrier(self._group.control)
            rounds += self._watch.repeats([self._run], 1, inner=self._inner)
        slowest = torch.tensor(rounds, dtype=torch.float64)
        dist.all_reduce(slowest, dist.ReduceOp.MAX, group=self._group.control)
        self._times += slowest.tolist()

    def settled(self) -> bool:
        """Tell whether it need not be measured again; on every rank alike."""
        visited = len(self._times) >= _LEAST_VISITS * self._rounds
        return visited and self._watch.settled(self._times, alone=False)

    def point(self) -> TransferPoint:
        """Return what was measured."""
        sample = summed_up(self._times, self._watch.device, alone=False)
        return TransferPoint(
            collective=self._exchange.collective,
            parts=self._exchange.parts,
            ranks=self._group.ranks,
            ranks_per_node=self._group.ranks_per_node,
            total_bytes=self._exchange.total_bytes,
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

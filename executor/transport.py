"""Carries schedules out over a process group: NCCL on GPUs, gloo on CPUs.

Every transfer is started asynchronously. NCCL runs it on a stream of its own and waiting makes the
compute stream wait, not the host; gloo runs it on a thread of its own. Sent bytes are counted from
the tensors that are handed over, so that a plan's promise can be held against them.
"""

from typing import Any, TypeVar

import torch.distributed as dist

from executor.record import Part, Recorder
from executor.transfers import Pattern, Schedule, Start, Transfer

R = TypeVar("R")

# all_gather_into_tensor was renamed in torch 2.13 and warns there.
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor


class Transport:
    """Transfers over one process group.

    Attributes:
        group: the context-parallel group; None for the default one.
        rank: this process's rank in it.
        ranks: its size.
        sent_bytes: bytes that have left this rank.
    """

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self.group = group
        self.rank = dist.get_rank(group)
        self.ranks = dist.get_world_size(group)
        self.sent_bytes = 0

    def start(self, transfer: Transfer) -> list[dist.Work]:
        """Start a transfer and return what to wait for."""
        self.sent_bytes += transfer.sent_bytes(self.rank, self.ranks)
        if transfer.pattern is Pattern.ALL_GATHER:
            return [_all_gather(transfer.recv, transfer.send, group=self.group, async_op=True)]
        if transfer.pattern is Pattern.ALL_TO_ALL:
            work: Any = dist.all_to_all_single(
                transfer.recv,
                transfer.send,
                transfer.recv_splits,
                transfer.send_splits,
                group=self.group,
                async_op=True,
            )
            return [work]
        to, source = ((self.rank + step) % self.ranks for step in (1, -1))
        return dist.batch_isend_irecv(
            [
                dist.P2POp(dist.isend, transfer.send, self._global(to), self.group),
                dist.P2POp(dist.irecv, transfer.recv, self._global(source), self.group),
            ]
        )

    def _global(self, rank: int) -> int:
        return rank if self.group is None else dist.get_global_rank(self.group, rank)


def carry_out(schedule: Schedule[R], transport: Transport, record: Recorder) -> R:
    """Run a schedule to its end over a process group and return what it returns."""
    answer: Any = None
    while True:
        try:
            request = schedule.send(answer)
        except StopIteration as end:
            result: R = end.value
            return result
        if isinstance(request, Start):
            answer = transport.start(request.transfer)
        else:
            with record.piece(Part.EXCHANGE, request.name):
                for work in request.ticket:
                    work.wait()
            answer = None

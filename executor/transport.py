"""Carries schedules out over a process group: NCCL on GPUs, gloo on CPUs.

Every transfer is started asynchronously. NCCL runs it on a stream of its own and waiting makes the
compute stream wait, not the host; gloo runs it on a thread of its own. What is passed on when other
transfers have arrived is prepared on a side stream, which alone waits for them; without streams
the host does. Sent bytes are counted from the tensors that are handed over, so that a plan's
promise can be held against them.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import torch
import torch.distributed as dist

from executor.record import Part, Recorder
from executor.transfers import Bundle, Messages, Pattern, Schedule, Start, Transfer

R = TypeVar("R")


def _named(new: str, old: str) -> "Callable[..., dist.Work]":
    """Return a collective by the name of torch 2.13, whose older name warns there."""
    found: Callable[..., dist.Work] = getattr(dist, new, None) or getattr(dist, old)
    return found


COLLECTIVES = {
    Pattern.ALL_GATHER: _named("all_gather_single", "all_gather_into_tensor"),
    Pattern.ALL_TO_ALL: dist.all_to_all_single,
    Pattern.REDUCE_SCATTER: _named("reduce_scatter_single", "reduce_scatter_tensor"),
}


@lru_cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """Return the stream to prepare on what is passed on.

    One a device, not one a transport, of which every call may make its own: torch keeps the memory
    of each of its 32 streams apart, so what is summed before it crosses nodes would stay reserved
    as often.
    """
    # Before what is computed meanwhile, which may fill the device until it ends.
    return torch.cuda.Stream(device, priority=-1)  # type: ignore[no-untyped-call]


@dataclass(frozen=True, eq=False)
class Ticket:
    """Transfers under way; holds their tensors until they have arrived."""

    work: Sequence[dist.Work]
    transfers: Sequence[Transfer]

    def wait(self) -> None:
        """Wait: the current stream for NCCL's, the host for gloo's."""
        for work in self.work:
            work.wait()


class Transport:
    """Transfers over one process group; over none where there is none, as one rank.

    Attributes:
        group: the context-parallel group; None for the default one.
        rank: this process's rank in it.
        ranks: its size.
        sent_bytes: bytes that have left this rank.
    """

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self.group = group
        alone = group is None and not dist.is_initialized()
        self.rank, self.ranks = (
            (0, 1) if alone else (dist.get_rank(group), dist.get_world_size(group))
        )
        self.sent_bytes = 0

    def start(self, request: Start) -> Ticket:
        """Start transfers, and what follows them; return what to wait for."""
        first = self._begun(request.transfers)
        if request.then is None:
            return first
        device = next((x.device for x in request.transfers if x.device is not None), None)
        if device is None or device.type != "cuda":
            first.wait()
            return self._begun([request.then()])
        side = _side_stream(device)  # which need not be the current device
        # Gradients to be summed were written on the compute stream.
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):
            first.wait()
            second = self._begun([request.then()])
        # What stays on this rank arrived with the first ones.
        return Ticket([*first.work, *second.work], [*first.transfers, *second.transfers])

    def _begun(self, transfers: Sequence[Transfer]) -> Ticket:
        work: list[dist.Work] = []
        for transfer in transfers:
            self.sent_bytes += transfer.sent_bytes(self.rank, self.ranks)
            if isinstance(transfer, Messages):
                work += self._exchanged(transfer)
            elif isinstance(transfer, Bundle):
                work.append(self._bundled(transfer))
            else:
                collective = COLLECTIVES[transfer.pattern]
                work.append(
                    collective(transfer.recv, transfer.send, group=self.group, async_op=True)
                )
        return Ticket(work, transfers)

    def _exchanged(self, messages: Messages) -> list[dist.Work]:
        """Send and receive, all at once; no message is empty, a rank may have none."""
        operations = [
            dist.P2POp(way, rows, self._global(peer), self.group)
            for way, listed in ((dist.isend, messages.sends), (dist.irecv, messages.recvs))
            for peer, rows in listed
        ]
        return dist.batch_isend_irecv(operations) if operations else []

    def _bundled(self, bundle: Bundle) -> dist.Work:
        """Send and receive rows for each rank in one operation of the host."""
        work: dist.Work = COLLECTIVES[Pattern.ALL_TO_ALL](
            bundle.recv,
            bundle.send,
            list(bundle.recv_splits),
            list(bundle.send_splits),
            group=self.group,
            async_op=True,
        )
        return work

    def _global(self, rank: int) -> int:
        return rank if self.group is None else dist.get_global_rank(self.group, rank)


def carry_out(schedule: Schedule[R], transport: Transport, record: Recorder) -> R:
    """Run a schedule to its end over a process group and return what it returns."""
    answer: Ticket | None = None
    while True:
        try:
            request = schedule.send(answer)
        except StopIteration as end:
            result: R = end.value
            return result
        if isinstance(request, Start):
            # Where the host has to wait before it can pass anything on, that is exposed.
            waits = request.then is not None
            with record.piece(Part.EXCHANGE, request.name) if waits else nullcontext():
                answer = transport.start(request)
        else:
            with record.piece(Part.EXCHANGE, request.name):
                request.ticket.wait()
            answer = None

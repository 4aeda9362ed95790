"""Plays every rank of a plan in turn on one device: the same schedules, copies for transfers.

All ranks' schedules run in lockstep: each in turn up to its next request, then the transfer they
all asked for is copied from their send buffers to their receive buffers. Kernels and copies are
those of a real run; only the exchange is not, and its time has to come from a profile.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from executor import joined, ring
from executor.handle import Handle, Ring
from executor.joined import Call, Kept
from executor.kernels import Kernel
from executor.kernels.segments import Triple
from executor.record import Recorder
from executor.transfers import Pattern, Schedule, Start, Transfer

R = TypeVar("R")


class Emulation:
    """All ranks of a plan on one device.

    Attributes:
        handles: of each rank.
        sent_bytes: bytes that have left each rank.
    """

    def __init__(
        self,
        handles: Sequence[Handle],
        kernel: Kernel,
        scale: float,
        records: Sequence[Recorder] | None = None,
    ) -> None:
        self.handles = handles
        self.sent_bytes = [0] * len(handles)
        records = records or [Recorder() for _ in handles]
        self._calls = [
            Call(kernel, scale, record) for _, record in zip(handles, records, strict=True)
        ]
        self._kept: list[Triple] = []
        self._results: list[tuple[Tensor, Any]] = []

    def forward(self, q: list[Tensor], k: list[Tensor], v: list[Tensor]) -> list[Tensor]:
        """Return each rank's output [t, Hq, D] of its q, k and v; keeps what backward needs."""
        schedules: list[Schedule[tuple[Tensor, Any]]] = [
            ring.forward(handle.schedule, call, *qkv)
            if isinstance(handle.schedule, Ring)
            else joined.forward(handle.schedule, call, *qkv)
            for handle, call, qkv in zip(
                self.handles, self._calls, zip(q, k, v, strict=True), strict=True
            )
        ]
        self._kept = list(zip(q, k, v, strict=True))
        self._results = self._in_lockstep(schedules)
        return [out for out, _ in self._results]

    def backward(self, dout: list[Tensor]) -> list[Triple]:
        """Return each rank's dq, dk and dv of its gradient of the output."""
        schedules: list[Schedule[Triple]] = []
        for rank, handle in enumerate(self.handles):
            qkv = self._kept[rank]
            out, kept = self._results[rank]
            call = self._calls[rank]
            if isinstance(handle.schedule, Ring):
                steps = ring.backward(handle.schedule, call, dout[rank], qkv, (out, kept))
            else:
                assert isinstance(kept, Kept)  # noqa: S101 - what joined.forward returns
                steps = joined.backward(handle.schedule, call, dout[rank], qkv, (out, kept))
            schedules.append(steps)
        return self._in_lockstep(schedules)

    def _in_lockstep(self, schedules: list[Schedule[R]]) -> list[R]:
        results: dict[int, R] = {}
        answers: list[Any] = [None] * len(schedules)
        while len(results) < len(schedules):
            transfers: list[Transfer] = []
            for rank, schedule in enumerate(schedules):
                try:
                    request = schedule.send(answers[rank])
                except StopIteration as end:
                    results[rank] = end.value
                    continue
                answers[rank] = None
                if isinstance(request, Start):
                    transfers.append(request.transfer)
                    answers[rank] = request.transfer
            if transfers:
                self._transfer(transfers)
        return [results[rank] for rank in range(len(schedules))]

    def _transfer(self, transfers: list[Transfer]) -> None:
        ranks = len(self.handles)
        if len(transfers) != ranks:
            raise AssertionError("ranks do not transfer in step")
        sends = [transfer.send for transfer in transfers]
        for rank, transfer in enumerate(transfers):
            self.sent_bytes[rank] += transfer.sent_bytes(rank, ranks)
            if transfer.pattern is Pattern.NEXT:
                transfer.recv.copy_(sends[rank - 1])
            elif transfer.pattern is Pattern.ALL_GATHER:
                torch.cat(sends, out=transfer.recv)
            else:
                parts = [_split(other, rank) for other in transfers]
                sizes = [part.shape[0] for part in parts]
                if sizes != transfer.recv_splits:
                    due = transfer.recv_splits
                    raise AssertionError(f"rank {rank} is sent {sizes} rows where {due} are due")
                torch.cat(parts, out=transfer.recv)


def _split(transfer: Transfer, rank: int) -> Tensor:
    """Return the rows that go to `rank`."""
    splits = transfer.send_splits or []
    first = sum(splits[:rank])
    return transfer.send[first : first + splits[rank]]

"""Plays every rank of a plan in turn on one device: the same schedules, copies for transfers.

All ranks' schedules run in lockstep: each in turn up to its next request, then the transfer they
all asked for is copied from their send buffers to their receive buffers. Kernels and copies are
those of a real run; only the exchange is not, and its time has to come from a profile.
"""

from collections import defaultdict, deque
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
from executor.transfers import Bundle, Collective, Messages, Pattern, Schedule, Start, Transfer

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
            starts: list[Start] = []
            for rank, schedule in enumerate(schedules):
                try:
                    request = schedule.send(answers[rank])
                except StopIteration as end:
                    results[rank] = end.value
                    continue
                answers[rank] = None
                if isinstance(request, Start):
                    starts.append(request)
                    answers[rank] = request
            if starts:
                self._start(starts)
        return [results[rank] for rank in range(len(schedules))]

    def _start(self, starts: list[Start]) -> None:
        if len(starts) != len(self.handles):
            raise AssertionError("ranks do not transfer in step")
        for transfers in zip(*(start.transfers for start in starts), strict=True):
            self._transfer(transfers)
        passed_on = [start.then() for start in starts if start.then is not None]
        if passed_on:
            self._transfer(passed_on)

    def _transfer(self, transfers: Sequence[Transfer]) -> None:
        bundles = [one for one in transfers if isinstance(one, Bundle)]
        if bundles:
            self._bundles(bundles)
            return
        collectives = [one for one in transfers if isinstance(one, Collective)]
        if not collectives:
            self._messages([one for one in transfers if isinstance(one, Messages)])
            return
        ranks = len(self.handles)
        sends = [one.send for one in collectives]
        for rank, one in enumerate(collectives):
            self.sent_bytes[rank] += one.sent_bytes(rank, ranks)
            if one.pattern is Pattern.ALL_GATHER:
                torch.cat(sends, out=one.recv)
                continue
            parts = [send.chunk(ranks)[rank] for send in sends]
            if one.pattern is Pattern.ALL_TO_ALL:
                torch.cat(parts, out=one.recv)
            else:
                torch.sum(torch.stack(parts), 0, out=one.recv)

    def _bundles(self, bundles: Sequence[Bundle]) -> None:
        ranks = len(self.handles)
        parts = [torch.split(one.send, list(one.send_splits)) for one in bundles]
        for rank, one in enumerate(bundles):
            self.sent_bytes[rank] += one.sent_bytes(rank, ranks)
            came = [sent[rank] for sent in parts]
            due = list(one.recv_splits)
            if [len(rows) for rows in came] != due:
                raise AssertionError(f"rank {rank} is sent {list(map(len, came))} rows, {due} due")
            torch.cat(came, out=one.recv)

    def _messages(self, messages: Sequence[Messages]) -> None:
        ranks = len(self.handles)
        under_way: dict[tuple[int, int], deque[Tensor]] = defaultdict(deque)
        for rank, one in enumerate(messages):
            self.sent_bytes[rank] += one.sent_bytes(rank, ranks)
            for peer, rows in one.sends:
                under_way[rank, peer].append(rows)
        for rank, one in enumerate(messages):
            for peer, rows in one.recvs:
                sent = under_way[peer, rank].popleft()
                if sent.shape != rows.shape:
                    raise AssertionError(
                        f"rank {rank} is sent {list(sent.shape)} where {list(rows.shape)} is due"
                    )
                rows.copy_(sent)
        if any(under_way.values()):
            raise AssertionError("messages are left that nobody receives")

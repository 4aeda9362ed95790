"""What schedules ask of whoever carries them out: to start a transfer, and to wait for it.

A schedule is a generator. It yields `Start(transfer)` and is sent a ticket; it yields
`Wait(ticket)` when it cannot go on without the data. So one schedule runs over a process group
(`executor.transport`), or all ranks' run in lockstep on one device (`executor.emulate`).
Every rank's schedule of a plan yields the same sequence, transfers of no rows included.
"""

from collections.abc import Generator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias, TypeVar

from torch import Tensor

R = TypeVar("R")


class Pattern(StrEnum):
    """Who sends what to whom."""

    ALL_GATHER = "all-gather"
    ALL_TO_ALL = "all-to-all"
    NEXT = "next"


@dataclass(frozen=True, eq=False)
class Transfer:
    """One rank's part of a transfer.

    Attributes:
        pattern: all-gather: everybody gets `send`; all-to-all: rank j gets the j-th split of it;
            next: the next rank gets it.
        send: rows to send, contiguous, [rows, ...].
        recv: where received rows go, contiguous, rank by rank, [rows, ...].
        send_splits: rows of `send` for each rank (all-to-all).
        recv_splits: rows of `recv` from each rank (all-to-all).
    """

    pattern: Pattern
    send: Tensor
    recv: Tensor
    send_splits: list[int] | None = None
    recv_splits: list[int] | None = None

    def sent_bytes(self, rank: int, ranks: int) -> int:
        """Return the bytes that leave `rank`; what it keeps for itself does not count."""
        row_bytes = self.send[:1].numel() * self.send.element_size()
        rows = self.send.shape[0]
        if self.pattern is Pattern.ALL_TO_ALL and self.send_splits is not None:
            return (rows - self.send_splits[rank]) * row_bytes
        return rows * row_bytes * (ranks - 1 if self.pattern is Pattern.ALL_GATHER else 1)


@dataclass(frozen=True, eq=False)
class Start:
    """Start a transfer; the answer is a ticket."""

    transfer: Transfer


@dataclass(frozen=True, eq=False)
class Wait:
    """Wait until the transfer of a ticket has arrived; the answer is None."""

    ticket: Any
    name: str


Schedule: TypeAlias = Generator[Start | Wait, Any, R]

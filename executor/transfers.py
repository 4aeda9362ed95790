"""What schedules ask of whoever carries them out: to start transfers, and to wait for them.

A schedule is a generator. It yields `Start(transfers)` and is sent a ticket; it yields
`Wait(ticket)` when it cannot go on without the data. So one schedule runs over a process group
(`executor.transport`), or all ranks' run in lockstep on one device (`executor.emulate`).
Every rank's schedule of a plan yields the same sequence, transfers of no rows included.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeAlias, TypeVar

from torch import Tensor, device

R = TypeVar("R")


class Pattern(StrEnum):
    """Who gets what of a collective."""

    ALL_GATHER = "all-gather"
    ALL_TO_ALL = "all-to-all"
    REDUCE_SCATTER = "reduce-scatter"


@dataclass(frozen=True, eq=False)
class Collective:
    """One rank's part of a collective over all ranks, in equal parts.

    Attributes:
        pattern: all-gather: everybody gets `send`; all-to-all: rank j gets the j-th of N equal
            parts of it; reduce-scatter: rank j gets the sum of everybody's j-th part.
        send: rows to send, contiguous, [rows, ...].
        recv: where received rows go, contiguous, rank by rank, [rows, ...].
    """

    pattern: Pattern
    send: Tensor
    recv: Tensor

    @property
    def device(self) -> device:
        """Where its tensors are."""
        return self.send.device

    def sent_bytes(self, rank: int, ranks: int) -> int:  # noqa: ARG002 - alike on every rank
        """Return the bytes that leave `rank`; what it keeps for itself does not count."""
        bytes_ = self.send.numel() * self.send.element_size()
        if self.pattern is Pattern.ALL_GATHER:
            return bytes_ * (ranks - 1)
        return bytes_ // ranks * (ranks - 1)


@dataclass(frozen=True, eq=False)
class Messages:
    """One rank's sends and receives, each from and to a place of its own.

    Between two ranks the first message sent is the first received, and so on.

    Attributes:
        sends: the receiving rank and the rows, contiguous, [rows, ...], of each message.
        recvs: the sending rank, and where its rows land, contiguous.
    """

    sends: Sequence[tuple[int, Tensor]]
    recvs: Sequence[tuple[int, Tensor]]

    @property
    def device(self) -> device | None:
        """Where its tensors are; None where there is no message."""
        return next((rows.device for _, rows in (*self.sends, *self.recvs)), None)

    def sent_bytes(self, rank: int, ranks: int) -> int:  # noqa: ARG002 - as of a collective
        """Return the bytes that leave `rank`."""
        return sum(rows.numel() * rows.element_size() for _, rows in self.sends)


@dataclass(frozen=True, eq=False)
class Bundle:
    """One rank's part of an all-to-all in parts of any size, none to itself.

    Attributes:
        send: rows to send, contiguous, [rows, ...], for rank 0 first.
        recv: where received rows go, contiguous, [rows, ...], from rank 0 first.
        send_splits: how many rows each rank gets.
        recv_splits: how many come from each.
    """

    send: Tensor
    recv: Tensor
    send_splits: Sequence[int]
    recv_splits: Sequence[int]

    @property
    def device(self) -> device:
        """Where its tensors are."""
        return self.send.device

    def sent_bytes(self, rank: int, ranks: int) -> int:  # noqa: ARG002 - as of a collective
        """Return the bytes that leave `rank`."""
        return self.send.numel() * self.send.element_size()


Transfer: TypeAlias = Collective | Messages | Bundle


@dataclass(frozen=True, eq=False)
class Start:
    """Start transfers; the answer is a ticket for all of them.

    Attributes:
        transfers: which run side by side.
        then: gives what to pass on once all of these have arrived; None where nothing is.
        name: of the exchange, as the picture shows it.
    """

    transfers: Sequence[Transfer]
    then: Callable[[], Messages | Bundle] | None = None
    name: str = field(default="", kw_only=True)


@dataclass(frozen=True, eq=False)
class Wait:
    """Wait until the transfers of a ticket have arrived; the answer is None."""

    ticket: Any
    name: str


Schedule: TypeAlias = Generator[Start | Wait, Any, R]

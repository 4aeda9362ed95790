"""What every rank does when: one clock a rank and stream, advanced by the work put on it.

An entry starts when its stream is free and what it waits for has ended; a collective starts when
the last rank has arrived and ends everywhere at once; a ring step hands data to the next rank, so
it waits for both ends. The same entries give the predicted time (the last end), its parts (along
the rank that ends last), and the picture. Entries are arrays over ranks: a plan at CP 8 takes tens
of microseconds to schedule, not a Python object for each rank and kernel.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

Clock = NDArray[np.float64]


class Stream(StrEnum):
    """Where work queues: kernels and copies on one stream, the exchange on another.

    And what the host does before it can go on to the next layer.
    """

    COMPUTE = "compute"
    EXCHANGE = "exchange"
    HOST = "host"


class Kind(StrEnum):
    """What an entry spends its time on; the parts of a predicted time, and the host's."""

    FORWARD = "forward"
    BACKWARD = "backward"
    EXCHANGE = "exchange"
    COPIES = "copies"
    MERGE = "merge"
    HOST = "host"


@dataclass(frozen=True)
class Entry:
    """One piece of work on every rank.

    Attributes:
        name: what the picture says.
        kind: what the time is spent on.
        stream: where it queued.
        start_us: when it starts on each rank, [ranks].
        end_us: when it ends, [ranks]; equal to the start where a rank has nothing to do.
    """

    name: str
    kind: Kind
    stream: Stream
    start_us: Clock
    end_us: Clock


class Timeline:
    """The entries of all ranks, in the order in which they were queued."""

    def __init__(self, ranks: int) -> None:
        self.ranks = ranks
        self.entries: list[Entry] = []
        self._clocks = {stream: np.zeros(ranks) for stream in Stream}

    @property
    def ends_us(self) -> Clock:
        """When each rank ends, [ranks]."""
        ends: Clock = np.max(list(self._clocks.values()), axis=0)
        return ends

    @property
    def total_us(self) -> float:
        """When the last rank ends."""
        return float(self.ends_us.max())

    def now(self, stream: Stream) -> Clock:
        """Return when `stream` is free on each rank, [ranks]."""
        return self._clocks[stream]

    def run(
        self,
        kind: Kind,
        name: str,
        us: Clock,
        *,
        stream: Stream = Stream.COMPUTE,
        after: Clock | None = None,
    ) -> Clock:
        """Queue work that each rank does on its own.

        Args:
            kind: what the time is spent on.
            name: what the picture says.
            us: how long it takes on each rank, [ranks].
            stream: where it queues.
            after: when what it waits for has ended on each rank, [ranks].

        Returns:
            When it ends on each rank, [ranks].
        """
        start = self._clocks[stream]
        if after is not None:
            start = np.maximum(start, after)
        return self._queue(kind, name, stream, start, start + us)

    def collective(self, name: str, us: float, *, after: Clock | None = None) -> Clock:
        """Queue an exchange that starts when every rank has arrived.

        Args:
            name: what the picture says.
            us: how long it takes from then on.
            after: when each rank arrives, [ranks].

        Returns:
            When it ends on each rank, [ranks].
        """
        arrive = self._clocks[Stream.EXCHANGE]
        if after is not None:
            arrive = np.maximum(arrive, after)
        start = np.full(self.ranks, arrive.max())
        return self._queue(Kind.EXCHANGE, name, Stream.EXCHANGE, start, start + us)

    def pass_on(self, name: str, us: float, *, after: Clock) -> Clock:
        """Queue a ring step: every rank sends to the next and receives from the one before.

        Args:
            name: what the picture says.
            us: how long one transfer takes.
            after: when each rank is ready to send and receive, [ranks].

        Returns:
            When each rank has received, [ranks].
        """
        ready = np.maximum(self._clocks[Stream.EXCHANGE], after)
        start = np.maximum(ready, np.roll(ready, 1))
        return self._queue(Kind.EXCHANGE, name, Stream.EXCHANGE, start, start + us)

    def barrier(self) -> None:
        """Let every stream of every rank wait for the last of them."""
        now = self.total_us
        for stream in Stream:
            self._clocks[stream] = np.full(self.ranks, now)

    def chrome_trace(self) -> dict[str, Any]:
        """Return the picture in the Chrome/Perfetto trace format, times in microseconds."""
        used = {entry.stream for entry in self.entries if (entry.end_us > entry.start_us).any()}
        tracks = [stream for stream in Stream if stream in used or stream is not Stream.HOST]
        events: list[dict[str, Any]] = []
        for rank in range(self.ranks):
            events.append(
                {"ph": "M", "pid": rank, "name": "process_name", "args": {"name": f"rank {rank}"}}
            )
            events.extend(
                {"ph": "M", "pid": rank, "tid": t, "name": "thread_name", "args": {"name": s.value}}
                for t, s in enumerate(tracks)
            )
        for entry in self.entries:
            events.extend(
                {
                    "ph": "X",
                    "pid": int(rank),
                    "tid": tracks.index(entry.stream),
                    "name": entry.name,
                    "cat": entry.kind.value,
                    "ts": float(entry.start_us[rank]),
                    "dur": float(entry.end_us[rank] - entry.start_us[rank]),
                }
                for rank in np.flatnonzero(entry.end_us > entry.start_us)
            )
        return {"traceEvents": events, "displayTimeUnit": "ms", "distributedInfo": {"rank": 0}}

    def _queue(self, kind: Kind, name: str, stream: Stream, start: Clock, end: Clock) -> Clock:
        self.entries.append(Entry(name, kind, stream, start, end))
        self._clocks[stream] = end
        return end

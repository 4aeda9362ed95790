"""What a rank spends its time on, piece by piece, without stopping the device to find out.

On a GPU each piece is two events on the compute stream, read after the run; on a CPU two readings
of the clock. A piece that waits for an exchange is the exposed part of that exchange. Recording
nothing costs an empty context.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

import torch


class Part(StrEnum):
    """What a piece of time is spent on."""

    FORWARD = "forward"
    BACKWARD = "backward"
    EXCHANGE = "exchange"
    COPIES = "copies"
    MERGE = "merge"


@dataclass(frozen=True)
class Piece:
    """One piece of a rank's time.

    Attributes:
        part: what it is spent on; `exchange` is waiting for one.
        name: what the picture says.
        start_us: when it starts, from when recording began.
        end_us: when it ends.
    """

    part: Part
    name: str
    start_us: float
    end_us: float


_Moment: TypeAlias = float | torch.cuda.Event


class Recorder:
    """Records nothing; what a training step uses."""

    @contextmanager
    def piece(self, part: Part, name: str) -> Iterator[None]:  # noqa: ARG002
        """Record what runs inside."""
        yield


class Clock(Recorder):
    """Records pieces on one device.

    Attributes:
        device: the device.
    """

    def __init__(
        self,
        device: torch.device,
        *,
        waits: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """Begin to record.

        Args:
            device: whose time it is.
            waits: entered while the host waits for an exchange.
        """
        self.device = device
        self._waits = waits
        self._pieces: list[
            tuple[Part, str, float | torch.cuda.Event, float | torch.cuda.Event]
        ] = []
        self._began = self._now()

    @contextmanager
    def piece(self, part: Part, name: str) -> Iterator[None]:
        """Record what runs inside."""
        start = self._now()
        with self._waits() if part is Part.EXCHANGE else nullcontext():
            yield
        self._pieces.append((part, name, start, self._now()))

    def restart(self) -> None:
        """Forget what was recorded and begin anew."""
        self._pieces.clear()
        self._began = self._now()

    def pieces(self) -> list[Piece]:
        """Wait for the device and return the pieces since recording began, in order."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return [
            Piece(part, name, self._since(start), self._since(end))
            for part, name, start, end in self._pieces
        ]

    def elapsed_us(self) -> float:
        """Wait for the device and return how long ago recording began."""
        now = self._now()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return self._since(now)

    def _now(self) -> _Moment:
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self.device))
        return event

    def _since(self, moment: _Moment) -> float:
        if isinstance(moment, float):
            assert isinstance(self._began, float)  # noqa: S101 - one device, one kind of moment
            return (moment - self._began) * 1e6
        assert not isinstance(self._began, float)  # noqa: S101 - likewise
        return float(self._began.elapsed_time(moment)) * 1e3

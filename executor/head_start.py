"""Lets the host queue a timed pass before the device begins it, as it does in a training step.

There the host runs layers ahead; a pass begun from a standstill would instead be timed with every
launch that the device had to wait for, and predictions count none. So the device first spins for
longer than the host was seen to take in the warm-ups, on every rank for as long. What the host took
is reported beside the device's time: where it is more, training waits for the host.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist

_CYCLES_A_US = 2000  # no GPU's clock is faster by much
_MARGIN = 1.5  # over the slowest warm-up
_MOST_US = 1e6


class HeadStart:
    """The host's head start over one device.

    Attributes:
        host_us: what the host took to queue the last pass; None where it does the work itself.
    """

    def __init__(self, device: torch.device) -> None:
        self.host_us: float | None = None
        self._device = device
        self._longest_us = 0.0
        self._spins_us = 0.0

    def agree(self, group: dist.ProcessGroup | None) -> None:
        """Take what any rank's host took so far as the head start of all, from now on."""
        if self._device.type == "cuda":
            longest = torch.tensor([self._longest_us], device=self._device)
            dist.all_reduce(longest, dist.ReduceOp.MAX, group=group)
            self._spins_us = min(_MARGIN * float(longest), _MOST_US)

    def give(self) -> None:
        """Let the device spin."""
        if self._device.type == "cuda" and self._spins_us > 0:
            with torch.cuda.device(self._device):
                torch.cuda._sleep(int(self._spins_us * _CYCLES_A_US))  # type: ignore[no-untyped-call]

    @contextmanager
    def queueing(self) -> Iterator[None]:
        """Take the time of the host inside."""
        began = time.perf_counter()
        yield
        if self._device.type == "cuda":
            self.host_us = (time.perf_counter() - began) * 1e6
            self._longest_us = max(self._longest_us, self.host_us)

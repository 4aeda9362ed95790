"""Times short work on a device, several times, and says how far the repeats lie apart.

Every repeat takes the next of several inputs, so that none is found in a cache just because it was
used last. On a GPU a repeat is two events on the compute stream, queued behind a short sleep so
that the host is ahead of the device, and the result is the median; between repeats the device rests
when it has been busy for long, so that its power limit is not what is measured (clocks and power
settings are never touched). On a CPU, which is shared with whatever else runs, interference only
adds, so the result of what a process does alone is the fastest repeat; kernels on a single thread
are timed by that thread's own clock, which stands still while another process has the core. An
exchange is of processes that wake each other, which takes 80 or 400 us as it happens and is no more
typical at its fastest than at its slowest; there it is the lower quartile, of as many repeats as
make it firm. Either way the spread is that of the quartiles: a noisy machine is told so, not
averaged away.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from costmodel.calibrated_points import NOISY_SPREAD

_REST_AFTER_S, _REST_S = 0.4, 0.2
_SLEEP_CYCLES = 400_000
_RETRIES = 3
_AGREE = 0.03

Run = Callable[[], object]


@dataclass(frozen=True)
class Sample:
    """A time and how far its repeats lie apart.

    Attributes:
        us: microseconds.
        spread: distance of the quartiles over the median.
    """

    us: float
    spread: float


def summed_up(repeats_us: Sequence[float], device: torch.device, *, alone: bool = True) -> Sample:
    """Return the sample of these repeats.

    Args:
        repeats_us: microseconds of each.
        device: where they ran.
        alone: whether nobody else took part: then the fastest counts on a CPU, else the lower
            quartile; on a GPU the median.
    """
    times = np.asarray(repeats_us, np.float64)
    low, middle, high = np.quantile(times, (0.25, 0.5, 0.75))
    us = float(middle if device.type == "cuda" else times.min() if alone else low)
    return Sample(max(us, 1e-3), float((high - low) / max(middle, 1e-3)))


class Stopwatch:
    """Times work on one device.

    Attributes:
        device: the device.
        cpu_clock: whether kernels are timed by the thread's own clock.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.cpu_clock = device.type == "cpu" and torch.get_num_threads() == 1
        self._busy_s = 0.0

    def kernel(self, runs: Sequence[Run], repeats: int) -> Sample:
        """Time work that only this process does, taking the runs in turn.

        Repeats are measured again, up to three times, until the result can be relied on: on a GPU
        until their spread is small, on a CPU until the two fastest agree. What is still noisy then
        is reported so.
        """
        for run in runs:
            run()
        times: list[float] = []
        for _ in range(1 + _RETRIES):
            times += self.repeats(runs, repeats, own=True)
            if self.settled(times):
                break
        return summed_up(times, self.device)

    def settled(self, times: Sequence[float], *, alone: bool = True) -> bool:
        """Tell whether repeats can be relied on.

        On a GPU by their spread. On a CPU of work done alone where the two fastest agree; of other
        work where the lower quartile would hardly differ had it been repeated anew.
        """
        if self.device.type == "cuda":
            return summed_up(times, self.device).spread <= NOISY_SPREAD
        rising, count = np.sort(times), len(times)
        if alone:
            return count > 1 and bool(rising[1] <= rising[0] * (1 + _AGREE))
        # Of n repeats the true quartile lies sqrt(3 n) / 4 places from theirs, give or take.
        low = int(np.floor(count / 4 - np.sqrt(3 * count) / 4))
        high = int(np.ceil(count / 4 + np.sqrt(3 * count) / 4)) - 1
        return low >= 0 and bool(rising[high] - rising[low] <= 2 * _AGREE * rising[count // 4])

    def repeats(
        self, runs: Sequence[Run], repeats: int, *, inner: int = 1, own: bool = False
    ) -> list[float]:
        """Return the microseconds of each of `repeats` rounds of `inner` runs, over `inner`.

        Args:
            runs: taken in turn.
            repeats: how many rounds.
            inner: runs a round.
            own: whether nobody else takes part, so that the thread's own clock may count.
        """
        if self.device.type == "cuda":
            return self._on_gpu(runs, repeats, inner)
        clock = time.thread_time if own and self.cpu_clock else time.perf_counter
        times = []
        for repeat in range(repeats):
            began = clock()
            for i in range(inner):
                runs[(repeat * inner + i) % len(runs)]()
            times.append((clock() - began) * 1e6 / inner)
        return times

    def _on_gpu(self, runs: Sequence[Run], repeats: int, inner: int) -> list[float]:
        pairs = []
        for repeat in range(repeats):
            start, end = (
                torch.cuda.Event(enable_timing=True) for _ in range(2)  # type: ignore[no-untyped-call]
            )  # fmt: skip
            torch.cuda._sleep(_SLEEP_CYCLES)  # type: ignore[no-untyped-call]
            start.record()
            for i in range(inner):
                runs[(repeat * inner + i) % len(runs)]()
            end.record()
            pairs.append((start, end))
        torch.cuda.synchronize(self.device)
        times = [float(start.elapsed_time(end)) * 1e3 / inner for start, end in pairs]
        self._busy_s += sum(times) * inner / 1e6
        if self._busy_s > _REST_AFTER_S:
            time.sleep(_REST_S)
            self._busy_s = 0.0
        return times

"""What Ctrl-C and SIGTERM do once all is imported: one exception for a burst of them.

A second one while the first one's exception unwinds would break what cleans up: a pool interrupted
in its own shutdown left workers that were waited for for ever. So for a second further ones are
taken for the first. And an exception in a function that C code calls, or Python when an object
goes, is printed and lost; LLVM calls such functions while numba compiles. There the answer comes a
moment later.
"""

import signal
import time
from types import FrameType

_BURST_S = 1.0
_MOMENT_S = 0.02


class Terminated(KeyboardInterrupt):
    """SIGTERM came: an interrupt, so that whatever cleans up after one does so here."""


class _Answer:
    """A handler of SIGINT and SIGTERM, and of the alarm that it sets itself."""

    def __init__(self) -> None:
        self._answered_s = float("-inf")
        self._asked = signal.SIGINT

    def __call__(self, number: int, frame: FrameType | None) -> None:
        now_s = time.monotonic()
        if number != signal.SIGALRM:
            if now_s - self._answered_s < _BURST_S:
                return
            self._asked = signal.Signals(number)
        if _would_be_lost(frame):
            signal.signal(signal.SIGALRM, self)
            signal.setitimer(signal.ITIMER_REAL, _MOMENT_S)
            return
        self._answered_s = now_s
        signal.setitimer(signal.ITIMER_REAL, 0)  # one that came before may still be waiting
        raise Terminated if self._asked == signal.SIGTERM else KeyboardInterrupt


def take_signals() -> None:
    """Take over from `flashcp_cli.start`; what is ignored, or left to the system, stays so."""
    answer = _Answer()
    for number in (signal.SIGINT, signal.SIGTERM):
        if callable(signal.getsignal(number)):
            signal.signal(number, answer)


def ignore_more() -> None:
    """Let a second Ctrl-C pass: all that is left is to wait for workers that end already.

    Python would print a traceback of the wait, which is at its own exit.
    """
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _would_be_lost(frame: FrameType | None) -> bool:
    """Tell whether LLVM called this, or Python on its own, as it does when an object goes."""
    while frame is not None:
        name = frame.f_code.co_name
        if name == "__del__" or name.startswith("_raw_object_cache"):  # llvmlite's callbacks
            return True
        frame = frame.f_back
    return False

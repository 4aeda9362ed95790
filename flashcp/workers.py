"""Worker processes that leave Ctrl-C to the process that started them.

A terminal sends the interrupt to every process of the group, and each would print a traceback of
its own. A process inherits blocked signals, so they are blocked around the start of a worker: the
parent gets its interrupt a moment later, the worker never does and ends when its pool does.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_interrupts() -> Iterator[None]:
    """Start processes inside this block, and they will not be interrupted from the terminal."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread gets interrupts
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def killed(what: str = "killed") -> ChildProcessError:
    """Return the error of a worker that the system ended, with the way out."""
    return ChildProcessError(
        f"a worker process was {what}, perhaps for want of memory: use fewer --processes"
    )

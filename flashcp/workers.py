"""Worker processes that end with the process that started them, and when it has been interrupted.

A terminal sends the interrupt to every process of the group, and each would print a traceback of
its own. A process inherits blocked signals, so they are blocked around the start of a worker: the
parent gets its interrupt a moment later, the worker never does. What it learns of it comes through
a `Line` instead, a pipe that the parent alone holds open: once it is cut, a worker ends its work
before the next pack, where it would else finish its block (a quarter of a minute of Ctrl-C at 20
times the default effort). A parent that is killed outright leaves no pool behind that could end its
workers; they notice by themselves.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from concurrent.futures import ProcessPoolExecutor

_stopped = threading.Event()  # in a worker: the line has been cut


class Stopped(Exception):  # noqa: N818 - nothing is wrong, and nobody is told
    """The process that started this one wants no more results."""


class Line:
    """What the workers of a pool hang on; starts them, and tells them when to stop.

    Attributes:
        theirs: the workers' end, for the pool's `initargs`.
    """

    def __init__(self) -> None:
        self.theirs, self._ours = multiprocessing.get_context("spawn").Pipe(duplex=False)

    def end(self, pool: "ProcessPoolExecutor") -> None:
        """Have the workers of `pool` stop before their next pack, and wait until they have.

        Waited for, because processes that are just starting would find their pool's semaphores gone
        and say so; and undisturbed, because an interrupt in the wait would leave them for ever.
        """
        with _undisturbed():
            self._ours.close()  # those that have nothing to do just end
            pool.shutdown(wait=True, cancel_futures=True)


def hang_on(line: Connection, begin: Callable[..., Any], *arguments: Any) -> None:
    """Begin a worker: watch `line`, then call `begin`.

    Args:
        line: `Line.theirs`.
        begin: what the worker needs to do first.
        arguments: of `begin`.
    """
    threading.Thread(target=_watch, args=(line,), daemon=True).start()
    with suppress(Stopped):
        begin(*arguments)


def stop_if_asked() -> None:
    """Leave the work here where the line has been cut; costs nothing otherwise.

    Raises:
        Stopped: the results are wanted no more.
    """
    if _stopped.is_set():
        raise Stopped


def _watch(line: Connection) -> None:
    with suppress(EOFError, OSError):
        line.recv_bytes()  # nothing is ever sent
    _stopped.set()
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # it was killed, and nobody else would end us


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


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Ignore interrupts inside this block."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread gets interrupts
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL if before is None else before)

"""Where blocks run: on this machine's processes, or on anything that maps tasks.

Local processes are started afresh rather than forked (a fork of a process with threads may hang)
and get the job once. A process that is killed, as the kernel does when memory runs out, takes the
pool with it; the blocks in flight are then run on a new pool, and only a pool that dies twice
without finishing a block is given up.
"""

import multiprocessing
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from flashcp.comparison import usable_cores
from flashcp.simulation.block import Job
from flashcp.workers import Line, hang_on, killed, without_interrupts

_job: Job | None = None  # in a worker process: what `_start` was given


@dataclass(frozen=True, eq=False, kw_only=True)
class Task:
    """One block to compute.

    Attributes:
        cell: its configuration's place in the sweep.
        block: its place among that configuration's blocks.
        first_pack: its first pack.
        packs: document lengths of each pack, int32 [documents].
    """

    cell: int
    block: int
    first_pack: int
    packs: list[NDArray[np.int32]]


class Engine(Protocol):
    """What runs tasks; results come in any order."""

    def map(
        self, job: Job, tasks: Iterable[Task], count: int
    ) -> Iterator[tuple[Task, NDArray[np.float64]]]:
        """Yield every one of `count` tasks with its rows; raises OSError if it cannot."""
        ...


class LocalEngine:
    """Processes on this machine."""

    def __init__(self, processes: int | None = None) -> None:
        """Use so many processes; one a usable core by default."""
        self.processes = processes or usable_cores()

    def map(
        self, job: Job, tasks: Iterable[Task], count: int
    ) -> Iterator[tuple[Task, NDArray[np.float64]]]:
        """Yield every task with its rows.

        Raises:
            ChildProcessError: processes were killed twice without finishing a block in between.
        """
        todo = iter(tasks)
        if min(self.processes, count) <= 1:
            for task in todo:
                yield task, job.run(task.cell, task.packs)
            return
        waiting: list[Task] = []
        deaths = 0
        # One block before there are more processes that would each compile the same kernels. Not in
        # this process, which never needs them: they are 150 MB.
        ahead = 1
        while True:
            line = Line()
            pool = ProcessPoolExecutor(
                min(self.processes, count),
                mp_context=multiprocessing.get_context("spawn"),
                initializer=hang_on,
                initargs=(line.theirs, _start, job),
            )
            pending: dict[Future[NDArray[np.float64]], Task] = {}
            try:
                while True:
                    waiting += islice(todo, max(ahead - len(pending) - len(waiting), 0))
                    with without_interrupts():  # a pool may start a process whenever work comes
                        while waiting and len(pending) < ahead:
                            # Fails where the pool has just died; then the task still waits.
                            future = pool.submit(_run, waiting[0].cell, waiting[0].packs)
                            pending[future] = waiting.pop(0)
                    if not pending:
                        return
                    for done in wait(pending, return_when=FIRST_COMPLETED).done:
                        rows = done.result()
                        yield pending.pop(done), rows
                        deaths, ahead = 0, 2 * self.processes
            except BrokenProcessPool as error:
                deaths += 1
                waiting = [*pending.values(), *waiting]
                if deaths == 2:
                    raise killed("killed twice") from error
            finally:
                line.end(pool)  # Ctrl-C or an error: what has not begun need not


def _start(job: Job) -> None:
    global _job  # noqa: PLW0603 - a worker process has one job
    _job = job


def _run(cell: int, packs: list[NDArray[np.int32]]) -> NDArray[np.float64]:
    assert _job is not None  # noqa: S101 - for the type checker
    return _job.run(cell, packs)

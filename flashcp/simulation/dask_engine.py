"""Blocks on the workers of a Dask cluster, for sweeps that outgrow one machine.

Dask rather than Ray: blocks are independent and take seconds, so neither actors nor shared memory
would help; Dask is pure Python, needs no daemon beside its own scheduler, and already runs under
Slurm, Kubernetes and MPI. Its scheduler gives the blocks of a worker that dies to another. Blocks
are the same as on one machine and come back as they end, so the results are the same byte for byte
(tested with a worker killed half-way). Workers should have one thread each (`--nthreads 1`): blocks
hold Python's lock.
"""

import logging
from collections.abc import Iterable, Iterator
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flashcp.errors import PlanError
from flashcp.simulation.block import Job
from flashcp.simulation.engines import Task

_TIMEOUT_S = 10


class DaskEngine:
    """A Dask cluster, by its scheduler's address."""

    def __init__(self, address: str) -> None:
        """Take the cluster whose scheduler listens at `address` (host:port).

        Raises:
            PlanError: the library is not installed.
        """
        if find_spec("distributed") is None:
            raise PlanError("--cluster needs distributed: pip install 'flashcp[cluster]'")
        self.address = address

    def map(
        self, job: Job, tasks: Iterable[Task], count: int
    ) -> Iterator[tuple[Task, NDArray[np.float64]]]:
        """Yield every task with its rows, as they end.

        Raises:
            PlanError: no scheduler answers, it has no workers, or they have another flashcp.
            ChildProcessError: a block's workers were killed again and again.
        """
        distributed: Any = import_module("distributed")  # an optional extra
        # It logs tracebacks of what it raises, too; what users need is in the exceptions.
        logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
        client = self._connect(distributed)
        try:
            # A task rather than scattered data: what a dead worker held is then made again.
            shared = client.submit(_same, job, key=f"flashcp-job-{id(job)}", pure=False)
            todo = iter(tasks)
            running: dict[Any, Task] = {}
            ahead = min(count, 4 * sum(client.nthreads().values()))

            def submit(number: int) -> list[Any]:
                started = []
                for task in islice(todo, number):
                    future = client.submit(_run, shared, task.cell, task.packs, pure=False)
                    running[future] = task
                    started.append(future)
                return started

            done = distributed.as_completed(submit(ahead), loop=client.loop)
            for future in done:
                rows = future.result()
                task = running.pop(future)
                for more in submit(1):
                    done.add(more)
                yield task, rows
        except distributed.KilledWorker as error:
            raise ChildProcessError(
                "workers of the cluster were killed again and again, perhaps for want of memory"
            ) from error
        # Whichever of its threads notices first: the futures, or what is just being said.
        except (distributed.CancelledError, distributed.comm.CommClosedError) as error:
            raise ChildProcessError(f"the cluster at {self.address} went away") from error
        finally:
            client.close()

    def _connect(self, distributed: Any) -> Any:
        try:
            # A client that fails over this never ends: it says so, in tracebacks, after 20 s.
            distributed.comm.get_address_host_port(self.address)
        except ValueError as error:
            raise PlanError(
                f"{self.address!r} is no address of a Dask scheduler ({error}); give host:port, "
                "such as 10.0.0.1:8786"
            ) from error
        try:
            client = distributed.Client(self.address, timeout=_TIMEOUT_S, set_as_default=False)
        except (OSError, ValueError) as error:
            raise PlanError(
                f"no Dask scheduler answers at {self.address!r}; start one with: dask scheduler"
            ) from error
        workers = client.nthreads()
        if not workers:
            client.close()
            raise PlanError(
                f"the cluster at {self.address} has no workers; start some with: dask worker "
                f"{self.address} --nthreads 1"
            )
        ours = version("flashcp")
        for worker, theirs in client.run(version, "flashcp", on_error="return").items():
            if theirs != ours:
                client.close()
                found = theirs if isinstance(theirs, str) else "none"
                raise PlanError(
                    f"worker {worker} has flashcp {found}, not {ours}; install it there"
                )
        return client


def _same(job: Job) -> Job:
    return job


def _run(job: Job, cell: int, packs: list[NDArray[np.int32]]) -> NDArray[np.float64]:
    return job.run(cell, packs)

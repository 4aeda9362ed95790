"""Starts a job's ranks on this machine by torch's elastic launcher, and reads what became of it.

The job travels in a temporary folder, results and faults come back in it, and so does whatever the
workers print, which is shown to nobody unless asked for. The launcher ends every worker as soon as
one fails; which one was at fault is told by, in this order, a rank that noticed a hang, a signal
that killed a rank, and the first rank that wrote down its own error.
"""

import json
import logging
import os
import signal
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from executor.calls import call
from executor.errors import RunError
from executor.worker import LAUNCHER, RESULTS, output_name

_WORKER = ("-m", "executor.worker")
_SHUTDOWN_S = 5
_HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)  # by the launcher


class Launched(Protocol):
    """What the launcher needs of a job: how many ranks, and its way into a folder."""

    @property
    def cp(self) -> int:
        """Ranks to start."""

    def save(self, folder: Path) -> None:
        """Write it where the ranks find it."""


def launch(job: Launched, worker: Sequence[str] = _WORKER) -> dict[str, Any]:
    """Run a job on as many processes of this machine as its plans have ranks.

    Args:
        job: what to run.
        worker: Python's arguments that start one rank; the job's folder follows them.

    Returns:
        The results, as `executor.worker.run_job`'s.

    Raises:
        RunError: a rank failed; one line that names it and the cause.
        KeyboardInterrupt: the run was interrupted; every worker has ended. So it is with what this
            process's own handlers make of other signals.
    """
    # Whatever the launcher would say of a failed rank, we say it in one line ourselves.
    for logger in list(logging.root.manager.loggerDict):
        if logger.startswith("torch.distributed.elastic"):
            logging.getLogger(logger).setLevel(logging.CRITICAL + 1)
    with tempfile.TemporaryDirectory(prefix=f"flashcp-run-{os.getpid()}-") as name:
        folder = Path(name)
        job.save(folder)
        (folder / LAUNCHER).write_text(str(os.getpid()))
        config = call(
            LaunchConfig,
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=job.cp,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            max_restarts=0,
            monitor_interval=0.1,
            shutdown_timeout=_SHUTDOWN_S,
            logs_specs=DefaultLogsSpecs(log_dir=str(folder)),
        )
        try:
            with _own_handlers():
                elastic_launch(config, sys.executable)(*worker, str(folder))
        except ChildFailedError as error:
            raise RunError(_why(folder, error)) from error
        except SignalException as error:
            if callable(signal.getsignal(error.sigval)):
                signal.raise_signal(error.sigval)
            raise RunError(f"stopped by {signal.Signals(error.sigval).name}") from error
        results: dict[str, Any] = json.loads((folder / RESULTS).read_text())
        return results


@contextmanager
def _own_handlers() -> Iterator[None]:
    """Put this process's handlers of signals back afterwards.

    The launcher's stay otherwise, and turn a Ctrl-C of whatever comes after it into an error.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread has handlers, and the launcher leaves them alone
        return
    before = {number: signal.getsignal(number) for number in _HANDLED}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _why(folder: Path, error: ChildFailedError) -> str:
    """Return the one line that says which rank failed and why."""
    faults = sorted(
        (json.loads(path.read_text()) for path in folder.glob("fault-*.json")),
        key=lambda fault: float(fault["when"]),
    )
    for fault in faults:
        if fault["kind"] == "hang":
            return str(fault["line"])
    wrote = {fault["rank"] for fault in faults}
    for rank, failure in sorted(error.failures.items()):
        # The launcher itself ends the others by SIGTERM.
        if failure.exitcode < 0 and rank not in wrote and -failure.exitcode != signal.SIGTERM:
            name = signal.Signals(-failure.exitcode).name
            hint = " (out of host memory?)" if name == "SIGKILL" else ""
            return f"rank {rank} was killed by {name}{hint}"
    for fault in faults:
        line = str(fault["line"])
        return line if line.startswith("rank ") else f"rank {fault['rank']}: {line}"
    rank, failure = error.get_first_failure()
    return f"rank {rank} ended with status {failure.exitcode}{_last_words(folder, rank)}"


def _last_words(folder: Path, rank: int) -> str:
    """Return the last line that a rank printed."""
    path = folder / output_name(rank)
    lines = path.read_text(errors="replace").strip().splitlines() if path.exists() else []
    return f": {lines[-1]}" if lines else ""

"""Notices ranks that hang, and says which.

Every rank notes when it last got on, and whether it now waits for others or works by itself. A
thread of its own looks at that note. When a rank has not got on for the time allowed, it tells the
others so through the group's store, hears what they have to say, and ends the process: ranks that
were working by themselves, or do not answer at all, are the ones at fault; those that waited for
others are not. Another thread ends a worker whose launcher has died, so that none is left behind.
"""

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

_POLL_S = 0.2
_HEARING_S = 2.0
_ENDING_S = 5.0  # what hearing the others and ending every process may take


class Progress:
    """One rank's note of how far it is.

    Attributes:
        stage: what it is doing.
    """

    def __init__(
        self,
        store: "Store",
        rank: int,
        ranks: int,
        *,
        timeout_s: float,
        on_hang: Callable[[str], None],
    ) -> None:
        """Begin to watch.

        Args:
            store: shared by the ranks; used by the watching thread alone.
            rank: this rank.
            ranks: how many there are.
            timeout_s: within which a rank that no longer gets on must have ended the run.
            on_hang: told which rank hangs and in what, before the process ends.
        """
        self.stage = "starting"
        self._store, self._rank, self._ranks = store, rank, ranks
        self._timeout_s, self._on_hang = timeout_s, on_hang
        self._patience_s = max(timeout_s - _ENDING_S, timeout_s / 2)
        self._steps, self._waiting = 0, False
        self._when = time.monotonic()
        store.set(f"flashcp/process/{rank}", f"{socket.gethostname()} {os.getpid()}")
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def at(self, stage: str) -> None:
        """Note that a stage begins."""
        self.stage = stage
        self._step()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Note that what runs inside waits for other ranks or for the device."""
        self._waiting = True
        self._step()
        yield
        self._waiting = False
        self._step()

    def end(self) -> None:
        """Stop watching."""
        self._ended.set()
        self._thread.join()

    def _step(self) -> None:
        self._steps += 1
        self._when = time.monotonic()

    def _watch(self) -> None:
        while not self._ended.wait(_POLL_S):
            if time.monotonic() - self._when > self._patience_s:
                self._on_hang(self._culprits())
                os._exit(1)

    def _culprits(self) -> str:
        mine: dict[str, Any] = {"steps": self._steps, "waiting": self._waiting, "stage": self.stage}
        said: dict[int, dict[str, Any]] = {self._rank: mine}
        with suppress(RuntimeError):  # a store that is gone: speak for this rank alone
            self._store.set(f"flashcp/hang/{self._rank}", json.dumps(mine))
            time.sleep(_HEARING_S)
            for rank in range(self._ranks):
                key = f"flashcp/hang/{rank}"
                if rank != self._rank and self._store.check([key]):
                    said[rank] = json.loads(self._store.get(key))
            silent = [rank for rank in range(self._ranks) if rank not in said]
            if silent:
                self._kill(silent)
                return self._line(silent, f"does not answer; others were in {mine['stage']}")
        busy = [rank for rank, note in said.items() if not note["waiting"]]
        fewest = min(note["steps"] for note in said.values())
        late = busy or [rank for rank, note in said.items() if note["steps"] == fewest]
        return self._line(late, f"hangs in {said[late[0]]['stage']}")

    def _kill(self, ranks: list[int]) -> None:
        """Kill ranks of this machine that do not even answer, as they would not heed SIGTERM."""
        for rank in ranks:
            host, process = self._store.get(f"flashcp/process/{rank}").decode().split()
            if host == socket.gethostname():
                with suppress(ProcessLookupError):
                    os.kill(int(process), signal.SIGKILL)

    def _line(self, ranks: list[int], what: str) -> str:
        names = ", ".join(f"rank {rank}" for rank in sorted(ranks))
        return f"{names} {what}: no progress within the {self._timeout_s:g} s of --timeout"


def end_with(parent: int) -> None:
    """End this process, from now on, when it is no longer a child of `parent`."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_POLL_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def group_timeout(timeout_s: float) -> timedelta:
    """Return the timeout of collectives: later than ours, which knows the rank at fault."""
    return timedelta(seconds=timeout_s + 60)

"""A worker in which one rank fails at timing a plan: python faulty_worker.py KIND RANK FOLDER."""

import os
import signal
import sys
import time
from pathlib import Path

from executor import measure, worker

FAULTS = {
    "raise": lambda: 1 / 0,
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "hang": lambda: time.sleep(600),
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),  # not even its watching thread runs
    "memory": lambda: (_ for _ in ()).throw(measure.torch.OutOfMemoryError("tried 9 GiB")),
}

if __name__ == "__main__":
    kind, faulty, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    timed = measure._timed

    def at_fault(local, handle, rank, ahead):
        if handle.rank == faulty:
            FAULTS[kind]()
        return timed(local, handle, rank, ahead)

    measure._timed = at_fault
    worker.main(folder)

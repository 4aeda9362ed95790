"""Packs planned over several processes: one of them killed ends the work in one line."""

import multiprocessing
import os
import signal

import pytest

from flashcp.comparison import compare
from flashcp.planning import default_setting
from traces import Trace, pack


def kill_a_worker(plan):
    if multiprocessing.parent_process() is not None:
        os.kill(os.getpid(), signal.SIGKILL)
    return 0.0


def test_a_killed_worker_is_one_line():
    packing = pack(Trace("t", [100] * 130), 100, seed=None)  # two blocks, so two processes
    with pytest.raises(ChildProcessError, match=r"was killed.*fewer --processes"):
        compare(
            packing,
            2,
            ("per-seq",),
            default_setting(),
            inspect={"per-seq": kill_a_worker},
            processes=2,
        )

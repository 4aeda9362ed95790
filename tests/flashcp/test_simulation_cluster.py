"""A sweep on a Dask cluster gives the same bytes as on one machine, killed workers or not."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from costmodel import load_model, load_profile
from flashcp.errors import PlanError
from flashcp.simulation.engines import LocalEngine
from flashcp.simulation.run import BLOCK_PACKS, simulate
from flashcp.simulation.sweep import Sweep
from traces import load

distributed = pytest.importorskip("distributed")
from flashcp.simulation.dask_engine import DaskEngine  # noqa: E402

pytestmark = pytest.mark.filterwarnings("default")  # not ours to fix

SWEEP = Sweep(
    traces=[load("wlb-llm")],
    context_tokens=[8192],
    cp=[2, 4],
    strategies=("per-seq", "flashcp"),
    profiles=[load_profile("h100-sxm")],
    models=[load_model("llama3-8b")],
    packs=6 * BLOCK_PACKS + 1,
)


@pytest.fixture(scope="module")
def cluster():
    with started() as found:
        yield found


@contextmanager
def started():
    """A scheduler and two workers as a user would start them, each a process of its own."""
    dask = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
    processes = []

    def start(*words):
        process = subprocess.Popen(
            [*map(str, words)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        processes.append(process)
        return process

    scheduler = start(*dask, "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
    address = None
    for line in scheduler.stderr:
        if "Scheduler at:" in line:
            address = line.split()[-1]
            break
    assert address

    def worker():
        return start(
            sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1",
            "--no-nanny", "--no-dashboard", "--host", "127.0.0.1",
        )  # fmt: skip

    workers = [worker(), worker()]
    with distributed.Client(address, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=60)
    try:
        yield address, workers, scheduler
    finally:
        for process in processes:
            process.kill()
            process.communicate()


ORPHAN = """
import os, signal, sys
from flashcp.simulation import dask_engine, run
from tests.flashcp.test_simulation_cluster import SWEEP

dask_engine._TIMEOUT_S = 2
killed = []

def advance(packs):
    if not killed:
        killed.append(os.kill(int(sys.argv[2]), signal.SIGKILL))

try:
    engine = dask_engine.DaskEngine(sys.argv[1])
    run.simulate(SWEEP, run.Path(sys.argv[3]), engine=engine, begin=lambda done, all: advance)
except OSError as error:
    sys.exit(str(error))
"""


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    out = tmp_path_factory.mktemp("alone") / "rows.parquet"
    simulate(SWEEP, out, engine=LocalEngine(1))
    return out.read_bytes()


def test_a_cluster_gives_the_same_bytes(cluster, alone, tmp_path):
    simulate(SWEEP, tmp_path / "rows.parquet", engine=DaskEngine(cluster[0]))
    assert (tmp_path / "rows.parquet").read_bytes() == alone


def test_a_worker_killed_half_way_changes_nothing(cluster, alone, tmp_path):
    address, workers, _ = cluster
    killed = []

    def advance(_packs):
        if not killed:
            os.kill(workers[0].pid, signal.SIGKILL)
            killed.append(time.monotonic())

    simulate(SWEEP, tmp_path / "rows.parquet", engine=DaskEngine(address),
             begin=lambda _done, _all: advance)  # fmt: skip
    assert workers[0].wait(10) == -signal.SIGKILL
    assert killed
    assert (tmp_path / "rows.parquet").read_bytes() == alone


def test_a_cluster_that_goes_away_is_one_line_and_costs_nothing(tmp_path):
    out = tmp_path / "rows.parquet"
    with started() as (address, _, scheduler):
        done = subprocess.run(
            [sys.executable, "-c", ORPHAN, address, str(scheduler.pid), str(out)],
            capture_output=True, text=True, timeout=90, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    told = r"the cluster at \S+ went away; what was computed is kept: run again to go on"
    assert re.fullmatch(rf".*rows\.parquet: {told}\n", done.stderr)
    assert list(tmp_path.rglob("0*.parquet"))


def test_no_scheduler_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr("flashcp.simulation.dask_engine._TIMEOUT_S", 1)
    with pytest.raises(PlanError, match=r"no Dask scheduler answers at '127\.0\.0\.1:9'"):
        simulate(SWEEP, tmp_path / "rows.parquet", engine=DaskEngine("127.0.0.1:9"))


@pytest.mark.parametrize("address", ["nowhere", "", "nowhere:port", "http://nowhere:80"])
def test_what_is_no_address_is_one_line(tmp_path, address):
    with pytest.raises(PlanError, match=rf"^'{address}' is no address .*; give host:port"):
        simulate(SWEEP, tmp_path / "rows.parquet", engine=DaskEngine(address))


def test_without_the_library_it_is_one_line(monkeypatch):
    monkeypatch.setattr("flashcp.simulation.dask_engine.find_spec", lambda _: None)
    with pytest.raises(PlanError, match=r"pip install 'flashcp\[cluster\]'"):
        DaskEngine("127.0.0.1:8786")

"""Started ranks: results, and that any fault ends all of them with one line that names the rank."""

import os
import signal
import subprocess
import time
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from costmodel.model_shape import ModelShape
from executor import RunError
from executor.job import Job, Options, load_job
from executor.launch import launch
from executor.verify import NAMES
from flashcp.exchange import Exchange
from flashcp.plans import Plan
from flashcp.strategies import shard

HUNG = ": no progress within the 8 s of --timeout"
FAULTY = str(Path(__file__).with_name("faulty_worker.py"))
MODEL = ModelShape(name="small", q_heads=4, kv_heads=2, head_dim=16, dtype="float32")


def job(timeout_s=60.0, **options):
    plan = shard(np.array([200, 90, 30]), 2, "flashcp")
    settings = {"dtype": "float32", "device": "cpu", "warmups": 0, "repetitions": 2, **options}
    return Job(
        names=("flashcp",),
        plans=(plan,),
        model=MODEL,
        options=Options(timeout_s=timeout_s, **settings),
    )


def workers_left():
    found = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    mine = [line for line in found.stdout.splitlines() if f"flashcp-run-{os.getpid()}" in line]
    return [line for line in mine if "worker" in line]


def test_a_job_survives_the_way_to_its_ranks(tmp_path):
    sent = job()
    two = Exchange.ALL_TO_ALL_TWO_LEVEL
    parts = replace(sent.plans[0], exchange=two, overlap=True, ranks_per_node=2, head_chunks=4)
    sent = replace(sent, names=("flashcp", "parts"), plans=(*sent.plans, parts))
    sent.save(tmp_path)
    got = load_job(tmp_path)
    assert (got.names, got.model, got.options) == (sent.names, sent.model, sent.options)
    for plan, original in zip(got.plans, sent.plans, strict=True):
        assert plan.fingerprint == original.fingerprint
        for field in fields(Plan):
            assert np.array_equal(getattr(plan, field.name), getattr(original, field.name))


def test_a_run_of_kv_in_parts_waits_for_each():
    one = job()
    plan = replace(one.plans[0], exchange=Exchange.ALL_TO_ALL_NEEDED, overlap=True, head_chunks=2)
    rows = launch(replace(one, plans=(plan,)))["plans"]["flashcp"]
    assert rows[0]["verification"]["passed"]
    assert rows[0]["verification"]["kv_heads"] == 2
    for row in rows:
        for direction, name in (("forward", "KV"), ("backward", "dKV")):
            waits = [piece for piece in row["pieces"][direction] if piece[:2] == ["exchange", name]]
            assert len(waits) == 2


def test_the_launchers_signal_handlers_go_with_its_ranks():
    """A Ctrl-C while results are saved would be an error of the launcher's otherwise."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
    before = [signal.getsignal(number) for number in numbers]
    launch(job())
    assert [signal.getsignal(number) for number in numbers] == before


def test_a_run_verifies_itself_and_brings_back_every_rank():
    results = launch(job())
    rows = results["plans"]["flashcp"]
    assert [row["rank"] for row in rows] == [0, 1]
    assert sum(row["tokens"] for row in rows) == 320
    verification = rows[0]["verification"]
    assert verification["passed"]
    assert verification["leaked"] == 0
    assert all(0 < verification["errors"][name] <= 1e-5 for name in NAMES)
    for row in rows:
        assert len(row["forward_us"]) == len(row["backward_us"]) == 2
        assert row["parts"]["forward"]["forward"][0] > 0
        assert row["parts"]["backward"]["backward"][0] > 0
    assert results["environment"]["backend"] == "gloo"
    assert workers_left() == []


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("raise", "rank 1: ZeroDivisionError: division by zero"),
        ("kill", "rank 1 was killed by SIGKILL (out of host memory?)"),
        ("hang", "rank 1 hangs in timing flashcp, repetition 0"),
        (
            "stop",
            "rank 1 does not answer; others were in timing flashcp, repetition 0",
        ),
        ("memory", "rank 1: ran out of GPU memory: tried 9 GiB"),
    ],
)
def test_a_fault_ends_the_run_in_time_naming_the_rank_and_the_cause(kind, line):
    began = time.monotonic()
    with pytest.raises(RunError) as error:
        launch(job(timeout_s=8.0 if kind in ("hang", "stop") else 60.0), (FAULTY, kind, "1"))
    assert str(error.value) == line + (HUNG if kind in ("hang", "stop") else "")
    assert time.monotonic() - began < 30  # starting, and the time allowed after the last progress
    assert workers_left() == []

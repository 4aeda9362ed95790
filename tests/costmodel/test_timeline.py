"""Clocks advance as queues and waits say; the picture shows what was queued."""

import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from costmodel.timeline import Kind, Stream, Timeline

times = st.lists(st.floats(0, 1e6), min_size=3, max_size=3).map(np.array)


def test_work_on_one_stream_queues():
    line = Timeline(2)
    line.run(Kind.FORWARD, "a", np.array([1.0, 5.0]))
    end = line.run(Kind.FORWARD, "b", np.array([2.0, 2.0]))
    assert end.tolist() == [3.0, 7.0]
    assert line.total_us == 7.0


def test_streams_overlap_unless_told_to_wait():
    line = Timeline(1)
    a = line.run(Kind.FORWARD, "a", np.array([5.0]))
    line.run(Kind.COPIES, "b", np.array([3.0]), stream=Stream.EXCHANGE)
    assert line.total_us == 5.0
    line.run(Kind.COPIES, "c", np.array([3.0]), stream=Stream.EXCHANGE, after=a)
    assert line.total_us == 8.0


@given(arrive=times, us=st.floats(0, 1e6))
def test_a_collective_waits_for_the_last_rank(arrive, us):
    line = Timeline(3)
    ready = line.run(Kind.FORWARD, "a", arrive)
    end = line.collective("KV", us, after=ready)
    assert (end == arrive.max() + us).all()


def test_a_ring_step_waits_for_both_ends():
    line = Timeline(3)
    ready = line.run(Kind.FORWARD, "a", np.array([0.0, 10.0, 3.0]))
    end = line.pass_on("KV", 2.0, after=ready)
    # Rank r receives from r - 1: rank 1 and rank 2 both wait for rank 1.
    assert end.tolist() == [5.0, 12.0, 12.0]


@given(a=times, b=times)
def test_a_barrier_puts_every_rank_in_step(a, b):
    line = Timeline(3)
    line.run(Kind.FORWARD, "a", a)
    line.run(Kind.COPIES, "b", b, stream=Stream.EXCHANGE)
    line.barrier()
    assert (line.ends_us == max(a.max(), b.max())).all()


def test_the_chrome_trace_holds_every_entry_of_every_rank_and_survives_json():
    line = Timeline(2)
    ready = line.run(Kind.FORWARD, "attention", np.array([1.0, 0.0]))
    line.collective("KV", 2.0, after=ready)
    trace = json.loads(json.dumps(line.chrome_trace(), allow_nan=False))
    work = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    assert [(e["pid"], e["name"], e["ts"], e["dur"]) for e in work] == [
        (0, "attention", 0.0, 1.0),  # rank 1 had nothing to do
        (0, "KV", 1.0, 2.0),
        (1, "KV", 1.0, 2.0),
    ]
    assert trace["distributedInfo"] == {"rank": 0}

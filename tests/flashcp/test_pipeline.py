"""Attention beside an exchange in parts: no later than it must be, no earlier than it can."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costmodel.profile_file import load_profile
from flashcp import pipeline
from flashcp.errors import PlanError
from flashcp.exchange import Exchange
from flashcp.strategies import shard

H100 = load_profile("h100-sxm")
ALONE = replace(H100, overlap_factor=replace(H100.overlap_factor, value=1.0))
RANKS = 3
times = st.lists(st.floats(0, 1000), min_size=RANKS, max_size=RANKS).map(np.array)
WAYS = {"forward": pipeline.forward, "backward": pipeline.backward}
chunked = st.sampled_from([1, 2, 3, 4, 8])


@pytest.mark.parametrize("way", WAYS)
@given(own=times, rest=times, copies=st.tuples(times, times, times), exchange=st.floats(0, 3000),
       chunks=chunked, began=st.floats(0, 100))  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_ranks_do_all_their_work_and_wait_no_longer_than_for_the_exchange(
    way, own, rest, copies, exchange, chunks, began
):
    run = WAYS[way]((own, rest / chunks), exchange, chunks, copies, ALONE, began)
    work = own + rest + sum(copies)
    assert run.attention == pytest.approx(own + rest)
    assert (run.ends >= began + work - 1e-6).all()
    assert run.ends.max() >= began + exchange - 1e-6
    assert run.ends.max() <= began + exchange + 2 * work.max() + 1e-6
    slower = WAYS[way]((own, rest / chunks), exchange, chunks, copies, H100, began)
    assert (slower.ends >= run.ends - 1e-6).all()
    assert (slower.attention <= run.attention * H100.overlap_factor.value + 1e-6).all()


@pytest.mark.parametrize("way", WAYS)
@given(own=times, rest=times, exchange=st.floats(0, 3000), chunks=chunked)
@settings(max_examples=80, deadline=None)
def test_halving_the_parts_never_ends_later(way, own, rest, exchange, chunks):
    copies = (np.zeros(RANKS),) * 3
    ends = [
        WAYS[way]((own, rest / n), exchange, n, copies, ALONE).ends.max()
        for n in (chunks, 2 * chunks)
    ]
    assert ends[1] <= ends[0] + 1e-6


@pytest.mark.parametrize("way", WAYS)
def test_prefixes_hide_what_own_keys_do_not(way):
    copies = (np.zeros(RANKS),) * 3
    own, rest = np.full(RANKS, 10.0), np.full(RANKS, 300.0)
    ends = [WAYS[way]((own, rest / n), 200.0, n, copies, ALONE).ends.max() for n in (1, 2, 4)]
    # All of the exchange but what own keys hide; half of it less that; a quarter.
    assert ends == pytest.approx([500, 400, 350])


def test_parts_want_overlap_and_needed_keys():
    made = shard([500, 70], 2, "flashcp")
    needed = replace(made, exchange=Exchange.ALL_TO_ALL_NEEDED, overlap=True)
    assert replace(needed, head_chunks=4).chunks(6) == 2
    assert replace(needed, head_chunks=4).chunks(8) == 4
    assert needed.chunks(8) == 1
    assert len({replace(needed, head_chunks=n).fingerprint for n in (1, 2, 4)}) == 3
    for wrong in (made, replace(made, overlap=True), replace(needed, overlap=False)):
        with pytest.raises(PlanError, match="2 head chunks want overlap and"):
            replace(wrong, head_chunks=2)
    with pytest.raises(PlanError, match="head chunks 0"):
        replace(needed, head_chunks=0)

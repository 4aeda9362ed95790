"""Attention and an exchange side by side: what each loses, and that every prediction counts it."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costmodel import load_model, load_profile
from flashcp.copied import LANDING
from flashcp.exchange import Exchange
from flashcp.overlap import side_by_side
from flashcp.parts import predict_parts
from flashcp.prediction import Setting, predict
from flashcp.search.evaluate import options
from flashcp.strategies import STRATEGIES, shard
from tests.flashcp.packs import cp_degrees, lengths

H100 = load_profile("h100-sxm")
factors = st.floats(1.0, 4.0)
times = st.floats(0.0, 1e5)


def slowing(attention, exchange):
    return replace(
        H100,
        overlap_factor=replace(H100.overlap_factor, value=attention),
        exchange_overlap_factor=replace(H100.exchange_overlap_factor, value=exchange),
    )


def walked(attention_us, exchange_us, attention_factor, exchange_factor):
    """Return both ends, from the rates at which both proceed until the first has ended."""
    beside = min(attention_us * attention_factor, exchange_us * exchange_factor)
    left = (attention_us - beside / attention_factor, exchange_us - beside / exchange_factor)
    return beside + left[0], beside + left[1]


@given(times, times, factors, factors)
def test_the_first_to_end_is_slowed_all_the_way_and_the_other_until_then(a, x, f, g):
    attention, exchange = side_by_side(np.array([a, a / 3]), x, slowing(f, g))
    expected = walked(a, x, f, g)
    assert attention[0] == pytest.approx(expected[0], abs=1e-6)
    assert float(exchange) == pytest.approx(expected[1], abs=1e-6)
    assert a / 3 <= attention[1] * (1 + 1e-12)
    assert attention[1] <= attention[0] + 1e-9


@given(times, factors, factors)
def test_without_an_exchange_nothing_is_slowed(a, f, g):
    attention, exchange = side_by_side(np.array([a]), 0.0, slowing(f, g))
    assert (attention[0], float(exchange)) == (a, 0.0)
    attention, exchange = side_by_side(np.zeros(2), a, slowing(f, g))
    assert (attention.max(), float(exchange)) == (0.0, a)


@given(
    pack=lengths(12),
    cp=cp_degrees(9),
    strategy=st.sampled_from(sorted(STRATEGIES)),
    exchange=st.sampled_from([None, *Exchange]),
    slowed=st.tuples(factors, factors),
    chunks=st.sampled_from([1, 2, 8]),
)
@settings(max_examples=60, deadline=None)
def test_sweeps_predict_slowed_exchanges_as_timelines_do(
    pack, cp, strategy, exchange, slowed, chunks
):
    made = shard(pack, cp, strategy)
    per_node = 2 if cp % 2 == 0 else 1
    if exchange not in (None, Exchange.RING):
        levels = per_node if exchange is Exchange.ALL_TO_ALL_TWO_LEVEL else None
        chunks = chunks if exchange in LANDING else 1
        made = replace(
            made, exchange=exchange, overlap=True, ranks_per_node=levels, head_chunks=chunks
        )
    setting = Setting(
        slowing(*slowed), load_model("llama3-8b"), ranks_per_node=per_node, copies="in-place"
    )
    quick, drawn = predict_parts(made, setting), predict(made, setting)
    assert quick.total_us == pytest.approx(drawn.total_us, rel=1e-12)
    unslowed = predict(made, replace(setting, profile=slowing(slowed[0], 1.0)))
    assert drawn.total_us >= unslowed.total_us * (1 - 1e-12)


@given(pack=lengths(12), cp=cp_degrees(9), slowed=st.tuples(factors, factors))
@settings(max_examples=40, deadline=None)
def test_the_search_predicts_slowed_exchanges_as_timelines_do(pack, cp, slowed):
    made = shard(pack, cp, "flashcp")
    setting = Setting(slowing(*slowed), load_model("llama3-8b"), copies="in-place")
    rows = np.stack([made.rank, made.document, made.start, made.stop], axis=1)
    for option in options(rows, made.lengths, cp, setting):
        plan = replace(
            made,
            exchange=option.exchange,
            overlap=option.overlap,
            head_chunks=option.head_chunks,
            bundled=option.bundled,
            ranks_per_node=option.ranks_per_node,
        )
        assert option.total_us == pytest.approx(predict(plan, setting).total_us, rel=1e-9)


def test_an_exchange_that_attention_hides_may_outlast_it_once_slowed():
    made = shard([60_000] + [1_000] * 5, 4, "flashcp")
    made = replace(made, exchange=Exchange.ALL_TO_ALL_NEEDED, overlap=True)
    setting = Setting(slowing(1.0, 1.0), load_model("paper-h32"), copies="in-place")
    totals = [
        predict(made, replace(setting, profile=slowing(1.0, factor))).total_us
        for factor in (1.0, 2.0, 4.0)
    ]
    assert totals == sorted(totals)
    assert totals[-1] > totals[0]

"""The quick sums of a sweep equal the predictions that draw a timeline."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costmodel import load_model, load_profile
from flashcp.copied import LANDING
from flashcp.exchange import Exchange
from flashcp.parts import Parts, predict_parts
from flashcp.plan_costs import PlanCosts
from flashcp.prediction import Setting, predict
from flashcp.strategies import STRATEGIES, shard
from tests.flashcp.packs import cp_degrees, lengths

SETTING = Setting(profile=load_profile("h100-sxm"), model=load_model("llama3-8b"))
JOINED = [e for e in Exchange if e not in (Exchange.RING, Exchange.ALL_TO_ALL_TWO_LEVEL)]


def same(plan, setting):
    quick, drawn = predict_parts(plan, setting), predict(plan, setting)
    assert quick.total_us == pytest.approx(drawn.total_us, rel=1e-12)
    for name in Parts.__dataclass_fields__:
        assert getattr(quick, name) == pytest.approx(
            getattr(drawn, name), rel=1e-9, abs=1e-9 * drawn.total_us
        ), name


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
@given(pack=lengths(12), cp=cp_degrees(9), copies=st.sampled_from(["published", "in-place"]))
@settings(max_examples=30, deadline=None)
def test_quick_parts_equal_the_timelines(strategy, pack, cp, copies):
    same(shard(pack, cp, strategy), replace(SETTING, copies=copies))


@given(
    pack=lengths(12),
    cp=cp_degrees(9),
    strategy=st.sampled_from(["per-seq", "per-doc", "flashcp"]),
    exchange=st.sampled_from(JOINED),
    overlap=st.booleans(),
    chunks=st.sampled_from([1, 2, 4, 8]),
)
@settings(max_examples=60, deadline=None)
def test_quick_parts_equal_the_timelines_under_every_exchange(
    pack, cp, strategy, exchange, overlap, chunks
):
    if not overlap or exchange not in LANDING:
        chunks = 1
    plan = replace(
        shard(pack, cp, strategy), exchange=exchange, overlap=overlap, head_chunks=chunks
    )
    same(plan, replace(SETTING, copies="in-place"))


@given(
    pack=lengths(12),
    nodes=st.integers(1, 4),
    per_node=st.integers(1, 4),
    strategy=st.sampled_from(sorted(STRATEGIES)),
    exchange=st.sampled_from([None, *Exchange]),
    overlap=st.booleans(),
    chunks=st.sampled_from([1, 2, 4, 8]),
)
@settings(max_examples=60, deadline=None)
def test_quick_parts_span_nodes(pack, nodes, per_node, strategy, exchange, overlap, chunks):
    plan = shard(pack, nodes * per_node, strategy)
    if exchange is not None and plan.exchange is not Exchange.RING:
        two_level = exchange is Exchange.ALL_TO_ALL_TWO_LEVEL
        plan = replace(
            plan,
            exchange=exchange,
            overlap=overlap and exchange is not Exchange.RING,
            ranks_per_node=per_node if two_level else None,
            head_chunks=chunks if overlap and exchange in LANDING else 1,
        )
    same(plan, replace(SETTING, ranks_per_node=per_node))


def test_the_rank_that_others_wait_for_is_attention_not_exchange():
    # One document in sequence: the last rank has most of the work, and nobody's dKV to add up.
    lengths_of_pack = np.array([131072], np.int32)
    plan = shard(lengths_of_pack, 8, "ring")
    plan = replace(plan, strategy="per-doc", exchange=Exchange.ALL_TO_ALL_NEEDED)
    setting = replace(SETTING, copies="in-place")
    costs = PlanCosts(plan, setting)
    busiest = sum(sum(costs.attention(d)).max() for d in ("forward", "backward"))
    same(plan, setting)
    parts = predict_parts(plan, setting)
    assert parts.forward_us + parts.backward_us == pytest.approx(busiest)
    assert parts.exchange_us < 0.2 * busiest

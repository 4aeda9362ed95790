"""`auto` makes valid plans, never slower than the other strategies', the same everywhere."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costmodel import ModelShape, load_model, load_profile
from flashcp.auto import auto_plan
from flashcp.bounds import lower_bound_us
from flashcp.errors import PlanError
from flashcp.exchange import Exchange
from flashcp.measures import measure
from flashcp.planning import default_setting
from flashcp.plans import Plan
from flashcp.prediction import Setting, predict
from flashcp.search.evaluate import options
from flashcp.strategies import STRATEGIES, shard
from tests.flashcp.packs import cp_degrees, lengths
from traces import load, pack

SETTING = default_setting()
FAST = 0.05  # enough steps to move pieces about
BALANCES = st.sampled_from([None, "work", "time"])


@given(pack=lengths(), cp=cp_degrees(), balance=BALANCES)
@settings(max_examples=80, deadline=None)
def test_plans_are_valid_and_canonical(pack, cp, balance):
    plan = auto_plan(pack, cp, SETTING, effort=FAST, balance=balance)
    plan.validate()
    keys = list(zip(plan.rank, plan.document, plan.start, strict=True))
    assert keys == sorted(keys)
    touching = (
        (plan.rank[1:] == plan.rank[:-1])
        & (plan.document[1:] == plan.document[:-1])
        & (plan.start[1:] == plan.stop[:-1])
    )
    assert not touching.any()


@given(
    pack=st.one_of(lengths(8), st.integers(5_000, 60_000).map(lambda n: np.array([n], np.int32))),
    cp=cp_degrees(8),
    hardware=st.sampled_from(["h100-sxm", "h200-sxm", "a100-sxm"]),
    heads=st.sampled_from([(12, 4, 256), (8, 8, 128), (32, 1, 64)]),
    copies=st.sampled_from(["published", "in-place"]),
    nodes=st.booleans(),
    balance=BALANCES,
)
@settings(max_examples=40, deadline=None)
def test_no_strategy_is_predicted_faster_the_way_it_runs(
    pack, cp, hardware, heads, copies, nodes, balance
):
    q_heads, kv_heads, head_dim = heads
    model = ModelShape(name="any", q_heads=q_heads, kv_heads=kv_heads, head_dim=head_dim)
    setting = Setting(load_profile(hardware), model, 1 if nodes else None, copies)
    best_us = predict(auto_plan(pack, cp, setting, effort=FAST, balance=balance), setting).total_us
    for strategy in STRATEGIES:
        other_us = predict(shard(pack, cp, strategy), setting).total_us
        assert best_us <= other_us * (1 + 1e-9), strategy


@given(pack=lengths(), cp=cp_degrees(8))
@settings(max_examples=40, deadline=None)
def test_options_are_predicted_as_predict_does(pack, cp):
    made = shard(pack, cp, "flashcp")
    rows = np.stack([made.rank, made.document, made.start, made.stop], axis=1)
    for option in options(rows, made.lengths, cp, SETTING):
        plan = replace(
            made,
            exchange=option.exchange,
            overlap=option.overlap,
            head_chunks=option.head_chunks,
            bundled=option.bundled,
            ranks_per_node=option.ranks_per_node,
            strategy="auto",
        )
        assert option.total_us == pytest.approx(predict(plan, SETTING).total_us, rel=1e-12)


@given(pack=lengths(), nodes=st.integers(2, 4), per_node=st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_options_on_nodes_are_predicted_and_measured_as_their_plans(pack, nodes, per_node):
    cp = nodes * per_node
    setting = replace(SETTING, ranks_per_node=per_node)
    made = shard(pack, cp, "flashcp")
    rows = np.stack([made.rank, made.document, made.start, made.stop], axis=1)
    found = options(rows, made.lengths, cp, setting)
    offers_two_levels = any(o.exchange is Exchange.ALL_TO_ALL_TWO_LEVEL for o in found)
    assert offers_two_levels == (per_node > 1)
    full = pack.sum() * (cp - 1) / cp
    for option in found:
        plan = replace(
            made,
            exchange=option.exchange,
            overlap=option.overlap,
            head_chunks=option.head_chunks,
            bundled=option.bundled,
            ranks_per_node=option.ranks_per_node,
            strategy="auto",
        )
        assert option.total_us == pytest.approx(predict(plan, setting).total_us, rel=1e-12)
        if option.bundled:
            # Only where posting every piece would hold the ranks up longer than packing them.
            pieces = predict(replace(plan, bundled=False), setting)
            assert pieces.total_us > option.total_us
            assert "post messages" in {entry.name for entry in pieces.timeline.entries}
        measured = measure(plan, per_node)
        assert option.across_tokens == measured.across_tokens
        if option.exchange in (Exchange.ALL_TO_ALL_NEEDED, Exchange.ALL_TO_ALL_TWO_LEVEL):
            assert option.moved_tokens == pytest.approx(measured.moved_share * full)


def test_a_document_over_two_nodes_crosses_once_in_two_levels():
    setting = replace(SETTING, ranks_per_node=8)
    zigzag = replace(shard([131_072], 16, "per-doc"), exchange=Exchange.ALL_TO_ALL_NEEDED)
    levels = replace(zigzag, exchange=Exchange.ALL_TO_ALL_TWO_LEVEL, ranks_per_node=8)
    assert measure(levels).across_tokens < measure(zigzag, 8).across_tokens / 7
    assert predict(levels, setting).total_us < predict(zigzag, setting).total_us


@given(
    pack=lengths(12),
    nodes=st.integers(2, 4),
    per_node=st.integers(1, 4),
    balance=st.sampled_from(["work", "time"]),
)
@settings(max_examples=30, deadline=None)
def test_knowing_the_nodes_never_makes_a_plan_slower(pack, nodes, per_node, balance):
    cp = nodes * per_node
    setting = replace(SETTING, ranks_per_node=per_node)
    blind = auto_plan(pack, cp, replace(SETTING, ranks_per_node=cp), balance=balance)
    knowing = predict(auto_plan(pack, cp, setting, balance=balance), setting).total_us
    # Half a percent may go into sending less.
    assert knowing <= predict(blind, setting).total_us * 1.005 * (1 + 1e-9)


@given(
    pack=st.one_of(lengths(10), st.integers(1, 400_000).map(lambda n: np.array([n], np.int32))),
    cp=cp_degrees(9),
    rule=st.sampled_from(sorted(STRATEGIES)),
    hardware=st.sampled_from(["h100-sxm", "h200-sxm", "a100-sxm"]),
    heads=st.sampled_from([(12, 4, 256), (8, 8, 128), (32, 1, 64), (32, 32, 128)]),
    per_node=st.sampled_from([1, None]),
)
@settings(max_examples=80, deadline=None)
def test_no_way_to_run_any_placement_is_below_the_bound(pack, cp, rule, hardware, heads, per_node):
    q_heads, kv_heads, head_dim = heads
    model = ModelShape(name="any", q_heads=q_heads, kv_heads=kv_heads, head_dim=head_dim)
    setting = Setting(load_profile(hardware), model, per_node, "in-place")
    made = shard(pack, cp, rule)
    rows = np.stack([made.rank, made.document, made.start, made.stop], axis=1)
    bound = lower_bound_us(made.lengths, cp, setting) * (1 - 1e-9)
    for option in options(rows, made.lengths, cp, setting):
        assert option.total_us >= bound, (option.exchange, option.overlap)


@given(pack=lengths(12), cp=cp_degrees(8), balance=BALANCES)
@settings(max_examples=30, deadline=None)
def test_the_bound_holds(pack, cp, balance):
    plan = auto_plan(pack, cp, SETTING, effort=FAST, balance=balance)
    assert predict(plan, SETTING).total_us >= lower_bound_us(pack, cp, SETTING) * (1 - 1e-9)


def outline(plan: Plan) -> list[tuple[int, int, int, int]]:
    sizes = plan.lengths[plan.document]
    return sorted(zip(plan.rank, sizes, plan.start, plan.stop, strict=True))


@pytest.mark.parametrize("balance", ["work", "time"])
def test_the_order_of_documents_does_not_change_the_placement(balance):
    pack = np.array([30_000, 17_000, 9_001, 4_000, 3_999, 801, 555, 33], dtype=np.int32)
    plans = [
        auto_plan(order, 4, SETTING, balance=balance)
        for order in (pack, pack[::-1], np.roll(pack, 3))
    ]
    assert outline(plans[0]) == outline(plans[1]) == outline(plans[2])


def test_every_process_makes_the_same_plan():
    pack = [30_000, 17_000, 9_001, 4_000, 3_999, 801, 555, 33]
    script = (
        "from flashcp.planning import default_setting; from flashcp.auto import auto_plan;"
        f"print(auto_plan({pack}, 4, default_setting(), effort=0.2).fingerprint)"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    assert found.stdout.strip() == auto_plan(pack, 4, SETTING, effort=0.2).fingerprint


def test_a_giant_among_short_documents_beats_both_whole_and_zigzag():
    pack = np.array([40_000] + [1_000] * 91, dtype=np.int32)
    auto = predict(auto_plan(pack, 8, SETTING), SETTING).total_us
    rivals = [predict(shard(pack, 8, name), SETTING).total_us for name in ("per-doc", "flashcp")]
    assert auto < 0.9 * min(rivals)


def test_documents_that_fit_whole_need_no_exchange():
    plan = auto_plan(np.full(64, 2048, dtype=np.int32), 8, SETTING)
    assert plan.shards == 64
    assert plan.needed_tokens[0].sum() == 0
    assert plan.exchange is Exchange.ALL_TO_ALL_NEEDED


def test_one_rank_gets_everything():
    plan = auto_plan([5, 7], 1, SETTING)
    assert plan.rank.tolist() == [0, 0]


@pytest.mark.parametrize("effort", [-0.1, float("nan"), 1e7])
def test_an_impossible_effort_is_refused(effort):
    with pytest.raises(PlanError, match="plan effort"):
        auto_plan([5, 7], 2, SETTING, effort=effort)


def test_even_work_is_even_and_even_times_take_less():
    setting = replace(SETTING, model=load_model("paper-h32"))
    packing = pack(load("code"), 131_072, by="truncate", packs=8)
    found = {}
    for balance in ("work", "time", None):
        plans = [
            auto_plan(packing.document_lengths(i), 8, setting, balance=balance) for i in range(8)
        ]
        us = sum(predict(plan, setting).total_us for plan in plans)
        found[balance] = us, np.mean([measure(plan).imbalance for plan in plans])
    assert found["work"][1] < 1.005 < found["time"][1]
    assert found["time"][0] < 0.99 * found["work"][0]
    assert found[None] == found["work"]


def test_where_ranks_span_nodes_times_are_evened_out():
    lengths = [41_000, 23_500, 17_000, 12_072, 9_000, 8_000, 6_500, 5_000, 4_000, 3_000]
    across = replace(SETTING, ranks_per_node=4)
    made = {b: auto_plan(lengths, 8, across, balance=b).fingerprint for b in ("work", "time", None)}
    assert made[None] == made["time"] != made["work"]


def test_an_unknown_balance_is_refused():
    with pytest.raises(PlanError, match="balance 'tokens' is unknown; there are: work, time"):
        auto_plan([5, 7], 2, SETTING, balance="tokens")


def test_what_the_host_cannot_post_in_time_is_bundled_and_only_that():
    pack = np.array(
        [41_000, 23_500, 17_000, 12_072, 9_000, 8_000, 6_500, 5_000, 4_000, 3_000] + [500] * 4
    )
    one_node, four_nodes = (
        auto_plan(pack, cp, replace(SETTING, ranks_per_node=8), balance="work") for cp in (8, 32)
    )
    assert four_nodes.bundled
    assert not one_node.bundled
    setting = replace(SETTING, ranks_per_node=8)
    gain = predict(replace(four_nodes, bundled=False), setting).total_us
    assert gain > 1.02 * predict(four_nodes, setting).total_us


def test_other_exchanges_have_nothing_to_bundle():
    with pytest.raises(PlanError, match="all-gather has no messages to bundle"):
        replace(shard([100, 7], 4, "per-doc"), bundled=True)

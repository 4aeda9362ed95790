"""Predictions add up, agree with the cost model's public calls, and never fall below the bound."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from costmodel import ModelShape, ProfileError, load_model, load_profile
from costmodel.timeline import Kind, Stream
from flashcp.bounds import lower_bound_us
from flashcp.errors import PlanError
from flashcp.exchange import Exchange
from flashcp.measures import measure
from flashcp.plans import Plan
from flashcp.prediction import Setting, predict
from flashcp.sources import sources
from flashcp.strategies import STRATEGIES, shard
from tests.flashcp.packs import cp_degrees, lengths

SETTING = Setting(profile=load_profile("h100-sxm"), model=load_model("llama3-8b"))
PAPER = replace(SETTING, model=load_model("paper-h32"))
EVERY = sorted(STRATEGIES)


def attention_us(setting, q_lens, k_lens, direction):
    model = setting.model
    return setting.profile.attention_us(
        q_lens, k_lens, q_heads=model.q_heads, kv_heads=model.kv_heads, head_dim=model.head_dim,
        direction=direction, cache_write=False,
    ).us  # fmt: skip


@pytest.mark.parametrize("strategy", EVERY)
@pytest.mark.parametrize("copies", ["published", "in-place"])
@given(pack=lengths(10), cp=cp_degrees(9))
@settings(max_examples=20, deadline=None)
def test_parts_sum_to_the_total_and_none_is_negative(strategy, copies, pack, cp):
    predicted = predict(shard(pack, cp, strategy), replace(SETTING, copies=copies))
    attention = [predicted.forward_us, predicted.backward_us]
    parts = [*attention, predicted.exchange_us, predicted.copies_us]
    assert sum(parts) == pytest.approx(predicted.total_us)
    assert min(parts) >= -1e-6
    assert 0 < predicted.forward_total_us < predicted.total_us
    assert predicted.total_us == predicted.timeline.total_us


PROFILES = {name: load_profile(name) for name in ("h100-sxm", "h200-sxm", "a100-sxm")}


@st.composite
def settings_of_all_kinds(draw):
    kv_heads = draw(st.sampled_from([1, 2, 8, 16]))
    model = ModelShape(
        name="any",
        q_heads=kv_heads * draw(st.sampled_from([1, 2, 4, 8])),
        kv_heads=kv_heads,
        head_dim=draw(st.sampled_from([64, 96, 128, 256])),
    )
    return Setting(
        profile=PROFILES[draw(st.sampled_from(sorted(PROFILES)))],
        model=model,
        copies=draw(st.sampled_from(["published", "in-place"])),
    )


GIANTS = st.lists(st.integers(50_000, 1_000_000), min_size=1, max_size=3).map(
    lambda values: np.array(values, dtype=np.int32)
)


@pytest.mark.parametrize("strategy", EVERY)
@given(
    pack=st.one_of(lengths(10), GIANTS),
    cp=st.one_of(cp_degrees(9), st.sampled_from([32, 64])),
    setting=settings_of_all_kinds(),
)
@example(
    pack=np.array([131072], dtype=np.int32),
    cp=8,
    setting=replace(SETTING, profile=PROFILES["h200-sxm"], copies="in-place"),
)
@settings(max_examples=30, deadline=None)
def test_no_prediction_is_below_the_lower_bound(strategy, pack, cp, setting):
    bound = lower_bound_us(pack, cp, setting) * (1 - 1e-9)
    for overlap in (False, True):
        plan = replace(shard(pack, cp, strategy), overlap=overlap)
        assert predict(plan, setting).total_us >= bound


def test_a_ring_does_not_escape_throttling_by_its_many_short_calls():
    """N calls back to back are one load to the clock; a ring of one rank is one call."""
    pack = [131072]
    ring = predict(shard(pack, 8, "zigzag"), replace(SETTING, copies="in-place"))
    gather = predict(shard(pack, 8, "per-doc"), replace(SETTING, copies="in-place"))
    assert ring.forward_us >= gather.forward_us


@pytest.mark.parametrize("strategy", EVERY)
def test_one_rank_takes_one_kernel_call_each_way(strategy):
    pack = [5000, 17, 1]
    predicted = predict(shard(pack, 1, strategy), SETTING)
    assert predicted.forward_us == pytest.approx(attention_us(SETTING, pack, pack, "forward"))
    assert predicted.backward_us == pytest.approx(attention_us(SETTING, pack, pack, "backward"))
    assert predicted.exchange_us == predicted.copies_us == 0


def test_an_all_gather_strategy_is_what_its_parts_cost_alone():
    plan = shard([9000, 3000, 4384], 4, "per-doc")
    predicted = predict(plan, replace(PAPER, copies="in-place"))
    kv_bytes = plan.context_tokens * 2 * 32 * 128 * 2
    gather = PAPER.profile.collective_us("all_gather", kv_bytes, 4).us
    scatter = PAPER.profile.collective_us("reduce_scatter", kv_bytes, 4).us
    slowest = {
        direction: max(
            attention_us(
                PAPER,
                (plan.stop - plan.start)[plan.rank == r],
                plan.stop[plan.rank == r],
                direction,
            )
            for r in range(4)
        )
        for direction in ("forward", "backward")
    }
    assert predicted.exchange_us == pytest.approx(gather + scatter, rel=0.02)
    # The busiest rank is the slowest with its copies, so not quite that of attention alone.
    assert predicted.forward_us == pytest.approx(slowest["forward"], rel=0.01)
    assert predicted.backward_us == pytest.approx(slowest["backward"], rel=0.01)


def test_whole_documents_need_no_exchange():
    predicted = predict(shard([16384] * 8, 8, "flashcp"), replace(SETTING, copies="in-place"))
    assert predicted.exchange_us == pytest.approx(0, abs=1e-6)
    assert predicted.copies_us == 0


@given(pack=lengths(10), cp=cp_degrees(9))
@settings(max_examples=20, deadline=None)
def test_copies_in_place_are_never_dearer_than_shard_by_shard(pack, cp):
    for strategy in ("per-seq", "per-doc", "flashcp"):
        plan = shard(pack, cp, strategy)
        published, in_place = (
            predict(plan, replace(SETTING, copies=copies)).copies_us
            for copies in ("published", "in-place")
        )
        assert in_place <= published + 1e-9


def test_overlap_hides_exchange_behind_whole_documents():
    pack = np.array([60_000] + [2_000] * 20, dtype=np.int32)
    plan = replace(shard(pack, 4, "flashcp"), exchange=Exchange.ALL_TO_ALL_NEEDED)
    setting = replace(PAPER, copies="in-place")
    apart = predict(plan, setting)
    together = predict(replace(plan, overlap=True), setting)
    assert together.exchange_us < apart.exchange_us


@given(pack=lengths(10), factor=st.floats(1.0, 8.0))
@settings(max_examples=25, deadline=None)
def test_slower_links_never_make_a_plan_faster(pack, factor):
    def slowed(curve):
        return replace(
            curve,
            times_us=tuple(us * factor for us in curve.times_us),
            alpha_us=curve.alpha_us * factor,
            beta_us_per_byte=curve.beta_us_per_byte * factor,
            gamma_us_per_root_byte=curve.gamma_us_per_root_byte * factor,
        )

    curves = tuple(slowed(curve) for curve in SETTING.profile.collectives.curves)
    slow_profile = replace(
        SETTING.profile, collectives=replace(SETTING.profile.collectives, curves=curves)
    )
    for strategy in EVERY:
        for overlap in (False, True):
            plan = replace(shard(pack, 4, strategy), overlap=overlap)
            fast = predict(plan, SETTING).total_us
            slow = predict(plan, replace(SETTING, profile=slow_profile)).total_us
            assert slow >= fast * (1 - 1e-9)


def test_a_ring_of_two_waits_for_its_transfer():
    plan = shard([4000], 2, "zigzag")
    predicted = predict(plan, SETTING)
    steps = [e for e in predicted.timeline.entries if e.kind is Kind.FORWARD]
    transfer = next(e for e in predicted.timeline.entries if e.kind is Kind.EXCHANGE)
    assert [e.name for e in steps] == ["attention, step 0", "attention, step 1"]
    assert (steps[1].start_us >= transfer.end_us).all()
    assert (transfer.start_us == 0).all()


@pytest.mark.parametrize("strategy", EVERY)
def test_sources_name_every_part_and_admit_that_backward_is_reported(strategy):
    found = sources(shard([70_000, 333, 1, 60_000], 8, strategy), SETTING)
    assert set(found) == {"forward", "backward", "exchange", "copies"}
    assert found["backward"].label == "reported"
    assert found["copies"].label == "reported"


def test_the_exchanges_source_is_that_of_the_bytes_that_move():
    """A full all-gather of 512 MB was measured; what flashcp moves of it was not."""
    pack = [100_000] + [3_884] * 8
    assert sources(shard(pack, 8, "per-doc"), SETTING)["exchange"].label == "measured"
    assert sources(shard(pack, 8, "flashcp"), SETTING)["exchange"].label == "interpolated"


def test_ranks_per_node_that_do_not_divide_are_refused():
    with pytest.raises(ProfileError, match="3 ranks per node do not divide 8"):
        predict(shard([9000], 8, "per-doc"), replace(SETTING, ranks_per_node=3))


def test_a_plan_for_other_nodes_is_refused():
    plan = replace(
        shard([9000], 8, "per-doc"), exchange=Exchange.ALL_TO_ALL_TWO_LEVEL, ranks_per_node=2
    )
    with pytest.raises(PlanError, match="for nodes of 2 ranks, the setting has nodes of 4"):
        predict(plan, replace(SETTING, ranks_per_node=4))


@pytest.mark.parametrize("exchange", [Exchange.ALL_TO_ALL_NEEDED, Exchange.ALL_TO_ALL_TWO_LEVEL])
def test_a_document_that_stays_on_its_node_pays_for_no_network(exchange):
    """Four ranks of one node hold a document each, two of the other's share one."""
    two_level = exchange is Exchange.ALL_TO_ALL_TWO_LEVEL
    plan = Plan(
        lengths=np.array([4000] * 2 + [8000], dtype=np.int32),
        cp=4,
        document=np.array([0, 1, 2, 2], dtype=np.int32),
        rank=np.arange(4, dtype=np.int32),
        start=np.array([0, 0, 0, 4000], dtype=np.int32),
        stop=np.array([4000, 4000, 4000, 8000], dtype=np.int32),
        exchange=exchange,
        strategy="auto",
        ranks_per_node=2 if two_level else None,
    )
    setting = replace(SETTING, ranks_per_node=2)
    kv_bytes = 4000 * SETTING.model.kv_bytes_per_token
    inside = setting.profile.all_to_all_v_us(kv_bytes, 2).us
    taken = predict(plan, setting).timeline.entries
    exchanged = sum((e.end_us - e.start_us).max() for e in taken if e.stream is Stream.EXCHANGE)
    assert exchanged == pytest.approx(2 * inside)
    assert measure(plan, 2).across_tokens == 0


@given(
    pack=lengths(10),
    nodes=st.integers(2, 4),
    per_node=st.integers(1, 4),
    exchange=st.sampled_from(list(Exchange)),
    factor=st.floats(1.0, 20.0),
)
@settings(max_examples=40, deadline=None)
def test_a_faster_interface_never_makes_a_plan_slower(pack, nodes, per_node, exchange, factor):
    setting = replace(SETTING, ranks_per_node=per_node)
    nic = setting.profile.network.nic_gbps
    network = replace(setting.profile.network, nic_gbps=replace(nic, value=nic.value * factor))
    faster = replace(setting, profile=replace(setting.profile, network=network))
    two_level = exchange is Exchange.ALL_TO_ALL_TWO_LEVEL
    plan = replace(
        shard(pack, nodes * per_node, "per-doc"),
        exchange=exchange,
        ranks_per_node=per_node if two_level else None,
    )
    assert predict(plan, faster).total_us <= predict(plan, setting).total_us * (1 + 1e-12)


def test_two_levels_follow_one_another_forward_and_turn_round_backward():
    plan = replace(
        shard([60_000], 8, "per-doc"), exchange=Exchange.ALL_TO_ALL_TWO_LEVEL, ranks_per_node=4
    )
    entries = predict(plan, replace(SETTING, ranks_per_node=4)).timeline.entries
    exchanged = [e for e in entries if e.stream is Stream.EXCHANGE]
    assert [e.name for e in exchanged] == [
        "KV, across nodes", "KV, inside nodes",
        "dKV, inside nodes", "sum dKV of the node", "dKV, across nodes",
    ]  # fmt: skip
    for before, after in itertools.pairwise(exchanged):
        assert (after.start_us >= before.end_us).all()


def test_nodes_make_the_exchange_dearer():
    plan = shard([131072], 16, "per-doc")
    one = predict(plan, replace(SETTING, ranks_per_node=16)).exchange_us
    sixteen = predict(plan, replace(SETTING, ranks_per_node=1)).exchange_us
    assert sixteen > 2 * one

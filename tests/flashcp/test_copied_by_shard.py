"""Copies a shard, counted call by call; that a run makes them: tests/executor."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costmodel import load_model, load_profile
from costmodel.attention import CPU_KERNEL
from costmodel.estimate import Source
from costmodel.figure import Figure
from flashcp.bounds import lower_bound_us
from flashcp.copied import copied_tokens
from flashcp.copied_by_shard import shard_copies
from flashcp.exchange import Exchange
from flashcp.parts import predict_parts
from flashcp.plan_costs import PlanCosts
from flashcp.prediction import Setting, predict
from flashcp.strategies import shard
from tests.flashcp.packs import cp_degrees, lengths

PUBLISHED = ("per-seq", "per-doc", "flashcp")
GATHERS = (Exchange.ALL_GATHER, Exchange.ALL_GATHER_NON_LAST)


def setting_of(queue_us, hardware="h100-sxm"):
    profile = load_profile(hardware)
    queue = Figure(queue_us, Source.MEASURED, "measured: for a test")
    profile = replace(profile, copies=replace(profile.copies, queue_us=queue))
    return Setting(profile=profile, model=load_model("llama3-8b"))


def copies_us(plan, setting):
    found = PlanCosts(plan, setting).copies
    return found.packed + found.placed + found.summed + found.returned


def test_whole_documents_copy_nothing():
    found = shard_copies(shard([16384] * 8, 8, "flashcp"), 2)
    assert not found.calls.any()
    assert not found.tokens.any()


def test_one_document_in_two_halves_by_hand():
    # Rank 1 packs its 4 tokens, orders 4 + 4, joins 8 keys; home come both halves' gradients.
    plan = replace(shard([8], 2, "per-seq"), strategy="per-doc")
    assert plan.rank_tokens.tolist() == [4, 4]
    shards = plan.shards
    calls, tokens = (x.sum(axis=0) for x in vars(shard_copies(plan, 4)).values())
    segments = np.diff(plan.rank_splits)
    placed = 2 * (shards + 1)
    summed = 2 * (3 + segments + shards)
    assert calls.tolist() == (2 * segments + placed + summed + 2 * 3).tolist()
    assert (tokens > 4 + 8 + 8).all()


@given(
    pack=lengths(12),
    cp=cp_degrees(9),
    strategy=st.sampled_from(PUBLISHED),
    exchange=st.sampled_from(GATHERS),
    overlap=st.booleans(),
    dtype_bytes=st.sampled_from([2, 4]),
)
@settings(max_examples=80, deadline=None)
def test_copies_a_shard_move_at_least_what_those_without_do(
    pack, cp, strategy, exchange, overlap, dtype_bytes
):
    plan = replace(shard(pack, cp, strategy), exchange=exchange, overlap=overlap)
    found = shard_copies(plan, dtype_bytes)
    assert ((found.tokens > 0) <= (found.calls > 0)).all()
    sent = plan.rank_tokens if exchange is Exchange.ALL_GATHER else plan.non_last_tokens
    least = copied_tokens(exchange, overlap, plan.held, sent, dtype_bytes)
    if cp > 1 and sent.max() > 0:
        assert (found.tokens.sum(axis=0) >= least.sum(axis=0) - 1e-9).all()


@given(pack=lengths(12), cp=cp_degrees(9), strategy=st.sampled_from(PUBLISHED))
@settings(max_examples=40, deadline=None)
def test_a_slower_host_never_copies_faster_and_both_ways_to_predict_agree(pack, cp, strategy):
    plan = shard(pack, cp, strategy)
    before = 0.0
    for queue_us in (0.0, 1.0, 10.0, 100.0):
        setting = setting_of(queue_us)
        total = predict(plan, setting).total_us
        assert predict_parts(plan, setting).total_us == pytest.approx(total, rel=1e-12)
        assert total >= before - 1e-9 * total
        before = total
        assert total >= lower_bound_us(plan.lengths, cp, setting) * (1 - 1e-9)


def test_short_shards_wait_for_the_host_and_long_ones_for_the_memory():
    short, long = (shard([n] * (2**19 // n), 8, "per-doc") for n in (128, 2**18))
    slow, slower = setting_of(10.0), setting_of(20.0)
    assert copies_us(short, slower).min() > 1.9 * copies_us(short, slow).min()
    assert copies_us(long, slower).max() < 1.1 * copies_us(long, slow).max()


def test_a_cpu_queues_and_copies_one_after_the_other():
    plan = shard([8192] * 8, 8, "per-doc")
    gpu = setting_of(10.0)
    attention = replace(gpu.profile.attention, kernel=CPU_KERNEL)
    cpu = replace(gpu, profile=replace(gpu.profile, attention=attention))
    none = setting_of(0.0)
    calls = shard_copies(plan, 2).calls.sum(axis=0)
    assert copies_us(plan, cpu) == pytest.approx(copies_us(plan, none) + 10.0 * calls)


def test_a_needed_only_exchange_lands_whatever_the_strategy():
    plan = replace(shard([65536], 8, "per-doc"), exchange=Exchange.ALL_TO_ALL_NEEDED)
    setting = setting_of(10.0)
    in_place = PlanCosts(plan, replace(setting, copies="in-place")).copies
    published = PlanCosts(plan, setting).copies
    for one, other in zip(vars(in_place).values(), vars(published).values(), strict=True):
        assert one.tolist() == other.tolist()

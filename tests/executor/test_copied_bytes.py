"""What predictions count as copied and merged is what a run's operators read and write."""

from dataclasses import replace

import numpy as np
import pytest

from costmodel.model_shape import ModelShape
from costmodel.profile_file import load_profile
from flashcp.auto import auto_plan
from flashcp.copied import LANDING, PACKED, PLACED, RETURNED, SUMMED, copied_tokens
from flashcp.copied_by_shard import shard_copies
from flashcp.exchange import Exchange
from flashcp.plan_costs import PlanCosts, merged_bytes
from flashcp.prediction import Setting
from tests.executor.bytes_moved import bytes_moved, play
from tests.executor.packs import all_plans, random_lengths, scattered_plan

# Names of pieces by what predictions call them.
PIECES = {
    PACKED: ("pack KV",),
    PLACED: ("place own KV", "place KV"),
    SUMMED: ("sum dKV",),
    RETURNED: ("add dKV",),
}


def setting_of(model, ranks_per_node=None):
    profile = load_profile("h100-sxm")
    return Setting(profile=profile, model=model, ranks_per_node=ranks_per_node, copies="in-place")


def small(q_heads=4, kv_heads=2, dtype="bfloat16"):
    return ModelShape(name="small", q_heads=q_heads, kv_heads=kv_heads, head_dim=8, dtype=dtype)


def predicted_bytes(plan, setting):
    """Bytes read and written, [what, rank]: a token copied is read and written."""
    model = setting.model
    costs = PlanCosts(plan, setting_of(model, plan.ranks_per_node))
    tokens = copied_tokens(
        plan.exchange, plan.overlap, plan.held, costs._sent_tokens(), model.dtype_bytes,
        costs.chunks, costs._last_hop_tokens() if plan.bundled else None,
    )  # fmt: skip
    return 2 * tokens * model.kv_bytes_per_token


def plans_of(rng):
    cp = int(rng.integers(2, 5))
    lengths = random_lengths(rng, most_tokens=200)
    # Parts of an all-gather differ by a token where ranks do, and are then copied: not predicted.
    lengths[0] += -int(lengths.sum()) % cp
    plans = [plan for plan in all_plans(rng, lengths, cp) if plan.exchange is not Exchange.RING]
    exchanges = [exchange for exchange in Exchange if exchange is not Exchange.RING]
    return plans + [
        scattered_plan(rng, lengths, cp, exchange, overlap=overlap)
        for exchange in exchanges
        for overlap in (False, True)
    ]


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("seed", range(6))
def test_copies_move_the_bytes_that_predictions_count(seed, dtype, monkeypatch):
    rng = np.random.default_rng(seed)
    setting = setting_of(small(4, 4, dtype=dtype))
    for plan in plans_of(rng):
        moved = bytes_moved(plan, setting.model, monkeypatch)
        predicted = predicted_bytes(plan, setting)
        for rank in range(plan.cp):
            for what, names in PIECES.items():
                found = sum(moved[rank, name] for name in names)
                said = f"{plan.strategy} by {plan.exchange}, overlap {plan.overlap}: {names}"
                counted = predicted[what, rank]
                if what == SUMMED and plan.exchange in LANDING:
                    # A common prefix of three own shards is written once, not twice.
                    sure = sure_bytes(plan, rank, setting) if plan.bundled else 0
                    assert (counted - sure) / 1.5 <= found - sure <= counted - sure, said
                else:
                    assert found in (counted, *less(plan, rank, what, counted, setting)), said


@pytest.mark.parametrize("exchange", sorted(LANDING))
def test_kv_in_parts_moves_the_same_bytes_but_for_what_is_packed(exchange, monkeypatch):
    rng, model, packing = np.random.default_rng(2), small(8, 4), 0
    for _ in range(6):
        lengths = random_lengths(rng, most_tokens=200)
        plan = replace(scattered_plan(rng, lengths, 4, exchange, overlap=True), bundled=False)
        moved = [
            bytes_moved(replace(plan, head_chunks=chunks), model, monkeypatch)
            for chunks in (1, 2, 4)
        ]
        for rank in range(4):
            packed = 2 * int(plan.non_last_tokens[rank]) * model.kv_bytes_per_token
            found = [pieces.pop((rank, "pack KV"), 0) for pieces in moved]
            assert found == [0, packed, packed]
            packing += packed > 0
        assert +moved[0] == +moved[1] == +moved[2]
    assert packing > 15


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("seed", range(4))
def test_copies_a_shard_are_the_calls_and_bytes_that_predictions_count(seed, dtype, monkeypatch):
    rng, model = np.random.default_rng(seed), small(4, 2, dtype)
    found = 0
    for plan in plans_of(rng):
        if plan.exchange not in (Exchange.ALL_GATHER, Exchange.ALL_GATHER_NON_LAST):
            continue
        plan = replace(plan, strategy="per-doc")  # noqa: PLW2901 - which is published with them
        run = play(plan, model, monkeypatch, copies="published")
        counted = shard_copies(plan, model.dtype_bytes)
        for rank in range(plan.cp):
            for what, names in PIECES.items():
                said = f"rank {rank} by {plan.exchange}, overlap {plan.overlap}: {names}"
                moved = sum(run.moved[rank, name] for name in names)
                assert moved == 2 * counted.tokens[what, rank] * model.kv_bytes_per_token, said
                calls = sum(run.calls[rank, name] for name in names)
                assert calls == counted.calls[what, rank], said
                found += calls
    assert found > 500


def sure_bytes(plan, rank, setting):
    """What is read and written of gradients that a bundle takes home, whatever their prefixes."""
    received = PlanCosts(plan, setting_of(setting.model, plan.ranks_per_node))._last_hop_tokens()
    return 2 * received[rank] * setting.model.kv_bytes_per_token


def less(plan, rank, what, counted, setting):
    """What is moved where all of it happens to lie in order, so that a view of it will do."""
    if what == PACKED and plan.non_last_tokens[rank] == plan.rank_tokens[rank]:
        yield 0
    if what == PLACED and plan.exchange not in LANDING:
        keys = plan.held.prefix[rank]
        if not plan.overlap and plan.held.waiting[rank]:
            keys += plan.rank_tokens[rank]
        yield counted - 2 * keys * setting.model.kv_bytes_per_token


@pytest.mark.parametrize(("q_heads", "kv_heads"), [(4, 4), (8, 2)])
def test_merges_move_the_bytes_that_predictions_count(q_heads, kv_heads, monkeypatch):
    rng = np.random.default_rng(0)
    setting = setting_of(small(q_heads, kv_heads))
    merging = 0
    for plan in plans_of(rng):
        moved = bytes_moved(plan, setting.model, monkeypatch)
        merged, added = (2 * x for x in merged_bytes(plan.waiting_tokens[1], setting))
        for rank in range(plan.cp):
            found = moved[rank, "merge outputs"], moved[rank, "add dQ"]
            assert found == ((merged[rank], added[rank]) if plan.overlap else (0, 0))
            merging += found[0] > 0
    assert merging > 3


def test_sums_of_a_node_move_the_bytes_that_predictions_count(monkeypatch):
    rng = np.random.default_rng(1)
    setting = setting_of(small())
    summing = passing = 0
    for _ in range(12):
        lengths = random_lengths(rng, most_tokens=200)
        plan = scattered_plan(rng, lengths, 4, Exchange.ALL_TO_ALL_TWO_LEVEL, overlap=True)
        if plan.ranks_per_node != 2:
            continue
        for bundled in (False, True):
            moved = bytes_moved(replace(plan, bundled=bundled), setting.model, monkeypatch)
            received, (passed, summed) = plan.two_level_tokens[1], plan.relayed_tokens
            for rank in range(4):
                found = moved[rank, "sum dKV of the node"]
                assert found == (received + summed)[rank] * setting.model.kv_bytes_per_token
                summing += found > 0
                found = moved[rank, "pass on KV"]
                assert found == bundled * 2 * passed[rank] * setting.model.kv_bytes_per_token
                passing += found > 0
    assert summing > 6
    assert passing > 3


@pytest.mark.parametrize(("chunks", "share"), [(1, 0.03), (4, 0.035)])
def test_a_plan_of_auto_copies_little_beside_its_attention(chunks, share, monkeypatch):
    setting = setting_of(ModelShape(name="h32", q_heads=32, kv_heads=32, head_dim=128))
    lengths = np.array([40000, 31000, 20000, 14000, 9000, 8000, 5000, 4072], dtype=np.int32)
    plan = replace(auto_plan(lengths, 8, setting), head_chunks=chunks)
    moved = bytes_moved(plan, setting.model, monkeypatch)
    copies_us = np.zeros(8)
    for (rank, name), found in moved.items():
        if name not in ("merge outputs", "add dQ"):
            copies_us[rank] += found / setting.profile.copies.memory_bytes_per_us
    costs = PlanCosts(plan, setting)
    calls = [costs.attention(way) for way in ("forward", "backward")]
    attention_us = sum(own + costs.chunks * part for own, part in calls)
    assert plan.held.non_last.sum() > 0
    assert copies_us.mean() <= share * attention_us.mean()

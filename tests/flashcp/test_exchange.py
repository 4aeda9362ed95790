"""Traffic is counted right, against counting pair by pair."""

import numpy as np
import pytest
from hypothesis import given, settings

from flashcp.measures import measure, padded_work
from flashcp.strategies import STRATEGIES, shard
from tests.flashcp.packs import cp_degrees, lengths


def pairwise_needed(plan):
    sent, received = np.zeros(plan.cp, dtype=int), np.zeros(plan.cp, dtype=int)
    shards = list(zip(plan.document, plan.rank, plan.start, plan.stop, strict=True))
    for d, r, a, b in shards:
        needing = {q for e, q, _, stop in shards if e == d and q != r and stop > b}
        sent[r] += (b - a) * len(needing)
        for q in needing:
            received[q] += b - a
    return sent, received


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
@given(pack=lengths(8), cp=cp_degrees(6))
@settings(max_examples=30, deadline=None)
def test_needed_tokens_are_those_of_counting_every_pair(strategy, pack, cp):
    plan = shard(pack, cp, strategy)
    sent, received, joined = plan.needed_tokens
    expected_sent, expected_received = pairwise_needed(plan)
    assert sent.tolist() == expected_sent.tolist()
    assert received.tolist() == expected_received.tolist()
    assert sent.sum() == received.sum()
    assert (joined >= received).all()


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
@given(pack=lengths(8), cp=cp_degrees(6))
@settings(max_examples=30, deadline=None)
def test_non_last_tokens_are_all_but_each_documents_last_shard(strategy, pack, cp):
    plan = shard(pack, cp, strategy)
    last = sum(int((plan.stop - plan.start)[(plan.document == d) & (plan.stop == n)].sum())
               for d, n in enumerate(pack.tolist()))  # fmt: skip
    assert plan.non_last_tokens.sum() == pack.sum() - last


@given(pack=lengths(8), cp=cp_degrees(6))
@settings(max_examples=40, deadline=None)
def test_what_ranks_need_is_never_more_than_what_moves(pack, cp):
    for strategy in STRATEGIES:
        measured = measure(shard(pack, cp, strategy))
        assert 0 <= measured.eq5_share <= 1
        if pack.sum() % cp == 0:
            assert measured.needed_share <= 1 + 1e-12
        assert measured.imbalance >= 1
        assert measured.padded >= measured.imbalance


def test_one_rank_moves_nothing():
    for strategy in STRATEGIES:
        measured = measure(shard([100, 7], 1, strategy))
        assert (measured.moved_share, measured.eq5_share, measured.needed_share) == (0, 0, 0)
        assert measured.imbalance == 1


def test_per_doc_saves_nothing_by_eq5():
    assert measure(shard([64_000, 64_000], 8, "per-doc")).eq5_share == 1


@given(pack=lengths(6), cp=cp_degrees(6))
@settings(max_examples=40, deadline=None)
def test_padded_work_counts_every_touched_tile(pack, cp):
    plan = shard(pack, cp, "flashcp")
    tiles = np.zeros(cp, dtype=int)
    for r, a, b in zip(plan.rank, plan.start.tolist(), plan.stop.tolist(), strict=True):
        for row in range(a, b, 128):
            tiles[r] += -(-min(row + 128, b) // 128)
    counted = padded_work(plan.start, plan.stop, plan.rank_splits)
    assert counted.tolist() == (tiles * 128 * 128).tolist()

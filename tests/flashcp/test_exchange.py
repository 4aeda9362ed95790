"""Traffic is counted right, against counting pair by pair."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flashcp.errors import PlanError
from flashcp.exchange import Exchange, across_tokens, relayed_tokens, two_level_tokens
from flashcp.measures import measure, padded_work
from flashcp.simulation.matrix import exchange_matrix
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
    sent, received = plan.needed_tokens
    expected_sent, expected_received = pairwise_needed(plan)
    assert sent.tolist() == expected_sent.tolist()
    assert received.tolist() == expected_received.tolist()
    assert sent.sum() == received.sum()


def messages(plan, per_node):
    """Who sends how much to whom across and inside nodes, by following every shard's way."""
    direct = np.zeros((plan.cp, plan.cp), dtype=int)
    across, inside = np.zeros_like(direct), np.zeros_like(direct)
    shards = list(zip(plan.document, plan.rank, plan.start, plan.stop, strict=True))
    for d, r, a, b in shards:
        needing = {q for e, q, _, stop in shards if e == d and q != r and stop > b}
        for q in needing:
            direct[r, q] += b - a
        for node in range(plan.cp // per_node):
            there = {q for q in needing if q // per_node == node}
            first = r if r // per_node == node else node * per_node + r % per_node
            if there and first != r:
                across[r, first] += b - a
            for q in there - {first}:
                inside[first, q] += b - a
    return direct, across, inside


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
@given(pack=lengths(8), nodes=st.integers(1, 4), per_node=st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_tokens_across_and_inside_nodes_are_those_of_every_message(strategy, pack, nodes, per_node):
    plan = shard(pack, nodes * per_node, strategy)
    shards = (plan.document, plan.rank, plan.start, plan.stop, plan.cp, per_node)
    direct, across, inside = messages(plan, per_node)
    counted = [tokens.tolist() for tokens in two_level_tokens(*shards)]
    assert counted == [m.sum(axis=axis).tolist() for m in (across, inside) for axis in (1, 0)]
    node = np.arange(plan.cp) // per_node
    crossing = np.where(node[:, None] != node, direct, 0)
    counted = [tokens.tolist() for tokens in across_tokens(*shards)]
    assert counted == [crossing.sum(axis=axis).tolist() for axis in (1, 0)]


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
@given(pack=lengths(8), nodes=st.integers(1, 4), per_node=st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_two_levels_send_no_more_across_nodes_and_deliver_all_that_is_needed(
    strategy, pack, nodes, per_node
):
    plan = shard(pack, nodes * per_node, strategy)
    shards = (plan.document, plan.rank, plan.start, plan.stop, plan.cp, per_node)
    sent, received = plan.needed_tokens
    across_sent, across_received, inside_sent, inside_received = two_level_tokens(*shards)
    one_sent, one_received = across_tokens(*shards)
    assert across_sent.sum() == across_received.sum() <= one_sent.sum() == one_received.sum()
    assert inside_sent.sum() == inside_received.sum()
    assert (across_sent <= one_sent).all()
    assert (one_sent <= sent).all()
    assert (one_received <= received).all()
    # What is passed on came across; what came across is passed on or needed where it came.
    assert (inside_received + across_received >= received).all()
    assert (inside_received <= received).all()
    if nodes == 1 or one_sent.sum() == 0:
        assert across_sent.sum() == 0
        assert inside_sent.tolist() == sent.tolist()
        assert inside_received.tolist() == received.tolist()
    if per_node == 1:
        assert inside_sent.sum() == 0
        assert across_sent.tolist() == sent.tolist()


@given(pack=lengths(8), nodes=st.integers(1, 4), per_node=st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_what_is_passed_on_and_added_up_is_what_did_not_start_on_the_node(pack, nodes, per_node):
    plan = shard(pack, nodes * per_node, "per-doc")
    shards = (plan.document, plan.rank, plan.start, plan.stop, plan.cp, per_node)
    _, received = plan.needed_tokens
    one_sent, one_received = across_tokens(*shards)
    passed, summed = relayed_tokens(*shards)
    inside_sent, inside_received = two_level_tokens(*shards)[2:]
    # Of those sent inside the others are own, which one level sends inside as well.
    assert (inside_sent - passed).tolist() == (plan.needed_tokens[0] - one_sent).tolist()
    # Added up with the gradients that come back are those of what is needed where it came.
    assert (summed - passed).tolist() == (received - inside_received).tolist()
    assert summed.sum() == one_received.sum()


@given(pack=lengths(8), nodes=st.integers(1, 4), per_node=st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_the_matrix_of_two_levels_has_every_message(pack, nodes, per_node):
    plan = replace(
        shard(pack, nodes * per_node, "per-doc"),
        exchange=Exchange.ALL_TO_ALL_TWO_LEVEL,
        ranks_per_node=per_node,
    )
    _, across, inside = messages(plan, per_node)
    assert exchange_matrix(plan).tolist() == (across + inside).tolist()


@pytest.mark.parametrize(
    ("exchange", "per_node"),
    [
        (Exchange.ALL_TO_ALL_TWO_LEVEL, None),
        (Exchange.ALL_TO_ALL_TWO_LEVEL, 3),
        (Exchange.ALL_TO_ALL_TWO_LEVEL, 0),
        (Exchange.ALL_TO_ALL_TWO_LEVEL, 8),
        (Exchange.ALL_TO_ALL_NEEDED, 2),
    ],
)
def test_a_plan_knows_its_nodes_where_its_exchange_uses_them_and_only_there(exchange, per_node):
    with pytest.raises(PlanError, match=f"{per_node}"):
        replace(shard([100, 7], 4, "per-doc"), exchange=exchange, ranks_per_node=per_node)


def test_plans_for_other_nodes_have_other_fingerprints():
    plan = shard([100, 7], 4, "per-doc")
    found = {
        replace(plan, exchange=Exchange.ALL_TO_ALL_TWO_LEVEL, ranks_per_node=per_node).fingerprint
        for per_node in (1, 2, 4)
    }
    assert len(found) == 3


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

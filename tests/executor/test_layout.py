"""Global indices, positions, labels, sharding and its inverse."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from executor import RunError, global_indices, position_ids, shard, shift_labels, unshard
from flashcp.exchange import Exchange
from flashcp.strategies import shard as make_plan
from tests.executor.packs import random_lengths, scattered_plan


@st.composite
def plans(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    exchange = draw(st.sampled_from(list(Exchange)))
    lengths = random_lengths(rng)
    return scattered_plan(
        rng, lengths, draw(st.integers(1, 9)), exchange, overlap=draw(st.booleans())
    )


@settings(deadline=None, max_examples=60)
@given(plans())
def test_every_token_is_on_one_rank_and_unshard_undoes_shard(plan):
    together = torch.cat([global_indices(plan, rank) for rank in range(plan.cp)])
    assert torch.equal(together.sort().values, torch.arange(plan.context_tokens))
    pack = torch.randn(plan.context_tokens, 3)
    shards = [shard(pack, plan, rank) for rank in range(plan.cp)]
    assert [len(part) for part in shards] == plan.rank_tokens.tolist()
    assert torch.equal(unshard(shards, plan), pack)


@settings(deadline=None, max_examples=60)
@given(plans())
def test_positions_restart_at_every_document(plan):
    positions = torch.cat([torch.arange(int(length)) for length in plan.lengths])
    for rank in range(plan.cp):
        assert torch.equal(position_ids(plan, rank), shard(positions, plan, rank))


def test_labels_are_the_next_token_and_none_at_a_documents_end():
    plan = make_plan(np.array([3, 1, 2]), 2, "per-doc")
    labels = shift_labels(torch.tensor([10, 11, 12, 20, 30, 31]), plan)
    assert labels.tolist() == [11, 12, -100, -100, 31, -100]


def test_whole_documents_come_first_where_the_exchange_overlaps():
    plan = make_plan(np.array([8, 4, 4]), 2, "per-doc")
    overlapping = scattered_plan(
        np.random.default_rng(0), plan.lengths, 2, Exchange.ALL_TO_ALL_NEEDED, overlap=True
    )
    for rank in range(2):
        mine = overlapping.rank == rank
        in_place = int(
            (overlapping.stop - overlapping.start)[mine & (overlapping.start == 0)].sum()
        )
        head = position_ids(overlapping, rank)[:in_place]
        assert int((head == 0).sum()) == int((mine & (overlapping.start == 0)).sum())


@pytest.mark.parametrize("rank", [-1, 2])
def test_a_rank_that_the_plan_lacks_is_refused(rank):
    plan = make_plan(np.array([4]), 2, "per-seq")
    with pytest.raises(RunError, match=rf"rank {rank} is not in 0\.\.1"):
        global_indices(plan, rank)


def test_tensors_of_another_size_are_refused():
    plan = make_plan(np.array([4]), 2, "per-seq")
    with pytest.raises(RunError, match="a tensor of 5 tokens is not of this plan's 4"):
        shard(torch.zeros(5), plan, 0)
    with pytest.raises(RunError, match="1 tensors are not of this plan's 2 ranks"):
        unshard([torch.zeros(2)], plan)
    with pytest.raises(RunError, match="rank 1's tensor has 3 tokens, its plan 2"):
        unshard([torch.zeros(2), torch.zeros(3)], plan)

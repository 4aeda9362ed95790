"""The steps of a ring together do exactly the plan's work."""

import numpy as np
import pytest
from hypothesis import given, settings

from flashcp.ring import local_segments, ring_segments
from flashcp.strategies import shard
from tests.flashcp.packs import cp_degrees, lengths


@pytest.mark.parametrize("strategy", ["ring", "zigzag", "per-seq", "flashcp"])
@given(pack=lengths(10), cp=cp_degrees(9))
@settings(max_examples=40, deadline=None)
def test_the_steps_of_a_rank_add_up_to_its_work(strategy, pack, cp):
    plan = shard(pack, cp, strategy)
    shards = (plan.document, plan.start, plan.stop, plan.rank_splits)
    lens, own = local_segments(*shards)
    q_lens, k_lens, splits = ring_segments(*shards)
    assert splits.size == (cp - 1) * cp + 1
    work = np.array([(lens * (lens + 1) // 2)[own[r] : own[r + 1]].sum() for r in range(cp)])
    for call in range((cp - 1) * cp):
        part = slice(splits[call], splits[call + 1])
        work[call % cp] += (q_lens[part] * k_lens[part]).sum()
    assert work.tolist() == plan.rank_work.tolist()


def test_a_plain_ring_has_rank_0_idle_after_its_own_step():
    plan = shard([8_000], 4, "ring")
    splits = ring_segments(plan.document, plan.start, plan.stop, plan.rank_splits)[2]
    sizes = np.diff(splits).reshape(3, 4)
    assert sizes[:, 0].tolist() == [0, 0, 0]
    assert sizes[:, 3].tolist() == [1, 1, 1]

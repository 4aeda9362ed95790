"""What no plan can be below: traffic at a given share of the work, and time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costmodel.model_shape import load_model
from costmodel.profile_file import load_profile
from flashcp.auto import auto_plan
from flashcp.bounds import _Pack, attention_bound_us, lower_bound_us
from flashcp.prediction import Setting, predict
from flashcp.strategies import STRATEGIES, shard
from flashcp.traffic_bound import least_received_tokens
from tests.flashcp.packs import cp_degrees, lengths

SETTING = Setting(load_profile("h100-sxm"), load_model("paper-h32"))


@given(pack=lengths(12), cp=cp_degrees(9), rule=st.sampled_from(sorted(STRATEGIES)))
@settings(max_examples=200, deadline=None)
def test_no_plan_receives_less_than_its_largest_ranks_work_allows(pack, cp, rule):
    plan = shard(pack, cp, rule)
    pairs = float(plan.rank_work.max())
    largest, together, needed = least_received_tokens(plan.lengths.astype(np.int64), cp, pairs)
    received = plan.needed_tokens[1]
    assert largest <= received.max() + 1e-6
    assert together <= received.sum() + 1e-6
    assert needed <= plan.non_last_tokens.sum() + 1e-6


# 8,000 tokens are half of a rank's share, but nine tenths of the pack's work.
DEEP = np.array([8000] + [250] * 492, np.int32)


def test_a_document_that_is_too_much_work_for_one_rank_has_to_be_cut():
    largest, together, needed = least_received_tokens(
        DEEP.astype(np.int64), 8, 1.1 * float((0.5 * DEEP * (DEEP + 1.0)).sum()) / 8
    )
    assert 0 < needed < 8000 < together
    assert largest > 8000 / 2
    assert lower_bound_us(DEEP, 8, SETTING) > 1.05 * attention_bound_us(DEEP, 8, SETTING)


def test_a_plan_that_may_take_longer_need_not_cut_as_much():
    pack = _Pack(DEEP, 8, SETTING)
    bound = lower_bound_us(DEEP, 8, SETTING)
    bounds = [pack.joined_us(limit * bound) for limit in (1.0, 1.1, 1.3, 2.0, np.inf)]
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[0] == pytest.approx(bound, rel=0.01)
    assert pack.joined_us(0.5 * bound) == np.inf


@given(
    deep=st.integers(1000, 100_000),
    many=st.integers(1, 300),
    short=st.integers(1, 2000),
    cp=st.sampled_from([2, 3, 8]),
)
@settings(max_examples=60, deadline=None)
def test_no_plan_of_one_deep_document_among_short_ones_is_faster_than_the_bound(
    deep, many, short, cp
):
    pack = np.array([deep] + [short] * many, np.int32)
    bound = lower_bound_us(pack, cp, SETTING) * (1 - 1e-9)
    for name in STRATEGIES:
        assert predict(shard(pack, cp, name), SETTING).total_us >= bound
    assert predict(auto_plan(pack, cp, SETTING), SETTING).total_us >= bound

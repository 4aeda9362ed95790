"""Gaps: the bound is below every plan as balanced, and the exact least is found the same twice."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flashcp import exact, gaps
from flashcp.comparison import compare
from flashcp.errors import PlanError
from flashcp.exact import exact_plan
from flashcp.planning import default_setting
from flashcp.strategies import NAMES
from traces import Trace, pack


@given(
    lengths=st.lists(st.integers(1, 9_000), min_size=1, max_size=30),
    cp=st.integers(1, 8),
)
@settings(max_examples=25, deadline=None)
def test_no_strategy_moves_less_than_the_bound_at_its_balance(lengths, cp):
    packing = pack(Trace("t", lengths), 4096)
    found = compare(packing, cp, NAMES, default_setting(), effort=0.05)
    tokens = np.array([packing.document_lengths(i).sum() for i in range(len(packing))]) / cp
    for name, outcome in found.outcomes.items():
        least = gaps.traffic_bounds(packing, cp, outcome.imbalance)
        # The paper's measure, which an all-gather of non-last shards has, is over whole tokens.
        assert (outcome.moved_share >= least * tokens / np.ceil(tokens) - 1e-9).all(), name


def test_exact_is_sought_on_small_packs_only_and_is_the_same_again():
    long = [3000, 1096]
    packing = pack(Trace("t", [*long, *[27] * 150, 46, *long, *long]), 4096, seed=None)
    found = gaps.exact_traffic(packing, 2, most_packs=2)
    assert (found.small, found.tried) == (3, 2)
    assert [each.pack for each in found.found] == [0, 2]
    assert found.found[0].share == found.found[1].share > 0
    assert gaps.exact_traffic(packing, 2, most_packs=2) == found


def test_one_rank_has_nothing_to_seek():
    packing = pack(Trace("t", [4096]), 4096)
    assert gaps.exact_traffic(packing, 1) == gaps.ExactSearch(tried=0, small=0, found=())
    assert gaps.traffic_bounds(packing, 1, np.ones(1)).tolist() == [0.0]


def test_spare_tokens_make_a_coarse_grid_possible():
    with pytest.raises(PlanError, match="no placement exists"):
        exact_plan([450, 360], 2, grid_tokens=100, imbalance=1.5)
    found = exact_plan([450, 360], 2, grid_tokens=100, imbalance=1.5, spare_tokens=50)
    assert found.proven
    assert abs(int(found.plan.rank_tokens[0]) - 405) <= 50
    with pytest.raises(PlanError, match="-1 spare tokens"):
        exact_plan([450, 360], 2, grid_tokens=100, spare_tokens=-1)


def test_without_scipy_one_line_names_the_extra(monkeypatch):
    monkeypatch.setattr(exact, "find_spec", lambda name: None)
    with pytest.raises(PlanError, match=r"pip install 'flashcp\[exact\]'"):
        gaps.exact_traffic(pack(Trace("t", [4096]), 4096), 2)

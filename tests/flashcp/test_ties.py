"""Ties are counted where another strategy is within 1% of `auto`, its copies apart."""

import numpy as np
import pytest

from flashcp.comparison import OUTCOME, Comparison, Outcome, compare
from flashcp.planning import default_setting
from flashcp.ties import Ties, ties
from traces import Trace, pack


def outcome(total_us, in_place_us):
    columns = {name: np.zeros(len(total_us)) for name in OUTCOME}
    columns |= {"total_us": np.array(total_us), "in_place_us": np.array(in_place_us)}
    return Outcome(**columns)


def comparison(**outcomes):
    return Comparison(outcomes=outcomes, bound_us=np.ones(3), plans=[])


PACKING = pack(Trace("t", [100, 60, 40, 50, 50]), 100, seed=None)  # the first fills its window


def test_a_pack_is_counted_once_as_run_or_copies_aside():
    found = ties(
        comparison(
            auto=outcome([100.0, 100, 100], [100.0, 100, 100]),
            **{"per-doc": outcome([101.0, 120, 120], [101.0, 100, 110])},
        ),
        PACKING,
    )
    assert found["per-doc"] == Ties(packs=1, placed_packs=1, one_document_packs=1)
    assert found["other"] == found["per-doc"]
    assert "per-seq" not in found


def test_the_best_other_strategy_is_the_best_on_each_pack():
    found = ties(
        comparison(
            auto=outcome([100.0, 100, 100], [100.0, 100, 100]),
            ring=outcome([100.0, 200, 200], [100.0, 200, 200]),
            flashcp=outcome([200.0, 100, 200], [200.0, 100, 200]),
        ),
        PACKING,
    )
    assert found["other"] == Ties(packs=2, placed_packs=0, one_document_packs=1)


@pytest.mark.parametrize("names", [["per-doc"], ["auto"], ["per-doc", "per-seq"]])
def test_without_auto_and_another_there_are_no_ties(names):
    assert ties(compare(PACKING, 2, names, default_setting()), PACKING) == {}


def test_no_gain_is_claimed_where_there_is_none_to_have():
    one_rank = compare(PACKING, 1, ["per-doc", "auto"], default_setting())
    assert ties(one_rank, PACKING)["other"].packs == len(PACKING)

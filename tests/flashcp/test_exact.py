"""The exact solver finds what brute force finds, and the bounds and `auto` lie on its two sides."""

from itertools import product

import numpy as np
import pytest

from flashcp.auto import auto_plan
from flashcp.errors import PlanError
from flashcp.exact import exact_plan
from flashcp.exchange import needed_tokens
from flashcp.measures import measure
from flashcp.planning import default_setting
from flashcp.traffic_bound import least_traffic_tokens


def brute_force(lengths: list[int], cp: int, grid: int, imbalance: float) -> int:
    """Try every assignment of blocks to ranks."""
    blocks = [(d, s, min(s + grid, n)) for d, n in enumerate(lengths) for s in range(0, n, grid)]
    document, start, stop = (
        np.array(column, dtype=np.int32) for column in zip(*blocks, strict=True)
    )
    tokens, work = stop - start, (stop - start) * (start + stop + 1) / 2
    least = 2**31
    for owner in product(range(cp), repeat=len(blocks)):
        rank = np.array(owner, dtype=np.int32)
        held = np.bincount(rank, weights=tokens, minlength=cp)
        if held.max() - held.min() > 1:
            continue
        if np.bincount(rank, weights=work, minlength=cp).max() * cp > imbalance * work.sum():
            continue
        sent, received = needed_tokens(document, rank, start, stop, cp)
        least = min(least, int(max(sent.max(), received.max())))
    return least


@pytest.mark.parametrize(
    ("lengths", "cp", "imbalance"),
    [([400, 200, 200], 2, 1.3), ([600, 300, 100], 2, 1.1), ([500, 400], 3, 1.5), ([900], 3, 1.6)],
)
def test_the_least_traffic_is_that_of_brute_force(lengths, cp, imbalance):
    found = exact_plan(lengths, cp, grid_tokens=100, imbalance=imbalance)
    assert found.proven
    found.plan.validate()
    assert measure(found.plan).imbalance <= imbalance + 1e-9
    assert found.traffic_tokens == brute_force(lengths, cp, 100, imbalance)


@pytest.mark.parametrize("lengths", [[4096, 2048, 1024, 1024], [5120, 2048, 1024], [7168, 1024]])
def test_no_plan_moves_less_than_the_bound(lengths):
    found = exact_plan(lengths, 4, grid_tokens=512, imbalance=1.1)
    assert found.proven
    bound = least_traffic_tokens(np.array(lengths), 4, imbalance=1.1)
    assert 0 < bound <= found.traffic_tokens


def test_auto_moves_little_more_than_the_least():
    lengths = [65536, 32768, 16384, 16384]  # of shorter ones latency is all, not traffic
    auto = auto_plan(lengths, 4, default_setting(), effort=4.0)
    sent, received = auto.needed_tokens
    least = exact_plan(lengths, 4, grid_tokens=8192, imbalance=max(1.1, measure(auto).imbalance))
    assert max(sent.max(), received.max()) <= 1.5 * least.traffic_tokens


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"lengths": [70, 30], "grid_tokens": 100}, "no placement exists"),
        ({"lengths": [10_000_000]}, "coarser grid"),
        ({"cp": 1}, "at least 2 ranks"),
        ({"imbalance": 0.9}, "imbalance of 0.9"),
        ({"grid_tokens": 0}, "grid of 0"),
    ],
)
def test_what_cannot_be_solved_is_said(changed, message):
    given = {"lengths": [400, 400], "cp": 2, "grid_tokens": 100} | changed
    with pytest.raises(PlanError, match=message):
        exact_plan(given.pop("lengths"), given.pop("cp"), **given)

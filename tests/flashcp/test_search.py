"""The search's bookkeeping stays in step with plain counting, whatever moves it makes."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import traces
from costmodel import load_model
from flashcp.exchange import across_tokens, needed_tokens, two_level_tokens
from flashcp.planning import default_setting
from flashcp.search.anneal import _difference, _has_room, _make, anneal
from flashcp.search.cycles import even_out
from flashcp.search.energy import energy, strain
from flashcp.search.evaluate import options
from flashcp.search.foresight import KEPT, are_apart, energy_after, keep
from flashcp.search.loads import pairs_of, tiles_of
from flashcp.search.moves import HEAD, MOVE, PART, PIECE, SIDE, draw_move
from flashcp.search.nodes import crossing_tokens, gather_on_nodes, pair_tokens
from flashcp.search.placement import find_placements, imbalance, settle_on_nodes
from flashcp.search.repair import CUTS_A_RANK, repair
from flashcp.search.seed import adopt, seed
from flashcp.search.state import CUTS, DOCUMENT, FREE, SIZE, copy_rows, move_back
from flashcp.search.weights import (
    ACROSS,
    ACROSS_US,
    BALANCE_WEIGHT,
    PAIRS,
    RECEIVED,
    SENT,
    TILES,
    TOKENS,
    across_us,
    search_weights,
)
from flashcp.strategies import check_lengths
from tests.flashcp.packs import lengths
from traces.hashing import hashes

SETTING = default_setting()
DRAWS = hashes(7, 1 << 12).view(np.int64)
GRID = 16


def assert_foreseen(pool, first, counters, lists, ranks, loads, weights) -> None:
    """Draw moves and hold what was foreseen of each against what it leads to; none stays."""
    if not are_apart(pool, first):
        return  # where a seed left neighbours on one rank nothing is foreseen
    cp, before, after = len(loads), loads.copy(), loads.copy()
    traffic, excess = np.empty(cp), np.empty(cp)
    kept, touched = np.empty((cp + 1, KEPT)), np.empty(cp, dtype=np.int64)
    move = np.empty((2, MOVE), dtype=np.int64)
    for who, how in DRAWS[:160].reshape(-1, 2):
        worst = strain(loads, 5.0, weights, traffic, excess)
        exchange_us = keep(loads, traffic, excess, weights, kept)
        moves = draw_move(pool, lists, ranks, loads, worst, GRID, who, how, move)
        documents = {pool[move[i, PIECE], DOCUMENT] for i in range(moves)}
        if moves == 0 or len(documents) < moves:
            continue
        if not _has_room(counters, lists, ranks, 0, moves, move):
            continue
        cuts = counters[CUTS]
        pairs, tokens = _difference(pool, moves, move)
        foreseen = energy_after(
            pool, counters, ranks, loads, weights, moves, move, pairs, tokens, 5.0, exchange_us,
            kept, after, touched,
        )  # fmt: skip
        np.testing.assert_array_equal(after, before)
        _make(pool, first, counters, ranks, loads, weights, moves, move)
        strain(loads, 5.0, weights, traffic, excess)
        found = energy(loads, counters[CUTS], weights, traffic, excess)
        assert found * (1 - 1e-6) <= foreseen <= found
        for i in range(moves - 1, -1, -1):
            piece, part, head, rank = (move[i, column] for column in (PIECE, PART, HEAD, SIDE))
            move_back(pool, first, counters, piece, part, head != 0, rank)
        counters[CUTS] = cuts
        loads[:] = before


def annealed(pack: NDArray[np.int32], cp: int, steps: int, folded: bool) -> tuple[NDArray, ...]:
    ordered = np.sort(pack)[::-1].astype(np.int64)
    weights = search_weights(pack, cp, SETTING)
    weights[BALANCE_WEIGHT] = 3.0
    reserve = CUTS_A_RANK * cp
    state = seed(ordered, cp, pack.size + reserve + 8 * cp, GRID, folded, weights)
    last = anneal(*state, weights, DRAWS, GRID, reserve, 0, steps, 0.01, 5.0)
    return (ordered, weights, last, *state)


@given(pack=lengths(), cp=st.integers(2, 9), steps=st.integers(0, 400), folded=st.booleans())
@settings(max_examples=60, deadline=None)
def test_loads_and_energy_equal_those_of_the_placement_counted_afresh(pack, cp, steps, folded):
    ordered, weights, last, pool, first, counters, lists, ranks, loads = annealed(
        pack, cp, steps, folded
    )
    assert_foreseen(pool, first, counters, lists, ranks, loads, weights)
    rows = np.empty((pool.shape[0], 4), dtype=np.int32)
    rows = rows[: copy_rows(pool, first, rows)]
    rows = rows[np.lexsort((rows[:, 2], rows[:, 1], rows[:, 0]))]
    rank, document, start, stop = rows.T
    expected = np.zeros((cp, 3))
    for r, _, a, b in rows.tolist():
        expected[r] += (b - a, pairs_of(a, b), tiles_of(a, b)[0])
    np.testing.assert_array_equal(loads[:, [TOKENS, PAIRS, TILES]], expected)
    exchanged = np.stack(needed_tokens(document, rank, start, stop, cp))
    np.testing.assert_array_equal(loads[:, [SENT, RECEIVED]].T, exchanged)
    assert counters[CUTS] == len(rows) - pack.size
    assert counters[FREE] == pool.shape[0] - len(rows)
    np.testing.assert_array_equal(ranks[:, SIZE], np.bincount(rank, minlength=cp))
    listed = [lists[r, i] for r in range(cp) for i in range(ranks[r, SIZE])]
    assert len(set(listed)) == len(rows)
    traffic, excess = np.empty(cp), np.empty(cp)
    strain(loads, 5.0, weights, traffic, excess)
    if steps:
        again = energy(loads, counters[CUTS], weights, traffic, excess)
        assert np.isclose(again, last, rtol=1e-9)
    assert loads[:, TOKENS].sum() == ordered.sum()


@given(
    pack=lengths(), nodes=st.integers(2, 4), per_node=st.integers(1, 3), steps=st.integers(0, 200)
)
@settings(max_examples=60, deadline=None)
def test_what_crosses_nodes_stays_what_two_levels_send(pack, nodes, per_node, steps):
    cp = nodes * per_node
    _, weights, _, pool, first, *_ = annealed(pack, cp, 50, folded=True)
    rows = np.empty((pool.shape[0], 4), dtype=np.int32)
    rows = rows[: copy_rows(pool, first, rows)].astype(np.int64)
    weights[ACROSS_US] = across_us(pack, nodes, SETTING)
    reserve = CUTS_A_RANK * cp
    state = adopt(rows, pack.size, cp, per_node, len(rows) + reserve + 8 * cp, weights)
    last = anneal(*state, weights, DRAWS, GRID, reserve, 50, steps, 0.01, 5.0)
    assert_foreseen(*state, weights)
    pool, first, counters, _, _, loads = state
    rows = np.empty((pool.shape[0], 4), dtype=np.int32)
    rows = rows[: copy_rows(pool, first, rows)]
    rows = rows[np.lexsort((rows[:, 2], rows[:, 1], rows[:, 0]))]
    rank, document, start, stop = rows.T
    sent = two_level_tokens(document, rank, start, stop, cp, per_node)[0]
    np.testing.assert_array_equal(loads[:, ACROSS], sent)
    needed = np.stack(needed_tokens(document, rank, start, stop, cp))
    np.testing.assert_array_equal(loads[:, [SENT, RECEIVED]].T, needed)
    if steps:
        traffic, excess = np.empty(cp), np.empty(cp)
        strain(loads, 5.0, weights, traffic, excess)
        again = energy(loads, counters[CUTS], weights, traffic, excess)
        assert np.isclose(again, last, rtol=1e-9)


def test_settling_on_nodes_takes_less_time_there():
    setting = replace(SETTING, model=load_model("paper-h32"), ranks_per_node=8)
    one = replace(setting, ranks_per_node=16)
    packing = traces.pack(traces.load("papers"), 131_072, by="truncate", packs=4)
    before = after = 0.0
    for i in range(4):
        given = packing.document_lengths(i)
        weights = search_weights(given, 16, one, "time")
        seated = gather_on_nodes(find_placements(given, 16, weights, 1.0)[-1], 16, 8)
        weights[ACROSS_US] = across_us(given, 2, setting)
        settled = settle_on_nodes(seated, given, 16, 8, weights, 1.0)
        tokens = np.bincount(settled[-1][:, 0], settled[-1][:, 3] - settled[-1][:, 2])
        assert np.ptp(tokens) <= 1
        took = [
            min(option.total_us for option in options(rows, given, 16, setting))
            for rows in (seated, *settled)
        ]
        before += took[0]
        after += min(took)
    assert after < 0.97 * before


@given(pack=lengths(), cp=st.integers(2, 9), steps=st.integers(0, 200))
@settings(max_examples=40, deadline=None)
def test_the_repair_makes_tokens_equal_from_any_placement(pack, cp, steps):
    _, weights, _, *state, loads = annealed(pack, cp, steps, False)
    repair(*state, loads, weights, GRID)
    assert loads[:, TOKENS].max() - loads[:, TOKENS].min() <= 1


@given(pack=lengths(), cp=st.integers(2, 9), steps=st.integers(0, 200), folded=st.booleans())
@settings(max_examples=60, deadline=None)
def test_evening_out_keeps_tokens_shards_and_their_order_and_never_spreads_work(
    pack, cp, steps, folded
):
    _, _, _, pool, first, *_, loads = annealed(pack, cp, steps, folded)
    rows = np.empty((pool.shape[0], 4), dtype=np.int32)
    before = rows[: copy_rows(pool, first, rows)].copy()
    work = loads[:, PAIRS].copy()
    even_out(pool, first, work, GRID, DRAWS)
    after = rows[: copy_rows(pool, first, rows)]
    np.testing.assert_array_equal(after[:, :2], before[:, :2])
    assert (after[:, 3] > after[:, 2]).all()
    inner = before[:, 3] != pack_ends(before)
    np.testing.assert_array_equal(after[~inner, 3], before[~inner, 3])
    assert ((after[inner, 3] - before[inner, 3]) % GRID == 0).all()
    for rows_then, pairs in ((before, loads[:, PAIRS]), (after, work)):
        rank, _, start, stop = rows_then.T
        np.testing.assert_array_equal(np.bincount(rank, stop - start, cp), loads[:, TOKENS])
        again = np.bincount(rank, [pairs_of(a, b) for _, _, a, b in rows_then.tolist()], cp)
        np.testing.assert_array_equal(again, pairs)
    assert work.std() <= loads[:, PAIRS].std() * (1 + 1e-12)


def pack_ends(rows: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return the end of each shard's document."""
    ends = np.zeros(rows[:, 1].max() + 1, dtype=np.int32)
    np.maximum.at(ends, rows[:, 1], rows[:, 3])
    return ends[rows[:, 1]]


def find_placement(*given):
    """The first placement, before the last stage goes on."""
    return find_placements(*given, again=False)[0]


@given(pack=lengths(), cp=st.integers(2, 9))
@settings(max_examples=30, deadline=None)
def test_every_placement_that_goes_on_holds_each_token_once_and_equal_ones_a_rank(pack, cp):
    weights = search_weights(pack, cp, SETTING)
    found = find_placements(pack, cp, weights, 0.05)
    np.testing.assert_array_equal(found[0], find_placement(pack, cp, weights, 0.05))
    for rows in found:
        by_place = rows[_by_place(rows)]
        begins = np.append(True, by_place[1:, 1] != by_place[:-1, 1])
        np.testing.assert_array_equal(
            by_place[:, 2], np.where(begins, 0, np.roll(by_place[:, 3], 1))
        )
        np.testing.assert_array_equal(by_place[np.append(begins[1:], True), 3], pack)
        tokens = np.bincount(rows[:, 0], rows[:, 3] - rows[:, 2], cp)
        assert tokens.max() - tokens.min() <= 1


def test_going_on_evens_out_what_the_first_end_left_uneven():
    pack = check_lengths([55_395, 15_154, 6_600, 6_483, 6_276, 4_808, 4_723, 4_387, 27_246])
    weights = search_weights(pack, 8, SETTING)
    found = find_placements(pack, 8, weights, 0.1)
    assert imbalance(found[0], 8) > 1.005
    assert len(found) > 1
    assert min(imbalance(rows, 8) for rows in found[1:]) < imbalance(found[0], 8)


def test_cuts_fall_on_tiles_but_for_one_row_a_rank():
    pack = check_lengths([40_000, 30_001, 20_077, 15_003, 12_345, 9_000, 4_646])
    rows = find_placement(pack, 8, search_weights(pack, 8, SETTING), 1.0)
    # Pieces of a full tile and more that begin off a tile boundary would walk a tile more a row.
    long_pieces = rows[rows[:, 3] - rows[:, 2] >= 256]
    assert np.mean(long_pieces[:, 2] % 128 == 0) > 0.9


def test_more_steps_do_not_make_the_mean_placement_worse():
    packs = [check_lengths(np.exp(7 + 1.5 * np.sin(np.arange(30) * (k + 1))).astype(int) + 1)
             for k in range(6)]  # fmt: skip
    means = []
    for effort in (0.0, 1.0):
        worst = []
        for pack in packs:
            rows = find_placement(pack, 4, search_weights(pack, 4, SETTING), effort)
            work = np.bincount(rows[:, 0], weights=[pairs_of(a, b) for _, _, a, b in rows.tolist()])
            worst.append(work.max() / work.mean())
        means.append(np.mean(worst))
    assert means[1] < means[0]
    assert means[1] < 1.01


@pytest.mark.parametrize("two_level", [False, True])
@given(pack=lengths(), nodes=st.integers(1, 4), per_node=st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_gathering_on_nodes_only_renumbers_ranks_and_never_crosses_more(
    two_level, pack, nodes, per_node
):
    cp = nodes * per_node
    rows = find_placement(pack, cp, search_weights(pack, cp, SETTING), 0.05)
    gathered = gather_on_nodes(rows, cp, per_node, two_level=two_level)
    crossing = two_level_tokens if two_level else across_tokens
    after_tokens, before_tokens = (
        crossing(*r.T[[1, 0, 2, 3]], cp, per_node)[0].sum() for r in (gathered, rows)
    )
    assert after_tokens <= before_tokens
    if two_level:
        ordered = rows[_by_place(rows)].astype(np.int64)
        assert crossing_tokens(ordered, np.arange(cp), per_node) == before_tokens
    before, after = (r[_by_place(r)][:, 0].tolist() for r in (rows, gathered))
    seats = dict(zip(before, after, strict=True))
    assert [seats[rank] for rank in before] == after
    assert sorted(seats.values()) == sorted(set(seats.values()))
    for given_rows in (rows, gathered):
        rank, document, start, stop = given_rows.T
        sent, received = needed_tokens(document, rank, start, stop, cp)
        pairs = pair_tokens(given_rows, cp)
        np.testing.assert_array_equal(pairs.sum(axis=1), sent)
        np.testing.assert_array_equal(pairs.sum(axis=0), received)


def _by_place(rows: NDArray[np.int32]) -> NDArray[np.intp]:
    return np.lexsort((rows[:, 2], rows[:, 1]))

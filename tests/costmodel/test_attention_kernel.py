"""The compiled evaluation: its closed forms, its order, its bounds."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costmodel import attention_kernel as kernel
from costmodel.attention import AttentionFit, AttentionModel, Coefficients
from costmodel.attention_backward import reported_backward
from costmodel.attention_bound import lower_bound_us, most_pairs_within
from costmodel.calibrated_prior import cpu_prior
from costmodel.estimate import Source

COEFFICIENTS = Coefficients(
    launch_us=10.5,
    kv_tile_us=1.54,
    query_tile_us=1.43,
    query_row_us=2.33,
    tail=0.115,
    critical_scale=0.933,
    split_us=2.86,
    split_row_us=1.77,
    throttle=0.182,
    throttle_after_us=3760.0,
    pack_penalty=0.0384,
    l2_mb=28.7,
    row_spill_us_per_mb=0.0419,
    cache_spill_us_per_mb=0.253,
    cache_write_us=3.59,
)

# The first call of a compiled function compiles it.
no_deadline = settings(deadline=None)


def model(packs_gqa: bool = True, splits_keys: bool = True) -> AttentionModel:
    fits = [
        AttentionFit("forward", head_dim, tile_q, tile_k, COEFFICIENTS, Source.MEASURED, None)
        for head_dim, tile_q, tile_k in ((64, 192, 128), (128, 128, 128))
    ]
    backward = [reported_backward(fit, packs_gqa=packs_gqa) for fit in fits]
    return AttentionModel("flash-attn-3", 132, packs_gqa, splits_keys, (*fits, *backward))


def call_us(q_lens, k_lens, parameters):
    q, k = np.asarray(q_lens, np.int64), np.asarray(k_lens, np.int64)
    return kernel.attention_us(q, k, np.array([0, len(q)], np.int64), parameters)[0]


@st.composite
def segments(draw, most_tokens: int = 40_000, most: int = 12):
    count = draw(st.integers(1, most))
    q_lens = draw(st.lists(st.integers(1, most_tokens), min_size=count, max_size=count))
    prefixes = draw(st.lists(st.integers(0, most_tokens), min_size=count, max_size=count))
    return q_lens, [q + p for q, p in zip(q_lens, prefixes, strict=True)]


@st.composite
def parameter_rows(draw, causal: bool = True, splits: bool = True):
    kv_heads = draw(st.sampled_from([1, 2, 8, 32]))
    group = draw(st.sampled_from([1, 2, 3, 5, 8, 16]))
    splits_keys = splits and draw(st.booleans())
    found = model(draw(st.booleans()), splits_keys).parameters(
        kv_heads * group,
        kv_heads,
        draw(st.sampled_from([64, 128])),
        draw(st.sampled_from(["forward", "backward"])),
        causal=causal,
        cache_write=draw(st.booleans()),
    )
    # No kernel that splits keys starts empty blocks, and none costs more than a tile walked.
    empty = 0.0 if splits_keys else draw(st.sampled_from([0.0, 0.3, 1.0]))
    found[kernel.EMPTY_TILE_US] = empty * found[kernel.KV_TILE_US]
    return found


def tiles_by_loop(q_len, k_len, packed, tile_q, tile_k):
    """What FlashAttention's loops walk: query tiles, key tiles in all, key tiles of the longest."""
    walked = []
    for tile in range(-(-q_len * packed // tile_q)):
        last_query = min(((tile + 1) * tile_q - 1) // packed, q_len - 1)
        walked.append(-(-(last_query + 1 + k_len - q_len) // tile_k))
    return len(walked), sum(walked), max(walked)


@no_deadline
@given(
    q_len=st.integers(1, 3000),
    prefix=st.integers(0, 3000),
    group=st.sampled_from([1, 2, 3, 5, 6, 8, 12, 64]),
    head_dim=st.sampled_from([64, 128]),
)
def test_closed_form_counts_the_tiles_that_the_kernels_loops_walk(q_len, prefix, group, head_dim):
    parameters = model().parameters(group, 1, head_dim, "forward")
    tile_q, tile_k = (192, 128) if head_dim == 64 else (128, 128)
    expected = tiles_by_loop(q_len, q_len + prefix, group, tile_q, tile_k)
    owned, walked, longest = expected
    features = kernel.segment_features(q_len, q_len + prefix, parameters)
    assert features == (owned, walked, q_len, longest, owned, 1)


@no_deadline
@given(st.integers(0, 2**53 - 1), st.integers(1, 2**40))
def test_division_in_floating_point_is_exact(a, b):
    for near in (a, a // b * b, max(0, a // b * b - 1)):
        assert kernel._floor_div(near, b) == near // b


@no_deadline
@given(
    count=st.integers(0, 60),
    step=st.integers(1, 300),
    start=st.integers(0, 2**32),
    divisor=st.integers(1, 2**15),
)
def test_sums_of_ceilings_are_exact(count, step, start, divisor):
    expected = sum(-(-(i * step + start) // divisor) for i in range(1, count + 1))
    assert kernel.sum_of_ceilings(count, step, start, divisor) == expected


def test_without_a_mask_every_tile_of_the_rectangle_is_walked():
    parameters = model().parameters(8, 8, 128, "forward", causal=False)
    assert kernel.segment_features(300, 1000, parameters) == (3, 24, 300, 8, 3, 1)


def test_backward_blocks_own_key_tiles():
    parameters = model().parameters(8, 2, 128, "backward")
    assert kernel.segment_features(128, 1024, parameters) == (8, 8, 128, 1, 8, 1)


@no_deadline
@given(segments(), st.sampled_from(["forward", "backward"]), st.floats(0.01, 2.0))
def test_blocks_beyond_a_segments_end_cost_what_the_profile_says(call, direction, empty_us):
    parameters = model(packs_gqa=False).parameters(8, 2, 128, direction, cache_write=False)
    parameters[kernel.THROTTLE] = parameters[kernel.TAIL] = parameters[kernel.CRITICAL_SCALE] = 0
    before = call_us(*call, parameters)
    parameters[kernel.EMPTY_TILE_US] = empty_us
    # The grid that such a kernel starts, less the blocks with anything to do.
    tiles = [-(-length // 128) for length in call[0 if direction == "forward" else 1]]
    empty = sum(max(tiles) - own for own in tiles)
    assert call_us(*call, parameters) - before == pytest.approx(
        empty * 8 * empty_us / 132, rel=1e-6, abs=1e-9 * before
    )


@no_deadline
@given(length=st.integers(1, 50_000), count=st.integers(1, 50), parameters=parameter_rows())
def test_equal_segments_start_no_block_for_nothing(length, count, parameters):
    lens = [length] * count
    before = call_us(lens, lens, parameters)
    parameters[kernel.EMPTY_TILE_US] = 1e6
    assert call_us(lens, lens, parameters) == before


@no_deadline
@given(segments(), parameter_rows(), st.randoms(use_true_random=False))
def test_order_of_segments_does_not_change_a_bit(call, parameters, random):
    pairs = list(zip(*call, strict=True))
    random.shuffle(pairs)
    assert call_us(*zip(*pairs, strict=True), parameters) == call_us(*call, parameters)


@no_deadline
@given(segments(), segments(most=1), parameter_rows(splits=False))
def test_time_never_falls_when_a_segment_is_added(call, one, parameters):
    more = call[0] + one[0], call[1] + one[1]
    assert call_us(*more, parameters) >= call_us(*call, parameters)


@no_deadline
@given(
    q_len=st.integers(1, 50_000),
    prefix=st.integers(0, 50_000),
    more=st.integers(1, 999),
    parameters=parameter_rows(splits=False),
)
def test_time_never_falls_with_a_longer_prefix_or_more_queries_behind_it(
    q_len, prefix, more, parameters
):
    # Beside a longer segment the added keys fill blocks that were empty.
    for q_lens, k_lens in (([], []), ([1, 9], [60_000, 9])):
        before = call_us([*q_lens, q_len], [*k_lens, q_len + prefix], parameters)
        longer = [*k_lens, q_len + prefix + more]
        assert call_us([*q_lens, q_len], longer, parameters) >= before * (1 - 1e-12)
        assert call_us([*q_lens, q_len + more], longer, parameters) >= before * (1 - 1e-12)


@no_deadline
@given(segments(), segments(most=1), parameter_rows())
def test_where_keys_are_split_time_falls_by_less_than_a_third_as_the_splitting_ends(
    call, one, parameters
):
    # Measured: 8 sequences of 1,024 tokens take 75 us with 8 query heads, which split, while
    # 4 sequences with 16 heads, which are as much work and do not, take 54 us.
    more = call[0] + one[0], call[1] + one[1]
    assert call_us(*more, parameters) >= 2 / 3 * call_us(*call, parameters)


@no_deadline
@given(
    k_len=st.integers(2, 50_000),
    share=st.floats(0.001, 0.999),
    more=st.integers(1, 300),
    parameters=parameter_rows(splits=False),
)
def test_more_queries_of_the_same_keys_save_at_most_a_query_tiles_width_each(
    k_len, share, more, parameters
):
    # Tiles are cut from the first query on, so a shard that begins earlier may end each of them up
    # to a query tile earlier, before a key tile's edge instead of behind it; where query tiles are
    # wider than key tiles, before two.
    q_len = max(1, int(k_len * share))
    wider = min(k_len, q_len + more)
    before = kernel.segment_features(q_len, k_len, parameters)
    after = kernel.segment_features(wider, k_len, parameters)
    query_tiles = before[3] if parameters[kernel.KEY_OUTER] else before[0]
    assert after[0] >= before[0]
    edges = np.ceil(
        parameters[kernel.TILE_Q] / parameters[kernel.PACKED] / parameters[kernel.TILE_K]
    )
    assert after[1] >= before[1] - query_tiles * edges


@no_deadline
@given(segments(), parameter_rows())
def test_segments_without_tokens_cost_nothing(call, parameters):
    padded = [0, *call[0], 0], [0, *call[1], 77]
    assert call_us(*padded, parameters) == call_us(*call, parameters)


def test_a_call_without_tokens_costs_nothing():
    parameters = model().parameters(32, 8, 128, "forward")
    splits = np.array([0, 0, 2, 3], np.int64)
    q, k = np.array([0, 0, 5], np.int64), np.array([0, 9, 5], np.int64)
    times = kernel.attention_us(q, k, splits, parameters)
    assert times[0] == times[1] == 0
    assert times[2] > 0


@no_deadline
@given(
    length=st.integers(2, 100_000),
    share=st.floats(0.01, 0.99),
    head_dim=st.sampled_from([64, 128]),
    group=st.sampled_from([1, 3, 8]),
    direction=st.sampled_from(["forward", "backward"]),
)
def test_cutting_a_document_in_one_call_saves_at_most_a_tile_a_tile_row(
    length, share, head_dim, group, direction
):
    # Tiles of the second shard start at the cut, so each of its rows may end up to one key tile
    # earlier than the row of the whole that it replaces.
    parameters = model().parameters(8 * group, 8, head_dim, direction)
    cut = min(max(1, int(length * share)), length - 1)
    whole = kernel.segment_features(length, length, parameters)
    parts = [
        kernel.segment_features(cut, cut, parameters),
        kernel.segment_features(length - cut, length, parameters),
    ]
    rows = -(-length * parameters[kernel.PACKED] // parameters[kernel.TILE_Q])
    assert parts[0][0] + parts[1][0] >= whole[0]
    assert parts[0][1] + parts[1][1] >= whole[1] - rows


@st.composite
def placements(draw, calls):
    """Documents and their shards: each one's rank, start and stop."""
    lengths = draw(st.lists(st.integers(1, 5000), min_size=1, max_size=12))
    shards = []
    for length in lengths:
        cuts = draw(st.sets(st.integers(1, length), max_size=5)) - {length}
        edges = [0, *sorted(cuts), length]
        shards += [(draw(st.integers(0, calls - 1)), *pair) for pair in pairwise(edges)]
    return np.array(lengths, np.int64), np.array(sorted(shards), np.int64)


def cpu_rows(direction):
    return cpu_prior(2).parameters(8, 2, 128, direction, cache_write=False)


@settings(max_examples=300, deadline=None)
@given(
    st.integers(1, 6).flatmap(lambda ranks: st.tuples(st.just(ranks), placements(ranks))),
    st.one_of(parameter_rows(), st.sampled_from(["forward", "backward"]).map(cpu_rows)),
)
def test_lower_bound_holds_for_the_mean_over_calls(placed, parameters):
    ranks, (lengths, (rank, start, stop)) = placed[0], (placed[1][0], placed[1][1].T)
    splits = np.searchsorted(rank, np.arange(ranks + 1)).astype(np.int64)
    tokens = np.bincount(rank, stop - start, ranks)
    pairs = np.bincount(rank, 0.5 * (stop - start) * (start + stop + 1), ranks)
    most, most_pairs = int(tokens.max()), float(pairs.max())
    slack = 1 + 1e-12
    # All keys in one call, ...
    times = kernel.attention_us(stop - start, stop, splits, parameters)
    busy = int((times > 0).sum())
    bound = lower_bound_us(lengths, parameters, ranks, busy, most, False, most_pairs)
    assert 0 < lower_bound_us(lengths, parameters, ranks, busy, most, False) <= bound
    assert bound <= times.mean() * slack
    assert 0 < lower_bound_us(lengths, parameters, ranks, busy, most, True) <= bound * slack
    # ... or own keys in one and what precedes them in another.
    full = parameters.copy()
    full[kernel.CAUSAL] = 0.0
    own = kernel.attention_us(stop - start, stop - start, splits, parameters)
    prefixes = kernel.attention_us(np.where(start > 0, stop - start, 0), start, splits, full)
    bound = 2 * lower_bound_us(lengths, parameters, 2 * ranks, busy, most, False, most_pairs)
    assert bound <= (own + prefixes).mean() * slack
    # Either way a rank has no more pairs than its time allows.
    for each in (times, own + prefixes):
        for i in np.flatnonzero(tokens):
            within = most_pairs_within(float(each[i]), int(tokens[i]), [parameters])
            assert pairs[i] <= within * slack


@pytest.mark.parametrize("length", [100, 128, 200, 512, 2048, 16_384, 131_072])
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_lower_bound_is_within_two_percent_for_whole_documents(length, direction):
    parameters = model().parameters(32, 32, 128, direction, cache_write=False)
    lengths = np.full(max(1, 16_384 // length), length, np.int64)
    bound = lower_bound_us(lengths, parameters, 1, 1, int(lengths.sum()), False)
    us = call_us(lengths, lengths, parameters)
    assert 0.98 * us < bound <= us * (1 + 1e-12)


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_documents_of_four_million_tokens_stay_exact(direction):
    parameters = model().parameters(128, 1, 128, direction)
    length = 4_194_304
    one = kernel.segment_features(length, length, parameters)
    assert one[1] * 1024 < 2**53
    times = call_us([length] * 1024, [length] * 1024, parameters)
    assert np.isfinite(times)
    assert times > 1000 * call_us([length], [length], parameters)

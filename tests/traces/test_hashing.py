from unittest.mock import patch

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from traces.hashing import _mix, hashes, shuffled_rows, uniforms


def test_the_finaliser_is_splitmix64s():
    # The first output of the published generator from state 0.
    state = np.array([0x9E3779B97F4A7C15], dtype=np.uint64)
    assert int(_mix(state)[0]) == 0xE220A8397B1DCDAF


def test_hashes_and_orders_never_change():
    assert [hex(value) for value in hashes(0, 3)] == [
        "0xa706dd2f4d197e6f",
        "0xb382a305f4414f5e",
        "0x631a9154fbabf717",
    ]
    assert [hex(value) for value in hashes(1, 2, stream=2)] == [
        "0xde2472106ae1f0c5",
        "0xbcf59cb5d3947948",
    ]
    assert shuffled_rows(8, 0).tolist() == [5, 7, 2, 0, 3, 1, 6, 4]
    assert shuffled_rows(8, 7).tolist() == [5, 4, 2, 3, 1, 0, 7, 6]


@given(seed=st.integers(-(2**70), 2**70), count=st.integers(0, 300))
def test_no_two_rows_share_a_hash_and_orders_are_permutations(seed, count):
    assert np.unique(hashes(seed, count)).size == count
    assert np.array_equal(np.sort(shuffled_rows(count, seed)), np.arange(count))


@given(seed=st.integers(0, 2**64), short=st.integers(0, 50), more=st.integers(0, 50))
def test_more_rows_do_not_change_the_hashes_of_the_first(seed, short, more):
    assert np.array_equal(hashes(seed, short), hashes(seed, short + more)[:short])


@given(
    seed=st.integers(0, 5),
    documents=st.integers(1, 3000),
    first=st.integers(1, 3000),
    slice_rows=st.sampled_from([7, 500, 4096]),
)
def test_the_first_rows_of_the_order_are_had_without_the_rest(seed, documents, first, slice_rows):
    with patch("traces.hashing._SLICE", slice_rows):
        rows = shuffled_rows(documents, seed, first=first)
    assert np.array_equal(rows, shuffled_rows(documents, seed)[:first])
    assert rows.dtype == np.int64


def test_uniforms_lie_strictly_between_0_and_1_and_are_uniform():
    u = uniforms(3, 200_000)
    assert u.min() > 0
    assert u.max() < 1
    counts = np.histogram(u, bins=20, range=(0, 1))[0]
    # Twenty bins of 10,000 expected: five standard deviations are 490.
    assert np.abs(counts - 10_000).max() < 490


def test_streams_and_seeds_are_unrelated():
    draws = [uniforms(0, 20_000), uniforms(1, 20_000), uniforms(0, 20_000, stream=1)]
    correlations = np.corrcoef(draws)[np.triu_indices(3, 1)]
    assert np.abs(correlations).max() < 0.04


def test_without_a_seed_the_order_is_the_corpus_order():
    assert shuffled_rows(4, None).tolist() == [0, 1, 2, 3]

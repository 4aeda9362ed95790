import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from traces import Trace, describe, load

traces = st.lists(st.integers(1, 10**6), min_size=1, max_size=60).map(
    lambda lengths: Trace("t", lengths)
)


@given(traces)
def test_buckets_hold_every_document_token_and_pair_once(trace):
    lengths = trace.lengths.astype(np.int64)
    found = describe(trace)
    assert sum(bucket.documents for bucket in found.buckets) == found.documents == lengths.size
    assert sum(bucket.tokens for bucket in found.buckets) == found.tokens == lengths.sum()
    assert sum(bucket.work for bucket in found.buckets) == found.work
    assert found.work == (lengths * (lengths + 1) // 2).sum()
    for name in ("document_share", "token_share", "work_share"):
        assert sum(getattr(bucket, name) for bucket in found.buckets) == pytest.approx(1)
    for bucket in found.buckets:
        inside = (lengths > bucket.above) & (lengths <= bucket.up_to)
        assert bucket.documents == inside.sum()
        assert bucket.tokens == lengths[inside].sum()


@given(traces)
def test_quantiles_are_lengths_that_so_many_documents_do_not_exceed(trace):
    found = describe(trace)
    assert found.shortest == trace.lengths.min()
    assert found.longest == trace.lengths.max()
    assert found.mean == pytest.approx(trace.lengths.mean())
    for share, length in found.quantiles.items():
        assert length in trace.lengths
        assert (trace.lengths <= length).mean() >= share - 1e-9


def test_documents_above_32k_hold_the_share_of_codes_tokens_that_was_measured():
    found = describe(load("code"))
    share = sum(bucket.token_share for bucket in found.buckets if bucket.above >= 32_768)
    assert share == pytest.approx(0.288, abs=0.0005)


def test_the_longest_document_possible_is_described():
    found = describe(Trace("t", [2**31 - 1, 1]))
    assert found.buckets[-1].up_to == 2**31
    assert found.work == pytest.approx(2.0**61)

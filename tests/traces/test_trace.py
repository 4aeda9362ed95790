import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from traces import Trace, TraceError, bundled_names, load

lengths = st.lists(st.integers(1, 2**31 - 1), min_size=1, max_size=50)


@given(lengths)
def test_a_trace_holds_its_lengths_as_read_only_int32(values):
    trace = Trace("t", values)
    assert trace.lengths.dtype == np.int32
    assert trace.lengths.tolist() == values
    assert trace.documents == len(trace) == len(values)
    assert trace.tokens == sum(values)
    with pytest.raises(ValueError, match="read-only"):
        trace.lengths[0] = 1


def test_later_changes_to_the_array_given_do_not_reach_the_trace():
    given = np.array([1, 2, 3], dtype=np.int32)
    trace = Trace("t", given)
    view = given[:2]
    view.flags.writeable = False
    of_view = Trace("v", view)
    given[:] = 9
    assert trace.lengths.tolist() == [1, 2, 3]
    assert of_view.lengths.tolist() == [1, 2]


@given(lengths, lengths)
def test_fingerprints_are_equal_exactly_when_the_lengths_are(one, other):
    same = Trace("one", one).fingerprint == Trace("other", other).fingerprint
    assert same == (one == other)
    assert (Trace("one", one) == Trace("other", other)) == same


def test_the_fingerprint_is_the_sha256_of_little_endian_int32():
    expected = hashlib.sha256(bytes([1, 0, 0, 0, 0, 1, 0, 0])).hexdigest()
    assert Trace("t", [1, 256]).fingerprint == expected


def test_float_lengths_are_taken_when_whole():
    assert Trace("t", np.array([1.0, 7.0])).lengths.tolist() == [1, 7]


@pytest.mark.parametrize("wrong", [[], [[1, 2]], [0], [-1], [2**31], [1.5], [float("nan")], ["a"]])
def test_a_trace_refuses_what_is_not_a_list_of_lengths(wrong):
    with pytest.raises(TraceError):
        Trace("t", wrong)


# From the measurement's own account of each trace.
MEASURED = {
    "code": (191_080, 579.9e6, 623, 643_892),
    "papers": (3_362, 68.2e6, 21_042, 148_104),
    "books": (1_428, 181.9e6, 95_840, 1_182_361),
    "wiki": (192_000, 66.7e6, 129, 34_018),
    "long-sft": (983, 9.1e6, 7_639, 56_963),
}


@pytest.mark.parametrize("name", MEASURED)
def test_bundled_traces_hold_what_was_measured(name):
    documents, tokens, median, longest = MEASURED[name]
    trace = load(name)
    assert trace.documents == documents
    assert trace.tokens == pytest.approx(tokens, rel=4e-3)
    assert np.median(trace.lengths) == pytest.approx(median, abs=1)
    assert trace.lengths.max() == longest


def test_every_bundled_trace_is_checked_here():
    assert set(bundled_names()) == set(MEASURED)

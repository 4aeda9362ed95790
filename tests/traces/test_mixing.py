import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from traces import Trace, TraceError, load, mix
from traces.mixing import parse_mixture

ONES = Trace("ones", [1] * 1000)
TENS = Trace("tens", [10] * 1000)


@given(weight=st.floats(0.01, 100), seed=st.integers(0, 3))
def test_weights_are_shares_of_tokens(weight, seed):
    mixed = mix([ONES, TENS], [weight, 1.0], seed=seed)
    tokens = mixed.lengths[mixed.lengths == 1].sum()
    share = weight / (weight + 1)
    # To within half a document of each trace.
    assert abs(tokens - share * mixed.tokens) <= 6


def test_without_a_size_no_document_repeats_and_one_trace_is_taken_whole():
    mixed = mix([ONES, TENS], [0.5, 0.5])
    counts = np.bincount(mixed.lengths)
    assert counts[1] == 1000
    assert counts[10] == 100


def test_a_size_repeats_what_is_too_short_in_whole_rounds():
    mixed = mix([ONES, TENS], [0.5, 0.5], tokens=5000)
    counts = np.bincount(mixed.lengths)
    assert counts[1] == 2500
    assert counts[10] == 250


def test_every_stretch_is_mixed_alike():
    mixed = mix([ONES, TENS], [0.5, 0.5], tokens=20_000)
    quarters = np.array_split(mixed.lengths == 10, 4)
    shares = [quarter.mean() for quarter in quarters]
    assert max(shares) - min(shares) < 0.03


def test_the_seed_decides_which_documents_are_taken():
    numbered = Trace("numbered", np.arange(1, 1001))
    first, again, other = (mix([numbered, ONES], [1, 1], seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other


@given(st.integers(1, 50))
def test_each_trace_gives_at_least_one_document(tokens):
    mixed = mix([Trace("a", [1000]), Trace("b", [7])], [1, 1], tokens=tokens)
    assert {1000, 7} <= set(mixed.lengths.tolist())


@pytest.mark.parametrize(
    ("spec", "pairs"),
    [
        ("code=0.7,papers=0.3", [("code", 0.7), ("papers", 0.3)]),
        ("a/b.parquet=1,code=2", [("a/b.parquet", 1), ("code", 2)]),
        ("fixed:4096=0.5,code=.5", [("fixed:4096", 0.5), ("code", 0.5)]),
        (
            "lognormal:median=600,sigma=1.5=0.3,code=0.7",
            [("lognormal:median=600,sigma=1.5", 0.3), ("code", 0.7)],
        ),
        ("code=1", [("code", 1)]),
        ("lognormal:median=600,sigma=1.5", []),
        ("code", []),
        ("code,papers", []),
    ],
)
def test_mixtures_are_sources_with_weights(spec, pairs):
    assert parse_mixture(spec) == pairs


def test_a_mixture_loads_by_its_spec():
    mixed = load("books=0.25,papers=0.75", seed=4)
    assert mixed == mix([load("books"), load("papers")], [0.25, 0.75], seed=4)
    assert mixed.name == "books=0.25,papers=0.75"


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("code=0,papers=1", ["weight 0.0 of code", "positive"]),
        ("code=-1,papers=1", ["weight -1.0 of code"]),
        ("code=nan,papers=1", ["weight nan"]),
        ("code=inf,papers=1", ["weight inf"]),
        ("code=1e-320,papers=1e308", ["weight 9.99989e-321 of code", "beside 1e+308", "0.7"]),
        ("code=1e-20,papers=1", ["weight 1e-20 of code is nothing"]),
        ("code=1_0,papers=1", ["'1_0'", "0.7"]),
        ("code=٣,papers=1", ["'٣'", "0.7"]),
        ("code=,papers=1", ["''", "code", "0.7"]),
        ("code=x,papers=1", ["'x'", "code", "0.7"]),
        ("code=1,paper=1", ["'paper'", "did you mean 'papers'"]),
        ("code=0.7;papers=0.3", ["'code=0.7;papers=0.3'", "write one as"]),
        ("code=0.7,papers", ["'code=0.7,papers'", "write one as code=0.7,papers=0.3"]),
    ],
)
def test_wrong_mixtures_are_named_with_the_way_out(spec, words):
    with pytest.raises(TraceError) as caught:
        load(spec)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("weight", [1e308, 1e-320])
def test_only_the_weights_ratios_count_however_large_they_are(weight):
    assert mix([ONES, TENS], [weight, weight]) == mix([ONES, TENS], [1, 1])


def test_wrong_calls_are_named():
    with pytest.raises(TraceError, match="1 traces and 2 weights"):
        mix([ONES], [1, 2])
    with pytest.raises(TraceError, match="0 traces"):
        mix([], [])
    with pytest.raises(TraceError, match="tokens 0"):
        mix([ONES], [1], tokens=0)

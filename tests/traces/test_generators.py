import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from traces import TraceError, generate, generator_names, load
from traces.generators import MAX_DOCUMENTS, published

names = st.sampled_from(generator_names())


@given(names, st.integers(0, 2**64), st.integers(1, 200), st.integers(0, 200))
def test_a_longer_trace_of_the_same_seed_begins_with_the_shorter(name, seed, documents, more):
    short = generate(name, documents=documents, seed=seed)
    long = generate(name, documents=documents + more, seed=seed)
    assert short.documents == documents
    assert np.array_equal(long.lengths[:documents], short.lengths)


FINGERPRINTS = {
    "wlb-llm": "4293dffd37ed59e5963f290072994f8c18074f701f6f58f559e5511e65589a8d",
    "magi-attention": "0a7273e9823f5f7142989637e23e33ea4fb1462e5f3136b06e8a08dec7ee6ffe",
    "lognormal": "100fbee859600906e04d7f213aa9fd259f83b8ec4120e998f117d1611db4fa80",
    "one-long-many-short": "fb0f48836ae8b46243c2a58a161cce60c80f276394a4d9338222027484276d24",
}


@pytest.mark.parametrize("name", FINGERPRINTS)
def test_generated_traces_never_change(name):
    assert generate(name, documents=1000, seed=1).fingerprint == FINGERPRINTS[name]


@pytest.mark.parametrize("name", ["wlb-llm", "magi-attention"])
def test_every_bin_of_a_published_histogram_gets_its_share(name):
    table = published(name)
    edges, counts = np.array(table["edges"]), np.array(table["documents"])
    drawn = 200_000
    lengths = generate(name, documents=drawn, seed=5).lengths
    assert lengths.min() > edges[0]
    assert lengths.max() <= edges[-1]
    # Bins are (low, high], as published ones are named by their upper ends.
    bins = np.searchsorted(edges[1:], lengths, side="left")
    got = np.bincount(bins, minlength=counts.size) / drawn
    expected = counts / counts.sum()
    # Five standard deviations of a binomial share.
    assert (np.abs(got - expected) <= 5 * np.sqrt(expected * (1 - expected) / drawn)).all()


@pytest.mark.parametrize("name", ["wlb-llm", "magi-attention"])
def test_published_tables_say_where_they_come_from(name):
    table = published(name)
    assert table["unit"] == "tokens"
    assert table["source"]
    assert table["provenance"].startswith("reported")
    assert len(table["edges"]) == len(table["documents"]) + 1
    assert np.diff(table["edges"]).min() > 0


def test_wlb_llm_quantiles_follow_from_its_bins():
    lengths = generate("wlb-llm", documents=200_000, seed=2).lengths
    # 97.23% of the documents lie uniformly in the first 6,250 tokens.
    for share in (0.1, 0.5, 0.9):
        expected = share / (96764 / 99519) * 6250
        assert np.quantile(lengths, share) == pytest.approx(expected, rel=0.015)


def test_lognormal_has_the_median_and_the_spread_asked_for():
    lengths = generate("lognormal", documents=100_000, median=2000, sigma=0.5).lengths
    logs = np.log(lengths)
    assert np.median(lengths) == pytest.approx(2000, rel=0.01)
    assert logs.std() == pytest.approx(0.5, rel=0.01)


def test_lognormal_is_clipped():
    lengths = generate("lognormal", documents=10_000, median=1000, sigma=10, longest=5000).lengths
    assert lengths.min() == 1
    assert lengths.max() == 5000


@given(names, st.integers(1, 100))
def test_the_slices_that_lengths_are_drawn_in_do_not_show(name, documents):
    whole = generate(name, documents=documents, seed=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("traces.generators._SLICE", 7)
        assert generate(name, documents=documents, seed=3) == whole


def test_one_long_document_comes_before_many_short_ones():
    lengths = generate("one-long-many-short", documents=8, long=9, short=2, many=3).lengths
    assert lengths.tolist() == [9, 2, 2, 2, 9, 2, 2, 2]


@pytest.mark.parametrize(
    ("spec", "name", "parameters"),
    [
        ("fixed:4k", "fixed", {"length": 4096}),
        ("fixed:length=100", "fixed", {"length": 100}),
        ("fixed", "fixed", {}),
        ("lognormal:median=600,sigma=1.5", "lognormal", {"median": 600, "sigma": 1.5}),
        ("lognormal:2k,sigma=1", "lognormal", {"median": 2048, "sigma": 1}),
        (
            "one-long-many-short:long=64k,short=512,many=3",
            "one-long-many-short",
            {"long": 65536, "short": 512, "many": 3},
        ),
    ],
)
def test_specs_are_generators_with_parameters(spec, name, parameters):
    written = load(spec, documents=50, seed=3)
    assert written == generate(name, documents=50, seed=3, **parameters)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("lognormal:medium=3", ["'medium'", "did you mean 'median'", "sigma"]),
        ("lognormal:median=0", ["median 0", "1 and 2147483647"]),
        ("lognormal:sigma=11", ["sigma 11", "0 and 10"]),
        ("lognormal:median=600,", ["''", "key=value"]),
        ("lognormal:median=600,1.5", ["'1.5'", "key=value"]),
        ("lognormal:median=1,median=2", ["median is given twice"]),
        ("lognormal:median=many", ["'many'", "64k"]),
        ("fixed:1.5", ["length 1.5", "whole number"]),
        ("fixed:-3", ["'-3'", "not a number"]),
        ("fixed:3g", ["'3g'"]),
        ("wlb-llm:8k", ["'8k'"]),
        ("wlb-llm:scale=2", ["'scale'", "takes none"]),
    ],
)
def test_wrong_specs_are_named_with_the_way_out(spec, words):
    with pytest.raises(TraceError) as caught:
        load(spec)
    assert "\n" not in str(caught.value)
    for word in [spec.partition(":")[0], *words]:
        assert word in str(caught.value)


def test_wrong_calls_are_named_with_the_way_out():
    with pytest.raises(TraceError, match="unknown generator 'wlbllm'; did you mean 'wlb-llm'"):
        generate("wlbllm")
    with pytest.raises(TraceError, match="documents 0 is not between 1 and"):
        generate("fixed", documents=0)
    with pytest.raises(TraceError, match="134217729 is not between 1 and 134217728, the most"):
        generate("fixed", documents=MAX_DOCUMENTS + 1)
    with pytest.raises(TraceError, match="sigma nan is not between"):
        generate("lognormal", sigma=float("nan"))
    with pytest.raises(TraceError, match="median inf"):
        generate("lognormal", median=float("inf"))

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from traces import Trace, TraceError, load, pack
from traces.hashing import shuffled_rows
from traces.packers import PACKERS

lengths = st.lists(st.one_of(st.integers(1, 20), st.integers(1, 300)), min_size=1, max_size=80).map(
    lambda values: Trace("t", values)
)
windows = st.integers(1, 128)
seeds = st.one_of(st.none(), st.integers(0, 5))
some = st.one_of(st.none(), st.integers(1, 12))


def tokens_of(packing):
    """Every packed token as (row, position in its document), in packed order."""
    return [
        (int(row), int(offset) + position)
        for row, offset, length in zip(packing.rows, packing.offsets, packing.lengths, strict=True)
        for position in range(length)
    ]


def pack_of(packing):
    """The pack of each piece."""
    return np.repeat(np.arange(len(packing)), np.diff(packing.splits))


def work(packing):
    pieces = packing.lengths.astype(np.float64)
    return np.bincount(pack_of(packing), weights=pieces * (pieces + 1) / 2)


def batch_imbalance(packing, packs_per_batch=8):
    whole = len(packing) // packs_per_batch * packs_per_batch
    batches = work(packing)[:whole].reshape(-1, packs_per_batch)
    return float(np.mean(batches.max(axis=1) / batches.mean(axis=1)))


@given(lengths, windows, st.sampled_from(PACKERS), some, seeds)
def test_packs_never_exceed_the_window_nor_are_empty_and_hold_each_token_at_most_once(
    trace, window, by, packs, seed
):
    packing = pack(trace, window, by=by, packs=packs, seed=seed, buffer_packs=3, packs_per_batch=3)
    assert packing.splits[0] == 0
    assert packing.splits[-1] == packing.lengths.size == packing.rows.size == packing.offsets.size
    assert np.diff(packing.splits).min() >= 1
    totals = np.add.reduceat(packing.lengths, packing.splits[:-1])
    assert totals.max() <= window
    assert packing.lengths.min() >= 1
    assert 1 <= len(packing) <= (packs or trace.tokens)
    assert (packing.offsets + packing.lengths <= trace.lengths[packing.rows]).all()
    assert len(set(tokens_of(packing))) == packing.tokens
    assert packing.fill == pytest.approx(packing.tokens / (len(packing) * window))


@given(lengths, windows, st.sampled_from(PACKERS), seeds)
def test_no_token_vanishes_uncounted(trace, window, by, seed):
    packing = pack(trace, window, by=by, seed=seed, buffer_packs=3, packs_per_batch=3)
    assert packing.tokens + packing.dropped_tokens == trace.tokens
    assert np.unique(packing.rows).size + packing.dropped_documents == trace.documents
    assert packing.held_documents == 0


@given(lengths, windows, seeds)
def test_concat_keeps_every_token_in_order_until_the_last_short_pack(trace, window, seed):
    packing = pack(trace, window, by="concat", seed=seed)
    everything = [
        (int(row), position)
        for row in shuffled_rows(trace.documents, seed)
        for position in range(trace.lengths[row])
    ]
    kept = trace.tokens // window * window or trace.tokens
    assert tokens_of(packing) == everything[:kept]
    assert packing.dropped_tokens == trace.tokens - kept


@given(lengths, windows, seeds)
def test_truncate_starts_every_piece_at_its_documents_start_and_cuts_only_at_a_packs_end(
    trace, window, seed
):
    packing = pack(trace, window, by="truncate", seed=seed)
    order = shuffled_rows(trace.documents, seed)
    assert np.array_equal(packing.rows, order[: packing.rows.size])
    assert not packing.offsets.any()
    cut = packing.lengths < trace.lengths[packing.rows]
    last = np.zeros_like(cut)
    last[packing.splits[1:] - 1] = True
    assert not (cut & ~last).any()
    cut_tokens = int((trace.lengths[packing.rows] - packing.lengths).sum())
    left_out = int(trace.lengths[order[packing.rows.size :]].sum())
    assert packing.dropped_tokens == cut_tokens + left_out
    full = np.add.reduceat(packing.lengths, packing.splits[:-1]) == window
    assert full.all() or len(packing) == 1


@given(lengths, windows, st.sampled_from(["best-fit", "balanced"]), seeds, st.integers(1, 5))
def test_best_fit_and_balanced_place_every_token_once_and_cut_only_what_exceeds_the_window(
    trace, window, by, seed, size
):
    packing = pack(trace, window, by=by, seed=seed, buffer_packs=size, packs_per_batch=size)
    assert packing.dropped_tokens == packing.dropped_documents == 0
    assert len(set(tokens_of(packing))) == packing.tokens == trace.tokens
    pieces = np.bincount(packing.rows, minlength=trace.documents)
    assert np.array_equal(pieces, -(-trace.lengths // window))


@given(lengths, windows, st.sampled_from(PACKERS), seeds, st.integers(1, 12))
def test_fewer_packs_are_the_first_of_all_packs(trace, window, by, seed, packs):
    options = {"by": by, "seed": seed, "buffer_packs": 2, "packs_per_batch": 2}
    # Too low a guess of the documents needed, so that a packer runs out of them and starts anew.
    with patch("traces.packing._documents_for", lambda *_: 2):
        some = pack(trace, window, packs=packs, **options)
    everything = pack(trace, window, **options)
    count = min(packs, len(everything))
    assert len(some) == count
    assert np.array_equal(some.splits, everything.splits[: count + 1])
    pieces = some.splits[-1]
    for name in ("lengths", "rows", "offsets"):
        assert np.array_equal(getattr(some, name), getattr(everything, name)[:pieces])


@given(lengths, windows, st.sampled_from(PACKERS))
def test_documents_keep_their_order_of_arrival_within_a_pack(trace, window, by):
    packing = pack(trace, window, by=by, seed=None, buffer_packs=3, packs_per_batch=3)
    # Balanced packing may put what waited in a queue behind what came later.
    if by != "balanced":
        within = np.diff(packing.rows)[np.diff(pack_of(packing)) == 0]
        assert (within >= 0).all()


@given(lengths, windows)
def test_best_fit_leaves_no_two_packs_that_would_fit_into_one(trace, window):
    packing = pack(trace, window, by="best-fit", buffer_packs=10_000)
    totals = np.sort(np.add.reduceat(packing.lengths, packing.splits[:-1]))
    assert len(packing) == 1 or totals[0] + totals[1] > window


def test_best_fit_wastes_less_than_a_thousandth_of_the_windows_on_code():
    assert pack(load("code"), 131_072, by="best-fit").fill > 0.999


@pytest.mark.parametrize(("name", "below"), [("code", 1.1), ("wlb-llm", 1.1), ("wiki", 1.02)])
def test_balanced_batches_differ_less_in_work_than_concats(name, below):
    trace = load(name)
    balanced = batch_imbalance(pack(trace, 131_072, by="balanced"))
    assert balanced < below
    assert batch_imbalance(pack(trace, 131_072, by="concat")) > balanced + 0.04


def test_the_first_packs_of_best_fit_are_a_fair_sample_of_work():
    packing = pack(load("code"), 131_072, by="best-fit")
    ratio = work(packing)[:400].mean() / work(packing).mean()
    assert ratio == pytest.approx(1, abs=0.15)


def test_balanced_reads_ahead_no_further_than_its_queues_may_hold():
    # Nothing but outliers of two lengths that fill no batch together.
    trace = Trace("t", [60, 90] * 20_000)
    packing = pack(trace, 100, by="balanced", packs=80)
    assert len(packing) == 80
    assert packing.held_documents < 16 * 8 * 100 / 60 + 16


def test_outliers_wait_until_there_is_one_for_every_pack():
    trace = Trace("t", [1, 1, 50] * 400)
    packing = pack(trace, 100, by="balanced", packs=16, packs_per_batch=4, outlier_tokens=[50])
    longest = np.maximum.reduceat(packing.lengths, packing.splits[:-1]).reshape(-1, 4)
    assert ((longest == 50).all(axis=1) | (longest == 1).all(axis=1)).all()
    assert (longest == 50).any()


def test_a_pack_shows_the_lengths_of_its_documents():
    packing = pack([4, 5, 6], 10, by="concat", seed=None)
    assert packing.document_lengths(0).tolist() == [4, 5, 1][:3]
    assert packing.document_lengths(-1).tolist() == [4, 5, 1]
    with pytest.raises(IndexError, match="pack 1 of 1"):
        packing.document_lengths(1)


def test_a_trace_shorter_than_the_window_gives_one_pack_by_every_rule():
    for by in PACKERS:
        packing = pack([3, 4], 100, by=by, seed=None)
        assert packing.document_lengths(0).tolist() == [3, 4]
        assert packing.dropped_tokens == 0


def test_seeds_order_the_documents_and_none_keeps_the_corpus_order():
    trace = Trace("t", np.arange(1, 101))
    assert pack(trace, 5050, seed=None).rows.tolist() == list(range(100))
    first, again, other = (pack(trace, 5050, seed=seed).rows.tolist() for seed in (1, 1, 2))
    assert first == again != other
    assert sorted(first) == list(range(100))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"context_tokens": 0}, ["context_tokens 0", "1 and 2147483647"]),
        ({"context_tokens": -5}, ["context_tokens -5"]),
        ({"context_tokens": 2**31}, ["context_tokens 2147483648"]),
        ({"context_tokens": 1.5}, ["context_tokens 1.5", "whole number"]),
        ({"by": "concatenate"}, ["'concatenate'", "did you mean 'concat'"]),
        ({"by": "zzz"}, ["'zzz'", "concat, truncate, best-fit, balanced"]),
        ({"packs": 0}, ["packs 0"]),
        ({"packs": True}, ["packs True"]),
        ({"by": "best-fit", "buffer_packs": 0}, ["buffer_packs 0"]),
        ({"by": "balanced", "packs_per_batch": 0}, ["packs_per_batch 0"]),
        ({"by": "balanced", "outlier_tokens": [8, 4]}, ["outlier_tokens 8,4", "ascending"]),
        ({"by": "balanced", "outlier_tokens": [0]}, ["outlier_tokens 0", "positive"]),
    ],
)
def test_wrong_arguments_are_named_with_the_way_out(arguments, words):
    with pytest.raises(TraceError) as caught:
        pack([1, 2, 3], **({"context_tokens": 10} | arguments))
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def digest(by):
    packing = pack(load("papers"), 32_768, by=by, packs=300, seed=3)
    arrays = (packing.splits, packing.lengths, packing.rows, packing.offsets)
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


DIGESTS = {
    "concat": "3d08dedad989f15e8a2f9aac1605cc848833ce6e13bfb690574d0f5f51bcba72",
    "truncate": "c8c742a1fdeb0eae20600d3181edd49978595bcc079c2eddb67d811fe8c648f3",
    "best-fit": "31fe2e488512cb8be383a6d0cfcfaee714119980bf3b5d7ed52ee5b5823a4cb0",
    "balanced": "40a726c0569fab50c76b0318d3c9d9680cfab0f3c9c8fe120ddf4798a0e6266a",
}


@pytest.mark.parametrize("by", PACKERS)
def test_packs_are_the_same_on_every_machine_and_for_ever(by):
    assert digest(by) == DIGESTS[by]


def test_packs_are_the_same_uncompiled():
    script = "from tests.traces.test_packing import DIGESTS, digest\n"
    script += "assert {by: digest(by) for by in DIGESTS} == DIGESTS"
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", script], env=environment, cwd=root, check=True)

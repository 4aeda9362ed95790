"""Every strategy cuts every pack exactly: each token once, ranks equal, the same everywhere."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flashcp.errors import PlanError
from flashcp.plans import Plan
from flashcp.strategies import NAMES, STRATEGIES, shard
from flashcp.strategies._chunks import chunk_start
from tests.flashcp.packs import cp_degrees, lengths

FIXED = sorted(STRATEGIES)


def brute_cover(plan: Plan) -> None:
    """Check by counting every token on its own, unlike `Plan.validate`."""
    holders = [np.zeros(length, dtype=int) for length in plan.lengths]
    tokens = np.zeros(plan.cp, dtype=int)
    for d, r, a, b in zip(plan.document, plan.rank, plan.start, plan.stop, strict=True):
        assert b > a
        holders[d][a:b] += 1
        tokens[r] += b - a
    assert all((held == 1).all() for held in holders)
    assert tokens.max() - tokens.min() <= 1


@pytest.mark.parametrize("strategy", FIXED)
@given(pack=lengths(), cp=cp_degrees())
@example(pack=np.array([1], dtype=np.int32), cp=1)
@example(pack=np.array([1], dtype=np.int32), cp=17)
@example(pack=np.array([5, 1, 1], dtype=np.int32), cp=8)
@example(pack=np.array([131072], dtype=np.int32), cp=8)
@example(pack=np.array([16384] * 8, dtype=np.int32), cp=8)
@settings(max_examples=60, deadline=None)
def test_each_token_is_on_one_rank_and_ranks_are_equal(strategy, pack, cp):
    plan = shard(pack, cp, strategy)
    plan.validate()
    brute_cover(plan)


@pytest.mark.parametrize("strategy", FIXED)
@given(pack=lengths(), cp=cp_degrees())
@settings(max_examples=40, deadline=None)
def test_shards_are_canonical(strategy, pack, cp):
    plan = shard(pack, cp, strategy)
    keys = list(zip(plan.rank, plan.document, plan.start, strict=True))
    assert keys == sorted(keys)
    for i in range(plan.shards - 1):
        same = plan.rank[i] == plan.rank[i + 1] and plan.document[i] == plan.document[i + 1]
        assert not (same and plan.stop[i] == plan.start[i + 1]), "neighbours were not joined"


@pytest.mark.parametrize("strategy", FIXED)
@pytest.mark.parametrize("cp", [1, 2, 3, 5, 64, 1000, 1024])
def test_degrees_up_to_1024(strategy, cp):
    pack = np.array([1, 2, 1023, 40_000, 7, 90_000, 1, 39], dtype=np.int32)
    plan = shard(pack, cp, strategy)
    plan.validate()
    assert plan.rank_work.sum() == sum(n * (n + 1) // 2 for n in pack.tolist())


@pytest.mark.parametrize("strategy", FIXED)
def test_more_ranks_than_tokens_leaves_ranks_empty(strategy):
    plan = shard([2, 1], 8, strategy)
    assert sorted(plan.rank_tokens.tolist()) == [0, 0, 0, 0, 0, 1, 1, 1]


@given(pack=lengths(), cp=cp_degrees())
@settings(max_examples=60, deadline=None)
def test_per_doc_balances_every_document(pack, cp):
    plan = shard(pack, cp, "per-doc")
    for d, length in enumerate(pack.tolist()):
        rows = plan.document == d
        tokens = np.bincount(plan.rank[rows], (plan.stop - plan.start)[rows], minlength=cp)
        assert tokens.max() - tokens.min() <= 2
        assert tokens.sum() == length


@given(length=st.integers(1, 10_000), chunks=st.integers(1, 300), carry=st.integers(0, 299))
def test_chunks_differ_by_at_most_one_token(length, chunks, carry):
    starts = [chunk_start(length, chunks, carry % chunks, c) for c in range(chunks + 1)]
    assert starts[0] == 0
    assert starts[-1] == length
    sizes = np.diff(starts)
    assert sizes.min() >= length // chunks
    assert sizes.max() <= -(-length // chunks)


@given(cp=st.integers(2, 16), length=st.integers(3_000, 200_000))
@settings(max_examples=40, deadline=None)
def test_one_long_document_is_balanced_by_zigzag_per_seq_per_doc_and_flashcp(cp, length):
    for strategy in ("zigzag", "per-seq", "per-doc", "flashcp"):
        work = shard([length], cp, strategy).rank_work
        assert work.max() / work.mean() < 1.05, strategy


def test_ring_leaves_the_last_rank_with_almost_twice_the_mean():
    work = shard([128_000], 8, "ring").rank_work
    assert work.argmax() == 7
    assert work.max() / work.mean() == pytest.approx(2 - 1 / 8, rel=1e-3)


def test_per_seq_ignores_documents():
    plan = shard([8, 8], 2, "per-seq")
    rows = list(zip(plan.rank.tolist(), plan.document.tolist(), plan.start.tolist(),
                    plan.stop.tolist(), strict=True))  # fmt: skip
    assert rows == [(0, 0, 0, 4), (0, 1, 4, 8), (1, 0, 4, 8), (1, 1, 0, 4)]


def test_flashcp_keeps_documents_whole_that_fit():
    plan = shard([16384] * 8, 8, "flashcp")
    assert plan.shards == 8
    assert plan.non_last_tokens.max() == 0


def test_flashcp_cuts_a_giant_over_all_ranks_and_keeps_the_rest_whole():
    pack = np.array([98_304] + [2_048] * 16, dtype=np.int32)
    plan = shard(pack, 8, "flashcp")
    giant = plan.document == 0
    assert set(plan.rank[giant].tolist()) == set(range(8))
    assert plan.rank_work.max() / plan.rank_work.mean() <= 1.04
    assert (np.bincount(plan.document[~giant])[1:] == 1).all()


@given(pack=lengths(), cp=cp_degrees(8))
@settings(max_examples=60, deadline=None)
def test_flashcp_moves_no_more_than_a_full_all_gather(pack, cp):
    plan = shard(pack, cp, "flashcp")
    assert plan.non_last_tokens.max() <= plan.rank_tokens.max()


def test_plans_are_the_same_in_another_process():
    code = (
        "from flashcp.strategies import STRATEGIES, shard\n"
        "for s in sorted(STRATEGIES):\n"
        "    print(s, shard([70001, 33, 1, 2048, 9000, 40000], 8, s).fingerprint)\n"
    )
    printed = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    here = [f"{s} {shard([70001, 33, 1, 2048, 9000, 40000], 8, s).fingerprint}" for s in FIXED]
    assert [p.stdout.splitlines() for p in printed] == [here, here]


def test_a_plan_from_another_process_is_the_same_and_stays_read_only():
    # Writable arrays would be another type to compiled code, which would be compiled again.
    plan = shard([70001, 33, 1, 2048, 9000, 40000], 8, "flashcp")
    there = pickle.loads(pickle.dumps(plan))  # noqa: S301 - ours
    assert there.fingerprint == plan.fingerprint
    for name in ("lengths", "document", "rank", "start", "stop"):
        assert not getattr(there, name).flags.writeable


# The committed fingerprints: a strategy may change only on purpose, with a line in CHANGELOG.md,
# since ranks of different versions would then plan differently.
FINGERPRINTS = {
    "ring": "958b1f4fa664c749",
    "zigzag": "2cc9613b2582386e",
    "per-seq": "da98ba3931480662",
    "per-doc": "2a63b96153518b41",
    "flashcp": "e254044f5ae1cef6",
}


@pytest.mark.parametrize("strategy", FIXED)
def test_plans_have_not_changed_since_they_were_released(strategy):
    pack = [70001, 33, 1, 2048, 9000, 40000, 5, 5, 777]
    assert shard(pack, 8, strategy).fingerprint == FINGERPRINTS[strategy]


@pytest.mark.parametrize(
    ("pack", "cp", "strategy", "named"),
    [
        ([], 8, "ring", "shape (0,)"),
        ([[1, 2]], 8, "ring", "shape (1, 2)"),
        ([3, 0], 8, "per-doc", "document 1 has length 0"),
        ([3, -7], 8, "per-doc", "document 1 has length -7"),
        ([2**31], 8, "per-doc", "document 0 has length 2147483648"),
        ([2**30, 2**30], 8, "per-doc", "2147483648"),
        ([1.5], 8, "per-doc", "float64"),
        ([float("nan")], 8, "per-doc", "float64"),
        (["a"], 8, "per-doc", "document lengths are whole numbers"),
        ([4], 0, "per-doc", "CP degree 0"),
        ([4], -1, "per-doc", "CP degree -1"),
        ([4], 1025, "per-doc", "CP degree 1025"),
        ([4], 2.0, "per-doc", "CP degree 2.0"),
        ([4], True, "per-doc", "CP degree True"),
        ([4], 8, "per-dok", "did you mean 'per-doc'?"),
        ([4], 8, "qqqq", ", ".join(NAMES)),
    ],
)
def test_wrong_input_is_named_in_one_line(pack, cp, strategy, named):
    with pytest.raises(PlanError) as caught:
        shard(pack, cp, strategy)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)

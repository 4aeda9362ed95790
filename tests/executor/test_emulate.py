"""Every strategy over random packs, all ranks on one device: results, bytes, empty ranks."""

import itertools
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from costmodel.model_shape import load_model
from costmodel.profile_file import load_profile
from executor import prepare, shard, unshard
from executor.bundled import Bundled
from executor.emulate import Emulation
from executor.kernels import ORACLE, Segments, relative_error, rms_error, select
from executor.kernels.cpu import CpuKernel
from executor.landing import landing
from executor.layout import placement
from executor.planned import planned_bytes
from executor.published import Published
from executor.rows import count
from flashcp.exchange import Exchange
from flashcp.prediction import Setting
from flashcp.strategies import STRATEGIES
from flashcp.strategies import shard as make_plan
from tests.executor.packs import all_plans, random_lengths, scattered_plan

CPU = torch.device("cpu")
PACKS = 300
# Query heads, KV heads, head size.
HEADS = ((1, 1, 8), (6, 2, 8), (2, 2, 4), (3, 1, 8), (8, 4, 4), (4, 4, 8))


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def draw(rng, tokens, heads, dtype=torch.float64):
    q_heads, kv_heads, head_dim = heads
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    return [
        torch.randn(tokens, h, head_dim, generator=generator, dtype=torch.float64).to(dtype)
        for h in (q_heads, kv_heads, kv_heads, q_heads)
    ]


def alone(kernel, lengths, q, k, v, dout):
    segments = Segments.of(lengths, lengths, CPU)
    result = kernel.forward(q, k, v, segments, 0.3)
    return (result[0], *kernel.backward(dout, (q, k, v), result, segments, 0.3))


def emulated(plan, q, k, v, dout, **ways):
    handles = [prepare(plan, rank, **ways) for rank in range(plan.cp)]
    emulation = Emulation(handles, select(CPU, q.dtype, q.shape[2]), 0.3)

    def shards(x):
        return [shard(x, plan, rank) for rank in range(plan.cp)]

    outs = emulation.forward(shards(q), shards(k), shards(v))
    gradients = zip(*emulation.backward(shards(dout)), strict=True)
    return [unshard(list(x), plan) for x in (outs, *gradients)], emulation.sent_bytes


def worst_error(found, true):
    return max(relative_error(a, b) for a, b in zip(found, true, strict=True))


@pytest.mark.parametrize("quarter", range(4))
def test_every_strategy_equals_one_process_on_300_random_packs(quarter):
    rng, chunks = np.random.default_rng(quarter), set()
    for index in range(PACKS // 4):
        lengths, cp = random_lengths(rng), 1 + index % 4
        heads = HEADS[int(rng.integers(len(HEADS)))]
        inputs = draw(rng, int(lengths.sum()), heads)
        true = alone(CpuKernel(), lengths, *inputs)
        for plan in all_plans(rng, lengths, cp):
            found, sent = emulated(plan, *inputs)
            said = f"{plan.strategy} by {plan.exchange} of {lengths.tolist()} over {cp}"
            assert worst_error(found, true) <= 1e-10, said
            planned = planned_bytes(plan, kv_heads=heads[1], head_dim=heads[2], element_bytes=8)
            assert sent == planned.tolist(), said
            chunks.add((plan.ranks_per_node is not None, plan.bundled, plan.chunks(heads[1])))
    # KV of both exchanges that may has travelled in one part, in two and in four, bundled and not.
    assert chunks == set(itertools.product((False, True), (False, True), (1, 2, 4)))


@pytest.mark.parametrize(
    ("dtype", "packs"), [(torch.float32, 300), (torch.bfloat16, 300), (torch.float16, 60)], ids=str
)
def test_lower_precision_stays_near_the_kernels_own_error(dtype, packs):
    rng = np.random.default_rng(7)
    for index in range(packs):
        # At least 16 tokens: of a handful of numbers the errors' mean is chance as well.
        lengths = np.append(random_lengths(rng, most_documents=3), np.int32(16))
        inputs = draw(rng, int(lengths.sum()), (4, 2, 16) if index % 2 else (4, 4, 16), dtype)
        true = alone(ORACLE, lengths, *inputs)
        own = [
            rms_error(a, b) for a, b in zip(alone(CpuKernel(), lengths, *inputs), true, strict=True)
        ]
        for plan in all_plans(rng, lengths, 1 + index % 4):
            found, _ = emulated(plan, *inputs)
            if dtype is torch.float32:
                assert worst_error(found, true) <= 1e-5, (plan.strategy, lengths)
                continue
            for one, exact, allowed in zip(found, true, own, strict=True):
                assert rms_error(one, exact) <= 2 * allowed, (plan.strategy, lengths)


def test_on_packs_of_a_thousand_tokens_the_largest_error_too_is_within_twice_the_kernels():
    """Of the tens of tokens of the packs above it varies by chance: 1.2% exceed, by up to 4 times.

    There the kernel's own largest error is of one number in a few hundred, a matter of luck.
    """
    rng = np.random.default_rng(8)
    for cp in (2, 4):
        lengths = np.array([700, 350, 120, 30], dtype=np.int32)
        inputs = draw(rng, 1200, (4, 2, 64), torch.bfloat16)
        true = alone(ORACLE, lengths, *inputs)
        own = alone(CpuKernel(), lengths, *inputs)
        for plan in all_plans(rng, lengths, cp):
            for one, exact, single in zip(emulated(plan, *inputs)[0], true, own, strict=True):
                allowed = 2 * relative_error(single, exact)
                assert relative_error(one, exact) <= allowed, plan.strategy


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("copies", ["published", "in-place"])
@pytest.mark.parametrize("gradients", ["all-to-all", "reduce-scatter"])
def test_every_way_to_copy_and_to_bring_gradients_home_is_as_exact(dtype, copies, gradients):
    rng = np.random.default_rng(13)
    for index in range(40):
        lengths, cp = np.append(random_lengths(rng), np.int32(16)), 1 + index % 4
        inputs = draw(rng, int(lengths.sum()), (4, 2, 8), dtype)
        true = alone(ORACLE, lengths, *inputs)
        own = alone(CpuKernel(), lengths, *inputs)
        for name in ("per-seq", "per-doc", "flashcp"):
            plan = make_plan(lengths, cp, name)
            found, sent = emulated(plan, *inputs, copies=copies, gradients=gradients)
            if dtype is torch.float64:
                assert worst_error(found, true) <= 1e-10, (name, lengths)
            else:
                for one, exact, single in zip(found, true, own, strict=True):
                    assert rms_error(one, exact) <= 2 * rms_error(single, exact), (name, lengths)
            planned = planned_bytes(
                plan, kv_heads=2, head_dim=8, element_bytes=dtype.itemsize, gradients=gradients
            )
            assert sent == planned.tolist()


def test_only_published_copies_copy_shard_by_shard():
    """`flashcp.prediction` counts them of the same strategies."""
    setting = Setting(load_profile("h100-sxm"), load_model("llama3-8b"), copies="published")
    for name in STRATEGIES:
        plan = make_plan(np.array([400, 30, 7]), 4, name)
        schedule = prepare(plan, 1, copies="published").schedule
        published = isinstance(getattr(schedule, "keys", None), Published)
        assert published == setting.copies_shards(name)
        assert not isinstance(getattr(prepare(plan, 1).schedule, "keys", None), Published)


def test_strided_keys_are_sent_as_they_are_read():
    """K and V as views of one projection, as models give them: only what is sent is copied."""
    rng = np.random.default_rng(21)
    lengths = np.array([90, 50], dtype=np.int32)
    q, k, v, dout = draw(rng, 140, (4, 2, 8))
    true = alone(ORACLE, lengths, q, k, v, dout)
    plans = all_plans(rng, lengths, 4)
    for plan in [*plans, replace(plans[5], head_chunks=2)]:
        handles = [prepare(plan, rank) for rank in range(4)]
        emulation = Emulation(handles, CpuKernel(), 0.3)
        kvs = [torch.stack([shard(x, plan, rank) for x in (k, v)], 1) for rank in range(4)]
        qs = [shard(q, plan, rank) for rank in range(4)]
        outs = emulation.forward(qs, [kv[:, 0] for kv in kvs], [kv[:, 1] for kv in kvs])
        gradients = emulation.backward([shard(dout, plan, rank) for rank in range(4)])
        found = [unshard(list(x), plan) for x in (outs, *zip(*gradients, strict=True))]
        assert worst_error(found, true) <= 1e-10, plan.strategy


def test_many_partial_gradients_add_up_in_float32():
    """A document that 64 ranks attend to: one sum of 64 in bfloat16 would round 64 times."""
    lengths = np.array([64], dtype=np.int32)
    rng = np.random.default_rng(3)
    q, k, v, dout = (x.abs() for x in draw(rng, 64, (2, 1, 16), torch.bfloat16))
    true = alone(ORACLE, lengths, q, k, v, dout)
    for exchange in Exchange:
        plan = scattered_plan(rng, lengths, 64, exchange, overlap=False)
        found, _ = emulated(plan, q, k, v, dout)
        # One rounding at the source and one at the end: each at most 2**-9, a root mean square of
        # about a half of that; a running sum in bfloat16 errs four times as much.
        assert rms_error(found[3], true[3]) <= 2**-9


@pytest.mark.parametrize("exchange", [Exchange.ALL_TO_ALL_NEEDED, Exchange.ALL_TO_ALL_TWO_LEVEL])
def test_parts_of_the_heads_change_no_more_than_the_last_digit(exchange):
    rng = np.random.default_rng(23)
    for _ in range(10):
        lengths = random_lengths(rng)
        inputs = draw(rng, int(lengths.sum()), (8, 4, 8), torch.float32)
        plan = scattered_plan(rng, lengths, 4, exchange, overlap=True)
        whole, two, four = (
            emulated(replace(plan, head_chunks=chunks), *inputs) for chunks in (1, 2, 4)
        )
        for found, sent in (two, four):
            assert sent == whole[1]
            assert worst_error(found, whole[0]) <= 1e-6


@pytest.mark.parametrize("exchange", [Exchange.ALL_TO_ALL_NEEDED, Exchange.ALL_TO_ALL_TWO_LEVEL])
def test_rows_are_packed_once_whatever_the_number_of_receivers(exchange):
    rng, packed = np.random.default_rng(29), 0
    for _ in range(20):
        plan = scattered_plan(rng, random_lengths(rng), 4, exchange, overlap=True)
        plan = replace(plan, bundled=False)
        for rank in range(4):
            keys = prepare(plan, rank).schedule.keys
            which, hops = keys.pack
            assert count(which) == plan.non_last_tokens[rank]
            rows = np.arange(plan.rank_tokens[rank])
            rows = rows[which.numpy() if isinstance(which, torch.Tensor) else which]
            assert (np.diff(rows) > 0).all()
            for hop, whole in zip(hops, keys.hops, strict=True):
                assert hop.recvs == whole.recvs
                for message, from_where in zip(hop.sends, whole.sends, strict=True):
                    assert message.peer == from_where.peer
                    if message.own:
                        here = rows[message.start : message.stop].tolist()
                        assert here == list(range(from_where.start, from_where.stop))
                        packed += 1
                    else:
                        assert message == from_where
    assert packed > 20


@pytest.mark.parametrize("exchange", [Exchange.ALL_TO_ALL_NEEDED, Exchange.ALL_TO_ALL_TWO_LEVEL])
def test_no_rank_sends_to_itself_and_no_message_is_empty(exchange):
    rng = np.random.default_rng(5)
    for _ in range(20):
        plan = scattered_plan(rng, random_lengths(rng), 4, exchange, overlap=True)
        plan = replace(plan, bundled=False)
        for rank in range(4):
            for hop in prepare(plan, rank).schedule.keys.hops:
                for message in (*hop.sends, *hop.recvs):
                    assert message.peer != rank
                    assert message.stop > message.start


@pytest.mark.parametrize("exchange", [Exchange.ALL_TO_ALL_NEEDED, Exchange.ALL_TO_ALL_TWO_LEVEL])
def test_bundles_change_no_bit_and_hold_the_rows_of_all_pieces(exchange):
    rng, moved = np.random.default_rng(31), 0
    for _ in range(20):
        lengths = random_lengths(rng)
        inputs = draw(rng, int(lengths.sum()), (8, 4, 8), torch.float32)
        plan = scattered_plan(rng, lengths, 4, exchange, overlap=bool(rng.integers(2)))
        apart, together = (replace(plan, bundled=bundled) for bundled in (False, True))
        whole, packed = emulated(apart, *inputs), emulated(together, *inputs)
        assert packed[1] == whole[1]
        assert all(torch.equal(a, b) for a, b in zip(packed[0][:2], whole[0][:2], strict=True))
        # Gradients of rows are added up in another order.
        assert worst_error(packed[0], whole[0]) <= 1e-6
        for rank in range(4):
            keys, pieces = (prepare(one, rank).schedule.keys for one in (together, apart))
            assert isinstance(keys, Bundled) == pieces.moves
            for index, hop in enumerate(pieces.hops):
                assert keys.sent[index][rank] == keys.received[index][rank] == 0
                for splits, messages in ((keys.sent, hop.sends), (keys.received, hop.recvs)):
                    rows = Counter()
                    for message in messages:
                        rows[message.peer] += message.stop - message.start
                    assert splits[index] == tuple(rows[peer] for peer in range(4))
                    moved += sum(splits[index])
    assert moved > 500


@pytest.mark.parametrize("exchange", [Exchange.ALL_TO_ALL_NEEDED, Exchange.ALL_TO_ALL_TWO_LEVEL])
def test_pieces_that_a_plan_counts_are_those_of_its_ranks_messages(exchange):
    rng, found = np.random.default_rng(37), 0
    for index in range(40):
        cp = 1 + index % 8
        plan = scattered_plan(rng, random_lengths(rng), cp, exchange, overlap=True)
        for rank in range(cp):
            hops = landing(placement(plan), rank).hops
            pieces = sum(len(way) for hop in hops for way in (hop.sends, hop.recvs))
            assert plan.pieces[rank] == pieces
            found += pieces
    assert found > 500


def test_more_ranks_than_tokens_leave_ranks_empty():
    lengths = np.array([2, 1], dtype=np.int32)
    rng = np.random.default_rng(1)
    inputs = draw(rng, 3, (2, 1, 8))
    true = alone(CpuKernel(), lengths, *inputs)
    for plan in all_plans(rng, lengths, 5):
        assert plan.rank_tokens.min() == 0
        assert worst_error(emulated(plan, *inputs)[0], true) <= 1e-10


@pytest.mark.parametrize("exchange", [e for e in Exchange if e is not Exchange.RING], ids=str)
def test_an_overlapping_plan_attends_to_own_keys_where_they_lie_and_then_to_prefixes(exchange):
    rng, seen = np.random.default_rng(17), set()
    for index in range(30):
        cp = 1 + index % 6
        lengths = random_lengths(rng) if index % 5 else np.array([2, 1], dtype=np.int32)
        plan = scattered_plan(rng, lengths, cp, exchange, overlap=True)
        for rank in range(cp):
            mine = plan.rank == rank
            starts, sizes = plan.start[mine], (plan.stop - plan.start)[mine]
            schedule, waits = prepare(plan, rank).schedule, starts > 0
            seen.add((bool(waits.any()), bool((~waits).any())))
            own = schedule.own
            # No index and no copy: their segments are all local rows, one shard each.
            assert (own.q_lens if own else ()) == (own.k_lens if own else ())
            assert sorted(own.q_lens if own else ()) == sorted(sizes.tolist())
            assert own is None or own.causal
            assert schedule.keys.in_place == sizes.sum()
            assert schedule.first == sizes[~waits].sum()
            waiting = schedule.waiting
            assert (waiting is None) == (not waits.any())
            if waiting:
                assert not waiting.causal
                assert sorted(waiting.k_lens) == sorted(starts[waits].tolist())
                assert sorted(waiting.q_lens) == sorted(sizes[waits].tolist())
    # Ranks without tokens, without any that wait, and with none that do not.
    assert seen == {(False, False), (False, True), (True, False), (True, True)}


def test_what_waits_for_nothing_is_attended_where_it_lies():
    plan = make_plan(np.array([64, 64, 64, 64]), 4, "flashcp")
    for rank in range(4):
        schedule = prepare(plan, rank).schedule
        assert schedule.waiting is None
        assert schedule.keys.hops == ()

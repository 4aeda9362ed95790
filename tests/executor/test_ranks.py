"""The same over real gloo ranks: results, bytes of the sends themselves, refusals, leaks.

One launch of four ranks runs everything in turn, CP 1 to 4 on subgroups.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.distributed as dist

from executor import RunError, attention, prepare, shard
from executor.kernels import ORACLE, Segments, relative_error, rms_error, select
from executor.planned import planned_bytes
from executor.transport import Transport
from flashcp.exchange import Exchange
from flashcp.strategies import shard as make_plan
from tests.executor.packs import all_plans, random_lengths, scattered_plan
from tests.executor.ranks import run_ranks

PACKS = 28
RANKS = 4


def test_four_gloo_ranks_agree_with_one_process_and_send_what_was_planned():
    run_ranks(everything, RANKS)


def everything(rank):
    groups = {cp: dist.new_group(list(range(cp))) for cp in range(1, RANKS + 1)}
    packs_in_double_precision(rank, groups)
    lower_precision(rank, groups)
    every_way_home(rank, groups[4])
    two_nodes_of_two(rank, groups[4])
    kv_in_parts(rank, groups[4])
    subgroup_of_other_ranks(rank)
    documents_apart(rank, groups[4])
    gradients_accumulate_over_layers(rank, groups[4])
    other_plans_are_refused(rank, groups[4])
    wrong_tensors_are_refused(rank, groups[4])


def draw(lengths, heads, seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    q_heads, kv_heads, head_dim = heads
    return [
        torch.randn(int(lengths.sum()), h, head_dim, generator=generator, dtype=torch.float64).to(
            dtype
        )
        for h in (q_heads, kv_heads, kv_heads, q_heads)
    ]


def alone(kernel, lengths, q, k, v, dout):
    segments = Segments.of(lengths, lengths, torch.device("cpu"))
    result = kernel.forward(q, k, v, segments, q.shape[2] ** -0.5)
    return (result[0], *kernel.backward(dout, (q, k, v), result, segments, q.shape[2] ** -0.5))


def distributed(plan, rank, group, inputs, transport=None, **ways):
    """This rank's out, dq, dk and dv."""
    handle = prepare(plan, rank, **ways)
    q, k, v = (shard(x, plan, rank).requires_grad_() for x in inputs[:3])
    out = attention(q, k, v, handle, transport or group)
    return (out.detach(), *torch.autograd.grad(out, (q, k, v), shard(inputs[3], plan, rank)))


def packs_in_double_precision(rank, groups):
    rng = np.random.default_rng(11)
    for index in range(PACKS):
        cp = 1 + index % RANKS
        lengths = random_lengths(rng)
        heads = ((6, 2, 8), (2, 2, 4))[index % 2]
        inputs = draw(lengths, heads, index)
        plans = all_plans(rng, lengths, cp)  # drawn alike on every rank
        if rank >= cp:
            continue
        true = alone(ORACLE, lengths, *inputs)
        for plan in plans:
            transport = Transport(groups[cp])
            found = distributed(plan, rank, groups[cp], inputs, transport)
            for one, exact in zip(found, true, strict=True):
                assert relative_error(one, shard(exact, plan, rank)) <= 1e-10, (plan, lengths)
            planned = planned_bytes(plan, kv_heads=heads[1], head_dim=heads[2], element_bytes=8)
            assert transport.sent_bytes == planned[rank], (plan, lengths)


def lower_precision(rank, groups):
    rng = np.random.default_rng(12)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        lengths = np.array([150, 20, 1, 90], dtype=np.int32)
        inputs = draw(lengths, (4, 2, 16), 5, dtype)
        true = alone(ORACLE, lengths, *inputs)
        own = alone(select(torch.device("cpu"), dtype, 16), lengths, *inputs)
        for plan in all_plans(rng, lengths, RANKS):
            found = distributed(plan, rank, groups[RANKS], inputs)
            for one, exact, single in zip(found, true, own, strict=True):
                assert one.dtype is dtype
                if dtype is torch.float32:
                    assert relative_error(one, shard(exact, plan, rank)) <= 1e-5
                else:
                    allowed = 2.5 * rms_error(single, exact)  # of a fourth of the numbers
                    assert rms_error(one, shard(exact, plan, rank)) <= allowed, plan.strategy


def every_way_home(rank, group):
    lengths = np.array([90, 40, 60, 1], dtype=np.int32)
    inputs = draw(lengths, (4, 2, 8), 14)
    true = alone(ORACLE, lengths, *inputs)
    for name in ("per-seq", "per-doc", "flashcp"):
        for copies in ("published", "in-place"):
            for gradients in ("all-to-all", "reduce-scatter"):
                plan, transport = make_plan(lengths, RANKS, name), Transport(group)
                ways = {"copies": copies, "gradients": gradients}
                found = distributed(plan, rank, group, inputs, transport, **ways)
                for one, exact in zip(found, true, strict=True):
                    assert relative_error(one, shard(exact, plan, rank)) <= 1e-10, (name, ways)
                planned = planned_bytes(
                    plan, kv_heads=2, head_dim=8, element_bytes=8, gradients=gradients
                )
                assert transport.sent_bytes == planned[rank]
    plan = make_plan(lengths, RANKS, "flashcp")
    way = "reduce-scatter" if rank == 1 else "all-to-all"
    line = refusal(lambda: distributed(plan, rank, group, inputs, gradients=way))
    assert line == "rank 1 has gradients by reduce-scatter, rank 0 gradients by all-to-all"


class Counting(Transport):
    """Counts what goes to ranks of this node and of others, two ranks a node."""

    def __init__(self, group):
        super().__init__(group)
        self.across_bytes = self.inside_bytes = 0

    def _exchanged(self, messages):
        for peer, rows in messages.sends:
            self.count(peer, rows.numel() * rows.element_size())
        return super()._exchanged(messages)

    def _bundled(self, bundle):
        row_bytes = bundle.send[:1].numel() * bundle.send.element_size()
        for peer, rows in enumerate(bundle.send_splits):
            if rows:
                self.count(peer, rows * row_bytes)
        return super()._bundled(bundle)

    def count(self, peer, sent_bytes):
        if peer // 2 == self.rank // 2:
            self.inside_bytes += sent_bytes
        else:
            assert peer % 2 == self.rank % 2  # along the rail
            self.across_bytes += sent_bytes


def two_nodes_of_two(rank, group):
    rng = np.random.default_rng(15)
    crossed = 0
    for index in range(8):
        lengths = random_lengths(rng, most_tokens=200)
        inputs = draw(lengths, (4, 2, 8), index)
        true = alone(ORACLE, lengths, *inputs)
        way = scattered_plan(
            rng, lengths, RANKS, Exchange.ALL_TO_ALL_NEEDED, overlap=bool(index % 2)
        )
        plan = replace(
            way,
            exchange=Exchange.ALL_TO_ALL_TWO_LEVEL,
            ranks_per_node=2,
            bundled=index % 4 > 1,
        )
        transport = Counting(group)
        for one, exact in zip(distributed(plan, rank, group, inputs, transport), true, strict=True):
            assert relative_error(one, shard(exact, plan, rank)) <= 1e-10, (plan, lengths)
        # Backward every message goes the other way: what was received is sent.
        sent, received, inside_sent, inside_received = (t[rank] for t in plan.two_level_tokens)
        kv_bytes = 2 * 2 * 8 * 8
        assert transport.across_bytes == (sent + received) * kv_bytes
        assert transport.inside_bytes == (inside_sent + inside_received) * kv_bytes
        crossed += transport.across_bytes
    assert crossed > 0


def kv_in_parts(rank, group):
    """Several exchanges under way at once, of one hop and of two."""
    rng = np.random.default_rng(16)
    for index in range(8):
        lengths = random_lengths(rng, most_tokens=200)
        inputs = draw(lengths, (8, 4, 8), index)
        true = alone(ORACLE, lengths, *inputs)
        exchange = (Exchange.ALL_TO_ALL_NEEDED, Exchange.ALL_TO_ALL_TWO_LEVEL)[index % 2]
        plan = scattered_plan(rng, lengths, RANKS, exchange, overlap=True)
        if exchange is Exchange.ALL_TO_ALL_TWO_LEVEL:
            plan = replace(plan, ranks_per_node=2)
        for chunks in (2, 4):
            parts, transport = replace(plan, head_chunks=chunks), Transport(group)
            assert parts.chunks(4) == chunks
            found = distributed(parts, rank, group, inputs, transport)
            for one, exact in zip(found, true, strict=True):
                assert relative_error(one, shard(exact, plan, rank)) <= 1e-10, (plan, lengths)
            planned = planned_bytes(parts, kv_heads=4, head_dim=8, element_bytes=8)
            assert transport.sent_bytes == planned[rank]


def subgroup_of_other_ranks(rank):
    """Rank 0 of the group need not be rank 0 of the world: rings address ranks of the group."""
    group = dist.new_group([1, 3, 2])
    if rank == 0:
        return
    lengths = np.array([40, 9], dtype=np.int32)
    inputs = draw(lengths, (2, 1, 8), 6)
    true = alone(ORACLE, lengths, *inputs)
    mine = dist.get_rank(group)
    for plan in all_plans(np.random.default_rng(2), lengths, 3):
        for one, exact in zip(distributed(plan, mine, group, inputs), true, strict=True):
            assert relative_error(one, shard(exact, plan, mine)) <= 1e-10


def documents_apart(rank, group):
    lengths = np.array([70, 50, 40], dtype=np.int32)
    inputs = draw(lengths, (2, 1, 8), 7, torch.float32)
    tokens = torch.repeat_interleave(torch.arange(3), torch.from_numpy(lengths).long())
    other = (tokens != 1).reshape(-1, 1, 1)
    changed = [torch.where(other, x, x * -3 + 1) for x in inputs[:3]]
    only = torch.where(other, torch.zeros(()), inputs[3])
    for plan in all_plans(np.random.default_rng(3), lengths, RANKS):
        before = distributed(plan, rank, group, inputs)
        after = distributed(plan, rank, group, [*changed, only])
        elsewhere = shard(tokens, plan, rank) != 1
        assert torch.equal(before[0][elsewhere], after[0][elsewhere])
        for gradient in after[1:]:
            assert not gradient[elsewhere].any()
        assert before[0].numel() == 0 or elsewhere.all() or not torch.equal(before[0], after[0])


def gradients_accumulate_over_layers(rank, group):
    """Two layers share one handle: nothing of the first may linger in the second."""
    lengths = np.array([33, 30], dtype=np.int32)
    q, k, v, dout = draw(lengths, (2, 2, 8), 8)
    for plan in all_plans(np.random.default_rng(4), lengths, RANKS):
        handle = prepare(plan, rank)
        local = shard(q, plan, rank).requires_grad_()
        keys, values = shard(k, plan, rank), shard(v, plan, rank)
        middle = attention(local, keys, values, handle, group)
        out = attention(middle, keys, values, handle, group)
        (found,) = torch.autograd.grad(out, local, shard(dout, plan, rank))
        first = alone(ORACLE, lengths, q, k, v, dout)[0]
        through = alone(ORACLE, lengths, first, k, v, dout)[1]
        true = alone(ORACLE, lengths, q, k, v, through)[1]
        assert relative_error(found, shard(true, plan, rank)) <= 1e-10


def refusal(call):
    with pytest.raises(RunError) as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


def other_plans_are_refused(rank, group):
    lengths = np.array([40, 24], dtype=np.int32)
    inputs = draw(lengths, (2, 1, 8), 9)
    plan = make_plan(lengths, RANKS, "per-doc")
    own = replace(plan, exchange="all-to-all-needed") if rank == 2 else plan
    line = refusal(lambda: distributed(own, rank, group, inputs))
    assert line.startswith("rank 2 has the plan ")
    assert plan.fingerprint in line
    three = make_plan(lengths, 3, "per-doc")
    line = refusal(lambda: distributed(three, min(rank, 2), group, inputs))
    assert line == f"rank {rank}: a plan for 3 ranks cannot run on 4; plan again with cp=4"
    line = refusal(lambda: distributed(plan, (rank + 1) % RANKS, group, inputs))
    other = (rank + 1) % RANKS
    assert line == f"rank {rank}: the plan is prepared for rank {other} of the group"


def wrong_tensors_are_refused(rank, group):
    lengths = np.array([40, 24], dtype=np.int32)
    plan = make_plan(lengths, RANKS, "per-doc")

    def call(q, k):
        attention(q, k, k, prepare(plan, rank), group)

    good, short = torch.zeros(16, 2, 8), torch.zeros(15, 1, 8)
    line = refusal(lambda: call(good, short if rank == 1 else torch.zeros(16, 1, 8)))
    if rank == 1:
        assert line == "rank 1: q has 16 and k 15 tokens where the plan gives rank 1 16"
    else:
        assert line == "rank 1 cannot run this; see its own message"
    line = refusal(lambda: call(good if rank else torch.zeros(16, 4, 8), torch.zeros(16, 2, 8)))
    assert line == "rank 1 has 2 query heads, rank 0 4 query heads"
    line = refusal(lambda: call(torch.zeros(16, 3, 8), torch.zeros(16, 2, 8)))
    assert line == f"rank {rank}: 2 KV heads do not divide 3 query heads"
    line = refusal(lambda: call(good.long(), good.long()))
    assert "they must be one float dtype" in line

"""What a training step does to `attention` besides calling it: compiled, autocast, strided, wrong.

One launch of two ranks. A refusal that only one rank finds must reach the other: a group whose
timeout is short would end the launch with another error.
"""

import contextlib
import weakref
from datetime import timedelta

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from executor import RunError, agreement, attention, prepare, shard
from executor.kernels import relative_error
from executor.kernels.cpu import CpuKernel
from flashcp.strategies import shard as make_plan
from tests.executor.packs import all_plans
from tests.executor.ranks import run_ranks
from tests.executor.test_ranks import draw, refusal

LENGTHS = np.array([40, 23, 1], dtype=np.int32)


def test_two_gloo_ranks_in_a_training_step():
    run_ranks(everything, 2)


def everything(rank):
    group = dist.new_group([0, 1], timeout=timedelta(seconds=20))
    any_strides(rank, group)
    autocast_leaves_the_precision_alone(rank, group)
    compiled_with_a_new_plan_a_step(rank, group)
    a_mesh_names_the_group(rank)
    no_second_derivative(rank, group)
    without_gradients_nothing_is_kept(rank, group)
    some_gradients_are_those_of_all(rank, group)
    what_one_rank_finds_reaches_the_other(rank, group)
    kernels_are_found_before_anybody_waits(rank, group)


def local(plan, rank, dtype=torch.float64):
    return [shard(x, plan, rank) for x in draw(LENGTHS, (4, 2, 8), 1, dtype)]


def outcome(handle, group, q, k, v, dout):
    inputs = [x.detach().requires_grad_() for x in (q, k, v)]
    out = attention(*inputs, handle, group)
    return (out.detach(), *torch.autograd.grad(out, inputs, dout.to(out.dtype)))


def any_strides(rank, group):
    for plan in all_plans(np.random.default_rng(0), LENGTHS, 2):
        handle, inputs = prepare(plan, rank), local(plan, rank)
        plain = outcome(handle, group, *inputs)
        for order in ((2, 0, 1), (1, 0, 2), (2, 1, 0)):
            back = [order.index(i) for i in range(3)]
            stored = [x.permute(order).contiguous().permute(back) for x in inputs]
            for one, other in zip(outcome(handle, group, *stored), plain, strict=True):
                assert relative_error(one, other) <= 1e-12, (plan.strategy, order)


def autocast_leaves_the_precision_alone(rank, group):
    plan = make_plan(LENGTHS, 2, "per-doc")
    handle, inputs = prepare(plan, rank), local(plan, rank, torch.float32)
    plain = outcome(handle, group, *inputs)
    with torch.autocast("cpu", torch.bfloat16):
        found = outcome(handle, group, *inputs)
    for one, other in zip(found, plain, strict=True):
        assert torch.equal(one, other)


def compiled_with_a_new_plan_a_step(rank, group):
    def layer(q, k, v, handle):
        return attention(q * 2, k, v, handle, group) + 1

    compiled = torch.compile(layer, backend="eager")
    for lengths in ([64], [30, 34], [8] * 8):
        for strategy in ("per-doc", "zigzag"):
            plan = make_plan(lengths, 2, strategy)
            q, k, v, _ = (shard(x, plan, rank) for x in draw(LENGTHS, (4, 2, 8), 2))
            handle = prepare(plan, rank)
            assert torch.equal(compiled(q, k, v, handle), layer(q, k, v, handle))


def a_mesh_names_the_group(rank):
    plan = make_plan(LENGTHS, 2, "per-doc")
    q, k, v, _ = local(plan, rank)
    handle = prepare(plan, rank)
    mesh = init_device_mesh("cpu", (1, 2), mesh_dim_names=("dp", "cp"))
    assert torch.equal(attention(q, k, v, handle, mesh["cp"]), attention(q, k, v, handle))
    with pytest.raises(RunError, match="a device mesh of 2 dimensions names no group"):
        attention(q, k, v, handle, mesh)


def no_second_derivative(rank, group):
    plan = make_plan(LENGTHS, 2, "per-doc")
    q, k, v, dout = local(plan, rank)
    q.requires_grad_()
    dout.requires_grad_()
    (dq,) = torch.autograd.grad(
        attention(q, k, v, prepare(plan, rank), group), q, dout, create_graph=True
    )
    with pytest.raises(RuntimeError, match="differentiate twice"):
        dq.sum().backward()


class Watching:
    """The CPU's kernel, which knows the keys that it was given for as long as someone has them."""

    name = CpuKernel.name

    def __init__(self):
        self.keys = []

    def forward(self, q, k, v, segments, scale, *, out=None):
        self.keys.append(weakref.ref(k))
        return CpuKernel().forward(q, k, v, segments, scale, out=out)

    def backward(self, *arguments, **more):
        return CpuKernel().backward(*arguments, **more)


def without_gradients_nothing_is_kept(rank, group):
    kept = dict.fromkeys((torch.no_grad, torch.inference_mode, "frozen", "trained"), 0)
    for plan in all_plans(np.random.default_rng(0), LENGTHS, 2):
        q, k, v, _ = local(plan, rank)
        true = attention(q, k, v, prepare(plan, rank), group)
        for way in kept:
            watching = Watching()
            inputs = [x.detach().requires_grad_(way != "frozen") for x in (q, k, v)]
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(agreement, "select", lambda *_, one=watching: one)
                with way() if callable(way) else contextlib.nullcontext():
                    out = attention(*inputs, prepare(plan, rank), group)
            assert torch.equal(out, true)
            assert out.requires_grad == (way == "trained")
            alive = [x for x in (one() for one in watching.keys) if x is not None]
            kept[way] += sum(x is not inputs[1] for x in alive)
    assert kept.pop("trained") > 0
    assert not any(kept.values()), kept


def some_gradients_are_those_of_all(rank, group):
    """Also where ranks need different ones: all exchange what any of them may need."""
    for plan in all_plans(np.random.default_rng(0), LENGTHS, 2):
        handle, inputs = prepare(plan, rank), local(plan, rank)
        _, *gradients = outcome(handle, group, *inputs)
        for needs in ({0}, {1, 2}, {2}, {rank}, {0} if rank else {0, 1, 2}):
            some = [x.detach().requires_grad_(i in needs) for i, x in enumerate(inputs[:3])]
            attention(*some, prepare(plan, rank), group).backward(inputs[3])
            for i, (one, true) in enumerate(zip(some, gradients, strict=True)):
                if i in needs:
                    assert torch.equal(one.grad, true)
                else:
                    assert one.grad is None


def what_one_rank_finds_reaches_the_other(rank, group):
    plan, wider = make_plan(LENGTHS, 2, "per-doc"), make_plan(LENGTHS, 4, "per-doc")
    q, k, v, _ = local(plan, rank)
    other = "rank 1 cannot run this; see its own message"

    def said(handle, *tensors, **more):
        return refusal(lambda: attention(*tensors, handle, group, **more))

    few = shard(draw(LENGTHS, (4, 2, 8), 1)[0], wider, rank)
    mine = (prepare(wider, rank), few, few, few) if rank else (prepare(plan, rank), q, k, v)
    own = "rank 1: a plan for 4 ranks cannot run on 2; plan again with cp=2"
    assert said(*mine) == (own if rank else other)

    own = "rank 1: the plan is prepared for rank 0 of the group"
    assert said(prepare(plan, 0), q, k, v) == (own if rank else other)

    # A handle that was agreed upon meets another number of heads, and wrong tokens on one rank.
    handle = prepare(plan, rank)
    attention(q, k, v, handle, group)
    more = [torch.cat([x, x], 1) for x in (q, k, v)]
    short = [x[:-1] for x in more]
    own = "rank 1: q has 31 and k 31 tokens where the plan gives rank 1 32"
    assert said(handle, *(short if rank else more)) == (own if rank else other)

    line = said(prepare(plan, rank), q, k, v, scale=0.5 + rank)
    assert line == "rank 1 has the scale 1.5, rank 0 the scale 0.5"

    needs = [x.detach().requires_grad_(bool(rank)) for x in (q, k, v)]
    line = said(prepare(plan, rank), *needs)
    assert line == "rank 1 has inputs that need gradients, rank 0 inputs that need no gradient"

    # Whatever one rank's tensors are, the other hears of it.
    wrong = {
        "rank 1: q, k and v have head size 0": [x[..., :0] for x in (q, k, v)],
        "rank 1: q, k and v of shapes [], [32, 2, 8], [32, 2, 8] are not "
        "[tokens, heads, head_dim] of one head size": [q.new_zeros(()), k, v],
        "rank 1: 2 KV heads do not divide 0 query heads": [q[:, :0], k, v],
        "rank 1: v is on meta where the plan was prepared for cpu": [q, k, v.to("meta")],
        "rank 1: q, k and v are torch.float8_e4m3fn, torch.float8_e4m3fn and torch.float8_e4m3fn; "
        "they must be one float dtype, bfloat16, float16, float32 or float64": [
            x.to(torch.float8_e4m3fn) for x in (q, k, v)
        ],
    }
    for own, tensors in wrong.items():
        assert said(prepare(plan, rank), *(tensors if rank else (q, k, v))) == (
            own if rank else other
        )


class Named:
    def __init__(self, name):
        self.name = name


def kernels_are_found_before_anybody_waits(rank, group):
    plan = make_plan(LENGTHS, 2, "per-doc")
    q, k, v, _ = local(plan, rank)

    def found(kernel):
        """What each rank says where rank 1 finds this."""

        def select(*_):
            if isinstance(kernel, Exception):
                raise kernel
            return kernel

        handle = prepare(plan, rank)
        with pytest.MonkeyPatch.context() as patch:
            if rank:
                patch.setattr(agreement, "select", select)
            with pytest.raises((RunError, torch.OutOfMemoryError)) as error:
                attention(q, k, v, handle, group)
        assert torch.isfinite(attention(q, k, v, handle, group)).all()  # the next call is in step
        return str(error.value)

    other = "rank 1 cannot run this; see its own message"
    own = "rank 1: no attention kernel"
    assert found(RunError("no attention kernel")) == (own if rank else other)
    assert found(torch.OutOfMemoryError("no room")) == ("no room" if rank else other)
    for name in ("flash-attn 2.8.3", "Ω" * 40):
        line = found(Named(name))
        assert line == (
            f"rank 1 attends by {name[:32]}, rank 0 by torch-flash-cpu; give both the same releases"
        )

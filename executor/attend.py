"""Distributed attention over packed documents as one differentiable call."""

from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.distributed.device_mesh import DeviceMesh

from executor import joined, ring
from executor.agreement import agree
from executor.errors import RunError
from executor.handle import Handle, Joined, Ring
from executor.joined import Call, Kept
from executor.record import Recorder
from executor.transport import Transport, carry_out

_RECORD_NOTHING = Recorder()


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    handle: Handle,
    group: "dist.ProcessGroup | DeviceMesh | Transport | None" = None,
    *,
    scale: float | None = None,
    record: Recorder = _RECORD_NOTHING,
) -> Tensor:
    """Attend, causally and within documents, over the tokens of all ranks.

    Every rank of the group calls it with its own tokens, and again in backward. The first call of a
    plan in a group compares the ranks' plans, shapes and kernels before anything else is exchanged.
    Under `torch.compile` it is a graph break; under autocast it computes in the precision of q, k
    and v. Where nothing needs a gradient, nothing is kept for one. Where anything does on one rank,
    it has to on every rank, since all exchange in backward; which of q, k and v may differ.

    Shapes: t local tokens, Hq query heads, Hkv key/value heads, D head size.

    Args:
        q: queries [t, Hq, D] of this rank's tokens, in the order of `global_indices`.
        k: keys [t, Hkv, D]; Hkv divides Hq.
        v: values [t, Hkv, D].
        handle: the plan, prepared for this rank.
        group: the context-parallel group, or a device mesh of one dimension; None for the default
            group; one rank by itself needs none. A `Transport` counts bytes.
        scale: of the scores; None for 1 / sqrt(D).
        record: what records the time of each part.

    Returns:
        The output [t, Hq, D], differentiable in q, k and v.

    Raises:
        RunError: a shape, dtype, rank or world size that does not fit the plan; no kernel for the
            dtype and head size; or ranks that differ in their plans, kernels, or in whether there
            is a backward.
    """
    if torch.compiler.is_compiling():
        # Plans are numpy's, and another one each step: nothing of this is for a graph. Not as a
        # decorator, which would import the compiler where nobody compiles.
        outside = torch.compiler.disable(attention)  # type: ignore[no-untyped-call]
        traced: Tensor = outside(q, k, v, handle, group, scale=scale, record=record)
        return traced
    transport = group if isinstance(group, Transport) else Transport(group_of(group))
    if scale is None:
        scale = max(q.shape[-1:].numel(), 1) ** -0.5  # of any tensor: `agree` refuses wrong ones
    kernel = agree(handle, transport, (q, k, v), scale)
    layer = _Layer(handle.schedule, transport, Call(kernel, scale, record))
    # Kernels want each head's numbers side by side; torch's for CPUs does not even ask.
    q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
    out: Tensor = _Attention.apply(q, k, v, layer)  # type: ignore[no-untyped-call]
    return out


def group_of(group: "dist.ProcessGroup | DeviceMesh | None") -> dist.ProcessGroup | None:
    """Return the group that a user named, of a device mesh's one dimension its group.

    Raises:
        RunError: a mesh of several dimensions.
    """
    if not isinstance(group, DeviceMesh):
        return group
    if group.ndim != 1:
        raise RunError(
            f"a device mesh of {group.ndim} dimensions names no group; take one of its dimensions, "
            'as mesh["cp"]'
        )
    return group.get_group()


@dataclass(frozen=True, eq=False)
class _Layer:
    schedule: Joined | Ring
    transport: Transport
    call: Call


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, layer: _Layer) -> Tensor:
        with torch.autocast(q.device.type, enabled=False):
            return _Attention._forward(ctx, q, k, v, layer)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        with torch.autocast(dout.device.type, enabled=False):
            return _Attention._backward(ctx, dout)

    @staticmethod
    def _forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, layer: _Layer) -> Tensor:
        ctx.layer = layer
        schedule, call = layer.schedule, layer.call
        if isinstance(schedule, Ring):
            out, lse = carry_out(
                ring.forward(schedule, call, q, k, v), layer.transport, call.record
            )
            ctx.save_for_backward(q, k, v, out, lse)
            return out
        out, kept = carry_out(joined.forward(schedule, call, q, k, v), layer.transport, call.record)
        # Keys, values and log-sum-exp of every part in which KV came, one after another.
        ctx.save_for_backward(q, k, v, out, kept.own_lse, *chain.from_iterable(kept.waiting))
        return out

    @staticmethod
    def _backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, lse, *waiting = ctx.saved_tensors
        schedule, call = ctx.layer.schedule, ctx.layer.call
        dout = dout.contiguous()
        if isinstance(schedule, Ring):
            steps = ring.backward(schedule, call, dout, (q, k, v), (out, lse))
        else:
            parts = zip(waiting[::3], waiting[1::3], waiting[2::3], strict=True)
            kept = Kept(lse, tuple(parts))
            steps = joined.backward(schedule, call, dout, (q, k, v), (out, kept))
        return (*carry_out(steps, ctx.layer.transport, call.record), None)

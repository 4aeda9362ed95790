"""Distributed attention over packed documents as one differentiable call."""

from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from executor import joined, ring
from executor.agreement import agree
from executor.handle import Handle, Joined, Ring
from executor.joined import Call, Kept
from executor.kernels import select
from executor.record import Recorder
from executor.transport import Transport, carry_out

_RECORD_NOTHING = Recorder()


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    handle: Handle,
    group: "dist.ProcessGroup | Transport | None" = None,
    *,
    scale: float | None = None,
    record: Recorder = _RECORD_NOTHING,
) -> Tensor:
    """Attend, causally and within documents, over the tokens of all ranks.

    Every rank of the group calls it with its own tokens, and again in backward. The first call of a
    plan in a group compares the ranks' plans and shapes before anything else is exchanged.

    Shapes: t local tokens, Hq query heads, Hkv key/value heads, D head size.

    Args:
        q: queries [t, Hq, D] of this rank's tokens, in the order of `global_indices`.
        k: keys [t, Hkv, D]; Hkv divides Hq.
        v: values [t, Hkv, D].
        handle: the plan, prepared for this rank.
        group: the context-parallel group; None for the default group. A `Transport` counts bytes.
        scale: of the scores; None for 1 / sqrt(D).
        record: what records the time of each part.

    Returns:
        The output [t, Hq, D], differentiable in q, k and v.

    Raises:
        RunError: a shape, dtype, rank or world size that does not fit the plan, or ranks whose
            plans differ.
    """
    transport = group if isinstance(group, Transport) else Transport(group)
    agree(handle, transport, q, k, v)
    call = Call(
        kernel=select(q.device, q.dtype, q.shape[2]),
        scale=q.shape[2] ** -0.5 if scale is None else scale,
        record=record,
    )
    layer = _Layer(handle.schedule, transport, call)
    out: Tensor = _Attention.apply(q, k, v, layer)  # type: ignore[no-untyped-call]
    return out


@dataclass(frozen=True, eq=False)
class _Layer:
    schedule: Joined | Ring
    transport: Transport
    call: Call


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, layer: _Layer) -> Tensor:
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
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
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

"""Ring attention: KV travels from rank to rank, partial outputs are merged by log-sum-exp.

While a rank attends to the KV it holds, it passes that KV on. Backward passes KV round once more
and, one step behind it, the float32 dKV gathered so far, which needs one more step to come home.
With the final output and log-sum-exp, each part's backward is exact by itself.

Shapes: t local tokens, M tokens of the largest rank, Hq query heads, Hkv key/value heads, D head
size.
"""

from typing import Any

import torch
from torch import Tensor

from executor.handle import Ring, Step
from executor.joined import Call
from executor.kernels.segments import Pair, Triple
from executor.merging import merge_rows
from executor.record import Part
from executor.rows import add, take, wide
from executor.transfers import Messages, Schedule, Start, Wait


def forward(ring: Ring, call: Call, q: Tensor, k: Tensor, v: Tensor) -> Schedule[Pair]:
    """Return the output [t, Hq, D] and its log-sum-exp [Hq, t]."""
    record, last = call.record, len(ring.steps) - 1
    held = _travelling(ring, k, v, last, call)
    first = ring.steps[0]
    out = q.new_zeros(q.shape, dtype=wide(q.dtype))
    lse = q.new_full((q.shape[1], q.shape[0]), float("-inf"), dtype=wide(q.dtype))
    for index, step in enumerate(ring.steps):
        ticket, coming = None, None
        if index < last:
            coming = torch.empty_like(held)
            ticket = yield _pass_on(ring, held, coming)
        if step.segments is not None:
            if step is first:
                queries, keys, values = q, k, v
            else:
                queries, keys, values = _taken(q, held, step, index, call)
            with record.piece(Part.FORWARD, f"attention, step {index}"):
                part, part_lse = call.kernel.forward(
                    queries, keys, values, step.segments, call.scale
                )
            if step is first and last == 0:
                return part, part_lse
            with record.piece(Part.MERGE, f"merge, step {index}"):
                merge_rows(out, lse, step.queries, part, part_lse)
        if ticket is not None and coming is not None:
            yield Wait(ticket, f"KV, step {index}")
            held = coming
    return out.to(q.dtype), lse


def backward(
    ring: Ring,
    call: Call,
    dout: Tensor,
    qkv: Triple,
    result: Pair,
) -> Schedule[Triple]:
    """Return dq [t, Hq, D], and dk and dv [t, Hkv, D]."""
    (q, k, v), (out, lse) = qkv, result
    record, last = call.record, len(ring.steps) - 1
    held = _travelling(ring, k, v, last, call)
    first = ring.steps[0]
    dq = q.new_zeros(q.shape, dtype=wide(q.dtype))
    dkv = held.new_zeros(held.shape, dtype=wide(q.dtype))
    home: tuple[Any, Tensor, Tensor] | None = None  # dKV on its way: ticket, sent, received
    for index, step in enumerate(ring.steps):
        ticket, coming = None, None
        if index < last:
            coming = torch.empty_like(held)
            ticket = yield _pass_on(ring, held, coming)
        gradients: tuple[Tensor, Tensor] | None = None
        if step.segments is not None:
            given, given_out, given_lse = dout, out, lse
            if step is first:
                queries, keys, values = q, k, v
            else:
                queries, keys, values = _taken(q, held, step, index, call)
                with record.piece(Part.COPIES, f"take rows, step {index}"):
                    given, given_out = take(dout, step.queries), take(out, step.queries)
                    given_lse = take(lse.t(), step.queries).t().contiguous()
            with record.piece(Part.BACKWARD, f"attention, step {index}"):
                dqueries, dkeys, dvalues = call.kernel.backward(
                    given,
                    (queries, keys, values),
                    (given_out, given_lse),
                    step.segments,
                    call.scale,
                )
            if step is first and last == 0:
                return dqueries, dkeys, dvalues
            with record.piece(Part.MERGE, f"merge, step {index}"):
                add(dq, step.queries, dqueries)
            gradients = dkeys, dvalues
        if home is not None:
            yield Wait(home[0], f"dKV, step {index - 1}")
            dkv = home[2]
        if gradients is not None:
            with record.piece(Part.MERGE, f"merge, step {index}"):
                add(dkv[:, 0], step.keys, gradients[0])
                add(dkv[:, 1], step.keys, gradients[1])
        if last > 0:
            arriving = torch.empty_like(dkv)
            home = (yield _pass_on(ring, dkv, arriving)), dkv, arriving
        if ticket is not None and coming is not None:
            yield Wait(ticket, f"KV, step {index}")
            held = coming
    if home is not None:
        yield Wait(home[0], "dKV home")
        dkv = home[2]
    t = k.shape[0]
    return dq.to(q.dtype), dkv[:t, 0].to(k.dtype), dkv[:t, 1].to(v.dtype)


def _pass_on(ring: Ring, held: Tensor, coming: Tensor) -> Start:
    return Start([Messages([(ring.following, held)], [(ring.preceding, coming)])])


def _travelling(ring: Ring, k: Tensor, v: Tensor, steps: int, call: Call) -> Tensor:
    """Return own KV as it travels, [M, 2, Hkv, D]; rows beyond the rank's tokens are not read."""
    held = k.new_empty((ring.most_tokens, 2, *k.shape[1:]))
    if steps:
        with call.record.piece(Part.COPIES, "pack KV"):
            held[: k.shape[0], 0] = k
            held[: k.shape[0], 1] = v
    return held


def _taken(
    q: Tensor, held: Tensor, step: Step, index: int, call: Call
) -> tuple[Tensor, Tensor, Tensor]:
    with call.record.piece(Part.COPIES, f"take rows, step {index}"):
        keys = take(held, step.keys)
        return take(q, step.queries), keys[:, 0], keys[:, 1]

"""Attention where keys come together before it: all-gather, FlashCP's, and needed-only all-to-all.

Forward: pack KV, exchange it, attend in place to what needs no exchange (meanwhile, if the plan
overlaps), join prefixes and own keys with one gather, attend to the rest. Backward: the waiting
call first, so that its dKV travels back while the rest runs; every row's gradients meet in float32
on the rank that owns the row. The gradients of an all-gather come back as an all-to-all whose parts
the owner sums, which moves the bytes of a reduce-scatter but does not round at every hop.

Shapes: t local tokens, R received rows, J joined keys, Hq query heads, Hkv key/value heads, D head
size.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from executor.handle import Joined
from executor.kernels import Kernel
from executor.kernels.segments import Triple
from executor.record import Part, Recorder
from executor.rows import add, take, take_into
from executor.transfers import Pattern, Schedule, Start, Transfer, Wait


@dataclass(frozen=True, eq=False)
class Call:
    """What every layer's call has in common.

    Attributes:
        kernel: the attention kernel.
        scale: of the scores.
        record: what records the time spent.
    """

    kernel: Kernel
    scale: float
    record: Recorder


@dataclass(frozen=True, eq=False)
class Kept:
    """What backward needs of forward beside q, k, v and the output.

    Attributes:
        keys: joined keys and values [J, 2, Hkv, D] of the waiting call, if there is one.
        local_lse: log-sum-exp of the call in place [Hq, in place], if there is one.
        waiting_lse: log-sum-exp of the waiting call [Hq, waiting], if there is one.
    """

    keys: Tensor | None
    local_lse: Tensor | None
    waiting_lse: Tensor | None


def forward(
    joined: Joined, call: Call, q: Tensor, k: Tensor, v: Tensor
) -> Schedule[tuple[Tensor, Kept]]:
    """Return the output [t, Hq, D] and what backward needs."""
    route, record, n = joined.route, call.record, joined.route.in_place
    buffer: Tensor | None = None
    ticket = None
    if route.moves or joined.waiting is not None:
        buffer = k.new_empty((route.received + len(route.own), 2, *k.shape[1:]))
    if route.moves and buffer is not None:
        with record.piece(Part.COPIES, "pack KV"):
            send = _pack(joined, k, v)
        transfer = _forward_transfer(joined, send, buffer[: route.received])
        ticket = yield Start(transfer)
        if not joined.overlap:
            yield Wait(ticket, "KV")
    local_out = local_lse = waiting_out = waiting_lse = keys = None
    if joined.local is not None:
        with record.piece(Part.FORWARD, "attention, local"):
            local_out, local_lse = call.kernel.forward(
                q[:n], k[:n], v[:n], joined.local, call.scale
            )
    if ticket is not None and joined.overlap:
        yield Wait(ticket, "KV")
    if joined.waiting is not None and buffer is not None:
        with record.piece(Part.COPIES, "place KV"):
            take_into(buffer[route.received :, 0], k, joined.own)
            take_into(buffer[route.received :, 1], v, joined.own)
            keys = take(buffer, joined.join)
        with record.piece(Part.FORWARD, "attention, rest"):
            waiting_out, waiting_lse = call.kernel.forward(
                q[n:], keys[:, 0], keys[:, 1], joined.waiting, call.scale
            )
    with record.piece(Part.COPIES, "place output"):
        out = _together(q, local_out, waiting_out)
    return out, Kept(keys, local_lse, waiting_lse)


def backward(
    joined: Joined,
    call: Call,
    dout: Tensor,
    qkv: Triple,
    result: tuple[Tensor, Kept],
) -> Schedule[Triple]:
    """Return dq [t, Hq, D], and dk and dv [t, Hkv, D]."""
    route, record, n = joined.route, call.record, joined.route.in_place
    (q, k, v), (out, kept) = qkv, result
    wide = torch.float64 if k.dtype is torch.float64 else torch.float32
    local_dq = waiting_dq = own = ticket = received = None
    if joined.waiting is not None and kept.keys is not None and kept.waiting_lse is not None:
        keys, values = kept.keys[:, 0], kept.keys[:, 1]
        with record.piece(Part.BACKWARD, "attention, rest"):
            waiting_dq, dkeys, dvalues = call.kernel.backward(
                dout[n:],
                (q[n:], keys, values),
                (out[n:], kept.waiting_lse),
                joined.waiting,
                call.scale,
            )
    if route.moves or joined.waiting is not None:
        with record.piece(Part.COPIES, "pack dKV"):
            size = (route.received + len(route.own), 2, *k.shape[1:])
            gradients = torch.zeros(size, dtype=wide, device=k.device)
            if joined.waiting is not None:
                add(gradients[:, 0], joined.join, dkeys)
                add(gradients[:, 1], joined.join, dvalues)
                del dkeys, dvalues
            send = gradients[: route.received].to(k.dtype)
            # What stays here is never rounded; the wide rest is not needed any longer.
            own = gradients[route.received :].clone()
            del gradients
    if route.moves:
        received = k.new_empty((sum(route.send_splits), 2, *k.shape[1:]))
        ticket = yield Start(
            Transfer(Pattern.ALL_TO_ALL, send, received, route.recv_splits, route.send_splits)
        )
        if not joined.overlap:
            yield Wait(ticket, "dKV")
    dkv = torch.zeros((k.shape[0], 2, *k.shape[1:]), dtype=wide, device=k.device)
    if joined.local is not None and kept.local_lse is not None:
        with record.piece(Part.BACKWARD, "attention, local"):
            local_dq, dk, dv = call.kernel.backward(
                dout[:n], (q[:n], k[:n], v[:n]), (out[:n], kept.local_lse), joined.local, call.scale
            )
        if own is None:
            return local_dq, dk, dv
        with record.piece(Part.COPIES, "place dKV"):
            dkv[:n, 0] = dk
            dkv[:n, 1] = dv
    if ticket is not None and joined.overlap:
        yield Wait(ticket, "dKV")
    with record.piece(Part.COPIES, "place dKV"):
        if own is not None:
            add(dkv, joined.own, own)
        if received is not None:
            add(dkv, joined.send, _summed(joined, received, wide))
        dq = _together(q, local_dq, waiting_dq)
        return dq, dkv[:, 0].to(k.dtype), dkv[:, 1].to(v.dtype)


def _pack(joined: Joined, k: Tensor, v: Tensor) -> Tensor:
    """Return the send buffer; an all-gather's is padded with rows that nobody reads."""
    route = joined.route
    sent = len(route.send)
    send = k.new_empty((max(sent, route.padded), 2, *k.shape[1:]))
    take_into(send[:sent, 0], k, joined.send)
    take_into(send[:sent, 1], v, joined.send)
    return send


def _forward_transfer(joined: Joined, send: Tensor, recv: Tensor) -> Transfer:
    if joined.route.padded:
        return Transfer(Pattern.ALL_GATHER, send, recv)
    return Transfer(
        Pattern.ALL_TO_ALL, send, recv, joined.route.send_splits, joined.route.recv_splits
    )


def _summed(joined: Joined, received: Tensor, wide: torch.dtype) -> Tensor:
    """Return the gradients of the rows that were sent, in the precision they are summed in.

    After an all-gather every rank returned its share of every row, this one included.
    """
    padded, sent = joined.route.padded, len(joined.route.send)
    if not padded:
        return received
    total: Tensor = received.view(-1, padded, *received.shape[1:])[:, :sent].sum(0, dtype=wide)
    return total


def _together(like: Tensor, local: Tensor | None, waiting: Tensor | None) -> Tensor:
    """Return the rows of both calls; copies only where there are both."""
    parts = [part for part in (local, waiting) if part is not None]
    if not parts:
        return torch.empty_like(like)
    return parts[0] if len(parts) == 1 else torch.cat(parts)

"""Attention where keys come together before it: all-gathers and needed-only exchanges.

A plan that overlaps attends in two calls (docs/design.md). Forward: start the exchange; meanwhile
all rows attend causally to the keys of their own shards, where they lie; then the rows that wait
attend, without a mask, to what precedes their shards, and their two outputs are merged by
log-sum-exp. Backward the second call comes first, with the merged output and log-sum-exp, which is
all that flash attention's backward of a part of the keys needs: so its dKV travels home beside the
first call's. Their dQ are added, and every row's dK and dV meet in float32 on the rank that owns
the row. Any other plan attends in one call, after the exchange. How keys come together is
`executor.landed`'s and `executor.gathered`'s.

Shapes: t local tokens, J joined keys, Hq query heads, Hkv key/value heads, D head size.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from executor.kernels import Kernel
from executor.kernels.segments import Pair, Triple
from executor.merging import merge
from executor.record import Part, Recorder
from executor.transfers import Schedule, Wait

if TYPE_CHECKING:
    from executor.handle import Joined

# Names of kernel calls, as predictions have them.
OWN, PREFIXES, ALL = "attention, own keys", "attention, prefixes", "attention"


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
        joined: keys and values [J, Hkv, D] of the waiting call, if there is one.
        own_lse: log-sum-exp of all rows over all of their keys [Hq, t], if the call in place is
            made.
        waiting_lse: the same of the rows that wait [Hq, waiting], if the waiting call is made.
    """

    joined: Pair | None
    own_lse: Tensor | None
    waiting_lse: Tensor | None


class Keys(Protocol):
    """How keys come together, and how their gradients go home; what each returns is its own."""

    def start(self, call: Call, kv: Pair) -> Schedule[tuple[Any, Any]]:
        """Start the exchange of k and v [t, Hkv, D].

        Returns:
            A ticket, None where nothing moves on any rank, and what arrives.
        """

    def joined(self, call: Call, arrived: Any) -> Pair:
        """Return the keys and values [J, Hkv, D] of the waiting call, once all has arrived."""

    def give_back(self, call: Call, dkv: Pair) -> Schedule[tuple[Any, Any]]:
        """Start the exchange of the waiting call's gradients of keys and values [J, Hkv, D].

        Returns:
            A ticket, None where nothing moves on any rank, and what comes back. `dkv` may change.
        """

    def finish(self, call: Call, returned: Any, dkv: Pair) -> None:
        """Complete the gradients of k and v [t, Hkv, D] with what has come back.

        Of `dkv` only the rows whose keys were read where they lie are written before.
        """


def forward(
    joined: "Joined", call: Call, q: Tensor, k: Tensor, v: Tensor
) -> Schedule[tuple[Tensor, Kept]]:
    """Return the output [t, Hq, D] and what backward needs."""
    record, n = call.record, joined.first
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    ticket, arriving = yield from joined.keys.start(call, (k, v))
    if ticket is not None and not joined.overlap:
        yield Wait(ticket, "KV")
    own_lse = waiting_lse = together = None
    if joined.own is not None:
        with record.piece(Part.FORWARD, OWN if joined.overlap else ALL):
            _, own_lse = call.kernel.forward(q, k, v, joined.own, call.scale, out=out)
    if ticket is not None and joined.overlap:
        yield Wait(ticket, "KV")
    if joined.waiting is not None:
        together = joined.keys.joined(call, arriving)
        with record.piece(Part.FORWARD, PREFIXES if joined.overlap else ALL):
            part, waiting_lse = call.kernel.forward(
                q[n:], *together, joined.waiting, call.scale, out=out if own_lse is None else None
            )
        if own_lse is not None:
            with record.piece(Part.MERGE, "merge outputs"):
                waiting_lse = merge(out[n:], own_lse[:, n:], part, waiting_lse)
    return out, Kept(together, own_lse, waiting_lse)


def backward(
    joined: "Joined",
    call: Call,
    dout: Tensor,
    qkv: Triple,
    result: tuple[Tensor, Kept],
) -> Schedule[Triple]:
    """Return dq [t, Hq, D], and dk and dv [t, Hkv, D]."""
    record, n = call.record, joined.first
    (q, k, v), (out, kept) = qkv, result
    adds = joined.own is not None and joined.waiting is not None
    dq, dk, dv = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in qkv)
    dkeys, dvalues = (x.new_empty((0, *x.shape[1:])) for x in (k, v))
    waiting_dq = torch.empty_like(dq[n:]) if adds else dq
    if joined.waiting is not None and kept.joined is not None and kept.waiting_lse is not None:
        dkeys, dvalues = (torch.empty_like(x) for x in kept.joined)
        with record.piece(Part.BACKWARD, PREFIXES if joined.overlap else ALL):
            call.kernel.backward(
                dout[n:],
                (q[n:], *kept.joined),
                (out[n:], kept.waiting_lse),
                joined.waiting,
                call.scale,
                into=(waiting_dq, dkeys, dvalues),
            )
    ticket, returned = yield from joined.keys.give_back(call, (dkeys, dvalues))
    if ticket is not None and not joined.overlap:
        yield Wait(ticket, "dKV")
    if joined.own is not None and kept.own_lse is not None:
        with record.piece(Part.BACKWARD, OWN if joined.overlap else ALL):
            call.kernel.backward(
                dout, qkv, (out, kept.own_lse), joined.own, call.scale, into=(dq, dk, dv)
            )
    if adds:
        with record.piece(Part.MERGE, "add dQ"):
            dq[n:] += waiting_dq  # in float32, whatever the tensors' precision
    if ticket is not None and joined.overlap:
        yield Wait(ticket, "dKV")
    joined.keys.finish(call, returned, (dk, dv))
    return dq, dk, dv

"""Attention where keys come together before it: all-gathers and needed-only exchanges.

Forward: start the exchange, attend in place to what needs none (meanwhile, if the plan overlaps),
then attend to the rest. Backward: the waiting call first, so that its dKV travels back while the
rest runs; every row's gradients meet in float32 on the rank that owns the row. Both calls write
their rows of one output and one dQ, dK and dV. How keys come together is `executor.landed`'s and
`executor.gathered`'s.

Shapes: t local tokens, J joined keys, Hq query heads, Hkv key/value heads, D head size.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from executor.kernels import Kernel
from executor.kernels.segments import Pair, Triple
from executor.record import Part, Recorder
from executor.transfers import Schedule, Wait

if TYPE_CHECKING:
    from executor.handle import Joined


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
        local_lse: log-sum-exp of the call in place [Hq, in place], if there is one.
        waiting_lse: log-sum-exp of the waiting call [Hq, waiting], if there is one.
    """

    joined: Pair | None
    local_lse: Tensor | None
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

        Of `dkv` only the rows that were attended in place are written before.
        """


def forward(
    joined: "Joined", call: Call, q: Tensor, k: Tensor, v: Tensor
) -> Schedule[tuple[Tensor, Kept]]:
    """Return the output [t, Hq, D] and what backward needs."""
    record, n = call.record, joined.in_place
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    ticket, arriving = yield from joined.keys.start(call, (k, v))
    if ticket is not None and not joined.overlap:
        yield Wait(ticket, "KV")
    local_lse = waiting_lse = together = None
    if joined.local is not None:
        with record.piece(Part.FORWARD, "attention, local"):
            _, local_lse = call.kernel.forward(
                q[:n], k[:n], v[:n], joined.local, call.scale, out=out[:n]
            )
    if ticket is not None and joined.overlap:
        yield Wait(ticket, "KV")
    if joined.waiting is not None:
        together = joined.keys.joined(call, arriving)
        with record.piece(Part.FORWARD, "attention, rest"):
            _, waiting_lse = call.kernel.forward(
                q[n:], *together, joined.waiting, call.scale, out=out[n:]
            )
    return out, Kept(together, local_lse, waiting_lse)


def backward(
    joined: "Joined",
    call: Call,
    dout: Tensor,
    qkv: Triple,
    result: tuple[Tensor, Kept],
) -> Schedule[Triple]:
    """Return dq [t, Hq, D], and dk and dv [t, Hkv, D]."""
    record, n = call.record, joined.in_place
    (q, k, v), (out, kept) = qkv, result
    dq, dk, dv = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in qkv)
    dkeys, dvalues = (x.new_empty((0, *x.shape[1:])) for x in (k, v))
    if joined.waiting is not None and kept.joined is not None and kept.waiting_lse is not None:
        dkeys, dvalues = (torch.empty_like(x) for x in kept.joined)
        with record.piece(Part.BACKWARD, "attention, rest"):
            call.kernel.backward(
                dout[n:],
                (q[n:], *kept.joined),
                (out[n:], kept.waiting_lse),
                joined.waiting,
                call.scale,
                into=(dq[n:], dkeys, dvalues),
            )
    ticket, returned = yield from joined.keys.give_back(call, (dkeys, dvalues))
    if ticket is not None and not joined.overlap:
        yield Wait(ticket, "dKV")
    if joined.local is not None and kept.local_lse is not None:
        with record.piece(Part.BACKWARD, "attention, local"):
            call.kernel.backward(
                dout[:n],
                (q[:n], k[:n], v[:n]),
                (out[:n], kept.local_lse),
                joined.local,
                call.scale,
                into=(dq[:n], dk[:n], dv[:n]),
            )
    if ticket is not None and joined.overlap:
        yield Wait(ticket, "dKV")
    joined.keys.finish(call, returned, (dk, dv))
    return dq, dk, dv

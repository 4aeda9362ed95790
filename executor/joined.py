"""Attention where keys come together before it: all-gathers and needed-only exchanges.

A plan that overlaps attends in two calls (docs/design.md). Forward: start the exchange; meanwhile
all rows attend causally to the keys of their own shards, where they lie; then the rows that wait
attend, without a mask, to what precedes their shards, and their two outputs are merged by
log-sum-exp. Backward the second call comes first, with the merged output and log-sum-exp, which is
all that flash attention's backward of a part of the keys needs: so its dKV travels home beside the
first call's. Their dQ are added, and every row's dK and dV meet in float32 on the rank that owns
the row. Any other plan attends in one call, after the exchange. How keys come together is
`executor.landed`'s and `executor.gathered`'s.

Where an exchange takes longer than the call beside it, KV travels in h parts by KV heads, each with
its query heads (`Plan.head_chunks`). Forward all parts start before the first call, and each part's
second call begins once it has come, beside the parts still on their way. Backward each part's dKV
leaves after its own second call, beside the parts still to come and the first call.

Shapes: t local tokens, J joined keys, Hq query heads, Hkv key/value heads, D head size, h parts.
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
        own_lse: log-sum-exp of all rows over all of their keys [Hq, t], if the call in place is
            made.
        waiting: part by part, keys and values [J, Hkv / h, D] of the waiting call and the
            log-sum-exp of the rows that wait over all of their keys [Hq / h, waiting]; none where
            no waiting call is made.
    """

    own_lse: Tensor | None
    waiting: tuple[Triple, ...]


class Keys(Protocol):
    """How keys come together, and how their gradients go home; what each returns is its own.

    Of one part of the heads: Hkv are the part's.
    """

    def start(self, call: Call, kv: Pair, *, packs: bool) -> Schedule[tuple[Any, Any]]:
        """Start the exchange of k and v [t, Hkv, D].

        Args:
            call: the call.
            kv: k and v, or some heads of them.
            packs: whether they are some, of several parts, so that no rows of them are contiguous.

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
    record, n, parts = call.record, joined.first, _parts(joined, q, k)
    out = _contiguous_like(q)
    under_way: list[tuple[Any, Any]] = []
    for _, heads in parts:
        kv = k[:, heads], v[:, heads]
        # By no other name, which would hold the last part's buffers until the end.
        under_way.append((yield from joined.keys.start(call, kv, packs=len(parts) > 1)))
        if under_way[-1][0] is not None and not joined.overlap:
            yield Wait(under_way[-1][0], "KV")
    own_lse: Tensor | None = None
    if joined.own is not None:
        with record.piece(Part.FORWARD, OWN if joined.overlap else ALL):
            _, own_lse = call.kernel.forward(q, k, v, joined.own, call.scale, out=out)
    waiting: list[Triple] = []
    for queries, _ in parts:
        ticket, arriving = under_way.pop(0)
        if ticket is not None and joined.overlap:
            yield Wait(ticket, "KV")
        if joined.waiting is None:
            continue
        together = joined.keys.joined(call, arriving)
        with record.piece(Part.FORWARD, PREFIXES if joined.overlap else ALL):
            part, lse = call.kernel.forward(
                q[n:, queries],
                *together,
                joined.waiting,
                call.scale,
                out=out if own_lse is None else None,
            )
        if own_lse is not None:
            with record.piece(Part.MERGE, "merge outputs"):
                lse = merge(out[n:, queries], own_lse[queries, n:], part, lse)
        waiting.append((*together, lse))
    return out, Kept(own_lse, tuple(waiting))


def backward(
    joined: "Joined",
    call: Call,
    dout: Tensor,
    qkv: Triple,
    result: tuple[Tensor, Kept],
) -> Schedule[Triple]:
    """Return dq [t, Hq, D], and dk and dv [t, Hkv, D]."""
    record, n, parts = call.record, joined.first, _parts(joined, *qkv[:2])
    (q, k, v), (out, kept) = qkv, result
    adds = joined.own is not None and joined.waiting is not None
    dq, dk, dv = map(_contiguous_like, qkv)
    under_way: list[tuple[Any, Any]] = []
    waiting_dqs = []
    for index, (queries, heads) in enumerate(parts):
        dkeys, dvalues = (x.new_empty((0, *x[:, heads].shape[1:])) for x in (k, v))
        if joined.waiting is not None:
            keys, values, lse = kept.waiting[index]
            dkeys, dvalues = torch.empty_like(keys), torch.empty_like(values)
            waiting_dq = _contiguous_like(dq[n:, queries]) if adds else dq
            waiting_dqs.append(waiting_dq)
            with record.piece(Part.BACKWARD, PREFIXES if joined.overlap else ALL):
                call.kernel.backward(
                    dout[n:, queries],
                    (q[n:, queries], keys, values),
                    (out[n:, queries], lse),
                    joined.waiting,
                    call.scale,
                    into=(waiting_dq, dkeys, dvalues),
                )
        under_way.append((yield from joined.keys.give_back(call, (dkeys, dvalues))))
        if under_way[-1][0] is not None and not joined.overlap:
            yield Wait(under_way[-1][0], "dKV")
    if joined.own is not None and kept.own_lse is not None:
        with record.piece(Part.BACKWARD, OWN if joined.overlap else ALL):
            call.kernel.backward(
                dout, qkv, (out, kept.own_lse), joined.own, call.scale, into=(dq, dk, dv)
            )
    if adds:
        with record.piece(Part.MERGE, "add dQ"):
            for (queries, _), waiting_dq in zip(parts, waiting_dqs, strict=True):
                dq[n:, queries] += waiting_dq  # in float32, whatever the tensors' precision
    for _, heads in parts:
        ticket, returned = under_way.pop(0)
        if ticket is not None and joined.overlap:
            yield Wait(ticket, "dKV")
        joined.keys.finish(call, returned, (dk[:, heads], dv[:, heads]))
    return dq, dk, dv


def _parts(joined: "Joined", q: Tensor, k: Tensor) -> list[tuple[slice, slice]]:
    """List the query heads and KV heads of each part in which KV travels."""
    number = joined.plan.chunks(k.shape[1])
    q_heads, kv_heads = (x.shape[1] // number for x in (q, k))
    return [
        (slice(c * q_heads, (c + 1) * q_heads), slice(c * kv_heads, (c + 1) * kv_heads))
        for c in range(number)
    ]


def _contiguous_like(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)

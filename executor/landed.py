"""Needed-only exchange whose rows land where the kernel reads them; see `executor.landing`.

Forward: every prefix is sent from where it lies in k and v to where it is read, without packing or
joining; own rows that are read beside them are copied there while it travels. Backward: the
gradients that the kernel wrote for received rows are sent from there, and the owner adds what comes
back to its own in float32. In two levels the rank that passes rows on sums its node's gradients, in
float32 as well, before they cross.

All of it is done once for each part of the heads in which KV travels (`executor.joined`). Where
there are several, a part's rows lie apart in k and v, and what others need is packed first: each
non-last row once, whatever the number of its receivers.

On four CPU ranks with 16k tokens of WLB-LLM lengths, 8:2 heads of 64 in float32, packing into one
buffer and joining out of another took 0.7 to 0.9% of the attention time; this takes 0.05 to 0.2%
(benchmarks/executor/README.md).

Shapes: t local tokens, L rows of the landing, of which J are keys, S rows sent, Hkv key/value heads
of the part, D head size.
"""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from executor.kernels.segments import Pair
from executor.landing import Hop, Landing, Message, packed
from executor.own_rows import OwnRows, Returned
from executor.placement import Indices
from executor.record import Part
from executor.rows import Rows, Sums, count, move, rows, take_into
from executor.transfers import Messages, Schedule, Start

if TYPE_CHECKING:
    from executor.joined import Call


@dataclass(frozen=True, eq=False)
class Relay:
    """The rows that a rank passes on inside its node, Y of them, in the order they arrived.

    Attributes:
        rows: Y.
        sums: of its own gradients of them and of those that came back, for each of them at least
            one; None where there is none.
    """

    rows: int
    sums: Sums | None


@dataclass(frozen=True, eq=False)
class Landed:
    """One rank's part, ready for its device; see `executor.landing.Landing`.

    Attributes:
        rows: of the landing, L.
        keys: rows of it that the waiting call reads, J.
        hops: of messages; none where no rank sends anything.
        pack: local rows to pack where KV travels in several parts, and the hops from there.
        own: own rows, beside what lands.
        common: where common prefixes land, and where else they are read.
        sums: of common prefixes' gradients, where they land.
        relay: what is passed on; None without two levels.
    """

    rows: int
    keys: int
    hops: tuple[Hop, ...]
    pack: tuple[Rows, tuple[Hop, ...]]
    own: OwnRows
    common: tuple[Rows, Rows]
    sums: Sums | None
    relay: Relay | None

    @classmethod
    def of(cls, found: Landing, in_place: int, device: torch.device) -> "Landed":
        """Build the index tensors of a landing, once a plan."""
        returned = [message for hop in found.hops for message in hop.sends]
        own = [message for message in returned if message.own]
        at = np.cumsum([0, *(message.rows for message in returned)])
        places = [
            np.arange(begin, begin + message.rows)
            for begin, message in zip(at, returned, strict=False)
        ]
        mine = [place for place, message in zip(places, returned, strict=True) if message.own]
        apart = packed(found.hops)
        return cls(
            rows=found.keys + found.transit,
            keys=found.keys,
            hops=found.hops,
            pack=(rows(apart.rows, device), apart.hops),
            own=OwnRows.of(
                found,
                in_place,
                (_together([np.arange(m.start, m.stop) for m in own]), _together(mine)),
                device,
            ),
            common=(rows(found.common_from, device), rows(found.common_to, device)),
            sums=Sums.of(device, (found.common_from, found.common_to)),
            relay=_relay(found, returned, places, device) if len(found.hops) > 1 else None,
        )

    @property
    def in_place(self) -> int:
        """Local rows, the first ones, whose keys are read where they lie."""
        return self.own.in_place

    @property
    def moves(self) -> bool:
        """Whether any rank sends anything."""
        return bool(self.hops)

    def start(self, call: "Call", kv: Pair, *, packs: bool) -> Schedule[tuple[Any, Pair]]:
        """Send what others need; return the ticket and the landings [L, Hkv, D] of K and V.

        Args:
            call: the call.
            kv: k and v [t, Hkv, D], or some heads of them.
            packs: whether to pack what others need, else to send it from where it lies.
        """
        shape = (self.rows, *kv[0].shape[1:])
        landing = kv[0].new_empty(shape), kv[1].new_empty(shape)
        ticket = None
        if self.moves:
            hops, sent = self.hops, kv
            with call.record.piece(Part.COPIES, "pack KV"):
                if packs:
                    which, hops = self.pack
                    sent = _taken(kv[0], which), _taken(kv[1], which)
                transfers = [_forward(hops[0], sent, landing)]
            then = partial(_forward, hops[1], sent, landing) if len(hops) > 1 else None
            ticket = yield Start(transfers, then, name="KV")
        self.own.place(call, kv, landing)
        return ticket, landing

    def joined(self, call: "Call", landing: Pair) -> Pair:
        """Return the keys and values [J, Hkv, D] of the waiting call, once all has arrived."""
        if self.sums is not None:
            with call.record.piece(Part.COPIES, "place KV"):
                for x in landing:
                    move(x, self.common[1], x, self.common[0])
        return landing[0][: self.keys], landing[1][: self.keys]

    def give_back(self, call: "Call", dkv: Pair) -> Schedule[tuple[Any, Returned]]:
        """Send the gradients of received rows back; return the ticket and what comes.

        Args:
            call: the call.
            dkv: the waiting call's gradients of keys and values [J, Hkv, D]; changed.
        """
        if self.sums is not None:
            with call.record.piece(Part.COPIES, "sum dKV"):
                for x in dkv:
                    self.sums.add(x, x)
        ends = np.cumsum([sum(m.rows for m in hop.sends) for hop in self.hops], dtype=np.int64)
        total = (int(ends[-1]) if ends.size else 0, *dkv[0].shape[1:])
        back = dkv[0].new_empty(total), dkv[1].new_empty(total)
        if not self.moves:
            return None, Returned(dkv, back)
        if self.relay is None:
            first, then = _backward(self.hops[0], dkv, back), None
        else:
            inside = back[0][int(ends[0]) :], back[1][int(ends[0]) :]
            first = _backward(self.hops[1], dkv, inside)
            then = partial(self._across, call, dkv, back, self.relay)
        ticket = yield Start([first], then, name="dKV")
        return ticket, Returned(dkv, back)

    def finish(self, call: "Call", returned: Returned, dkv: Pair) -> None:
        """Complete the gradients of own rows; see `OwnRows.finish`."""
        self.own.finish(call, returned, dkv)

    def _across(self, call: "Call", dkv: Pair, back: Pair, relay: Relay) -> Messages:
        """Sum the node's gradients of what was passed on, and return them across."""
        sums: list[Tensor] = []
        with call.record.piece(Part.COPIES, "sum dKV of the node"):
            for dkeys, came in zip(dkv, back, strict=True):
                total = dkeys.new_empty((relay.rows, *dkeys.shape[1:]))
                if relay.sums is not None:
                    relay.sums.write(total, dkeys, came)
                sums.append(total)
        hop, at, sends = self.hops[0], 0, []
        for message in hop.recvs:
            size_ = message.rows
            sends += [(message.peer, x[at : at + size_]) for x in sums]
            at += size_
        return Messages(sends, _where_returned(hop, back))


def _taken(x: Tensor, which: Rows) -> Tensor:
    """Return rows of a tensor, contiguous: always a copy."""
    found = x.new_empty((count(which), *x.shape[1:]))
    take_into(found, x, which)
    return found


def _forward(hop: Hop, kv: Pair, landing: Pair) -> Messages:
    return Messages(
        # The rows of one shard are contiguous, packed or not, unless k and v are strided views:
        # then they are copied, and nothing else is.
        [
            (m.peer, (x if m.own else y)[m.start : m.stop].contiguous())
            for m in hop.sends
            for x, y in zip(kv, landing, strict=True)
        ],
        [(m.peer, y[m.start : m.stop]) for m in hop.recvs for y in landing],
    )


def _backward(hop: Hop, dkv: Pair, back: Pair) -> Messages:
    return Messages(
        [(m.peer, x[m.start : m.stop]) for m in hop.recvs for x in dkv], _where_returned(hop, back)
    )


def _where_returned(hop: Hop, back: Pair) -> list[tuple[int, Tensor]]:
    """Return where the gradients of what a hop sent come back: message by message from row 0."""
    found, at = [], 0
    for message in hop.sends:
        found += [(message.peer, x[at : at + message.rows]) for x in back]
        at += message.rows
    return found


def _relay(
    found: Landing, returned: list[Message], places: list[Indices], device: torch.device
) -> Relay:
    passed = found.hops[0].recvs
    ends = np.cumsum([message.rows for message in passed])
    begins = {m.start: int(end) - m.rows for m, end in zip(passed, ends, strict=True)}

    def relayed(message: Message) -> Indices:
        return begins[message.start] + np.arange(message.rows)

    kept = [message for message in passed if message.start < found.keys]
    back = [(place, m) for place, m in zip(places, returned, strict=True) if not m.own]
    return Relay(
        rows=sum(m.rows for m in passed),
        sums=Sums.of(
            device,
            (
                _together([relayed(m) for m in kept]),
                _together([np.arange(m.start, m.stop) for m in kept]),
            ),
            (_together([relayed(m) for _, m in back]), _together([place for place, _ in back])),
        ),
    )


def _together(parts: list[Indices]) -> Indices:
    return np.concatenate([np.zeros(0, dtype=np.int64), *parts])

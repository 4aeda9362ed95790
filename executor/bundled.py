"""Needed-only exchange in one message for each peer and hop, where pieces would be too many.

The same rows travel between the same ranks in the same hops as where every piece is a message of
its own (`executor.landed`), and are read in the same places. But the host posts one all-to-all a
hop: forward, the rows for all peers are packed into one buffer, K and V of a token side by side,
and copied from where they arrive to where the kernel reads them; what is passed on inside a node is
copied from the first hop's receive buffer into the second's send buffer. Backward the gradients go
the other way round. So every row moves twice more each way. `auto` bundles where the host would
take longer to post the pieces than the device needs for the layer (`flashcp.messages`).

Shapes: t local tokens, J keys of the waiting call, S and R rows sent and received in all hops, Hkv
key/value heads of the part, D head size. Buffers are [rows, 2, Hkv, D], the first hop's rows first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from executor.kernels.segments import Pair
from executor.landing import Landing, Message
from executor.own_rows import OwnRows, Returned
from executor.placement import Indices, ranges
from executor.record import Part
from executor.rows import Rows, Sums, move, rows, take_into
from executor.transfers import Bundle, Schedule, Start

if TYPE_CHECKING:
    from executor.joined import Call

Splits: TypeAlias = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Bundled:
    """One rank's part, ready for its device.

    Attributes:
        keys: rows that the waiting call reads, J.
        sent: of each hop, rows to each rank.
        received: of each hop, rows from each rank.
        packed: own rows that are sent, and where in the send buffer.
        passed: rows of the receive buffer that are passed on, and where in the send buffer.
        landed: rows of the receive buffer that are read here, and where; the common prefix of
            several own shards more than once.
        own: own rows, beside what is received.
        sums: of common prefixes' gradients, where one of them is read.
        gathered: where the gradients are of the rows that the last hop received.
        relayed: gradients of the rows that the first of two hops received: of those read here, and
            of those that came back; None where there is none.
    """

    keys: int
    sent: tuple[Splits, ...]
    received: tuple[Splits, ...]
    packed: tuple[Rows, Rows]
    passed: tuple[Rows, Rows]
    landed: tuple[Rows, Rows]
    own: OwnRows
    sums: Sums | None
    gathered: Rows
    relayed: Sums | None

    @classmethod
    def of(cls, found: Landing, ranks: int, in_place: int, device: torch.device) -> "Bundled":
        """Build the index tensors of a landing that has hops, once a plan."""
        # By peer, and between two ranks in the order in which both list them.
        sends = [sorted(hop.sends, key=lambda m: m.peer) for hop in found.hops]
        recvs = [sorted(hop.recvs, key=lambda m: m.peer) for hop in found.hops]
        from_own, leaves = _rows(sends)
        _, lands = _rows(recvs)
        here = lands < found.keys  # else it is only passed on
        arrival = np.zeros(found.keys + found.transit, dtype=np.int64)
        arrival[lands] = np.arange(lands.size)
        first = sum(m.rows for m in recvs[0]) if len(recvs) > 1 else 0
        own, others = np.flatnonzero(from_own), np.flatnonzero(~from_own)
        passed = arrival[leaves[others]], others
        kept = np.flatnonzero(here[:first])

        def pair(taken: Indices, to: Indices) -> tuple[Rows, Rows]:
            return rows(taken, device), rows(to, device)

        return cls(
            keys=found.keys,
            sent=tuple(_splits(hop, ranks) for hop in sends),
            received=tuple(_splits(hop, ranks) for hop in recvs),
            packed=pair(leaves[own], own),
            passed=pair(*passed),
            landed=pair(
                np.concatenate([np.flatnonzero(here), arrival[found.common_from]]),
                np.concatenate([lands[here], found.common_to]),
            ),
            own=OwnRows.of(found, in_place, (leaves[own], own), device),
            sums=Sums.of(device, (found.common_from, found.common_to)),
            gathered=rows(lands[first:], device),
            relayed=Sums.of(device, (kept, lands[kept]), passed),
        )

    @property
    def in_place(self) -> int:
        """Local rows, the first ones, whose keys are read where they lie."""
        return self.own.in_place

    def start(self, call: "Call", kv: Pair, *, packs: bool) -> Schedule[tuple[Any, "Arriving"]]:
        """Send what others need; return the ticket and what arrives.

        Args:
            call: the call.
            kv: k and v [t, Hkv, D], or some heads of them.
            packs: whether they are some; what is sent is packed either way.
        """
        del packs
        landing = tuple(x.new_empty((self.keys, *x.shape[1:])) for x in kv)
        send, received = _buffer(kv[0], self.sent), _buffer(kv[0], self.received)
        with call.record.piece(Part.COPIES, "pack KV"):
            for index, x in enumerate(kv):
                move(send[:, index], self.packed[1], x, self.packed[0])
        hops = _bundles(send, self.sent, received, self.received)
        then = partial(self._pass_on, call, send, received, hops[1]) if len(hops) > 1 else None
        ticket = yield Start([hops[0]], then, name="KV")
        self.own.place(call, kv, (landing[0], landing[1]))
        return ticket, Arriving((landing[0], landing[1]), received)

    def joined(self, call: "Call", arrived: "Arriving") -> Pair:
        """Return the keys and values [J, Hkv, D] of the waiting call, once all has arrived."""
        with call.record.piece(Part.COPIES, "place KV"):
            for index, target in enumerate(arrived.landing):
                move(target, self.landed[1], arrived.received[:, index], self.landed[0])
        return arrived.landing

    def give_back(self, call: "Call", dkv: Pair) -> Schedule[tuple[Any, Returned]]:
        """Send the gradients of received rows back; return the ticket and what comes.

        Args:
            call: the call.
            dkv: the waiting call's gradients of keys and values [J, Hkv, D]; changed.
        """
        gives, back = _buffer(dkv[0], self.received), _buffer(dkv[0], self.sent)
        hops = _bundles(gives, self.received, back, self.sent)
        with call.record.piece(Part.COPIES, "sum dKV"):
            for index, x in enumerate(dkv):
                if self.sums is not None:
                    self.sums.add(x, x)
                take_into(hops[-1].send[:, index], x, self.gathered)
        then = partial(self._across, call, dkv, gives, back, hops[0]) if len(hops) > 1 else None
        ticket = yield Start([hops[-1]], then, name="dKV")
        return ticket, Returned(dkv, (back[:, 0], back[:, 1]))

    def finish(self, call: "Call", returned: Returned, dkv: Pair) -> None:
        """Complete the gradients of own rows; see `OwnRows.finish`."""
        self.own.finish(call, returned, dkv)

    def _pass_on(self, call: "Call", send: Tensor, received: Tensor, hop: Bundle) -> Bundle:
        """Copy what came across nodes for others of this one into the next message."""
        with call.record.piece(Part.COPIES, "pass on KV"):
            for index in range(2):
                move(send[:, index], self.passed[1], received[:, index], self.passed[0])
        return hop

    def _across(self, call: "Call", dkv: Pair, gives: Tensor, back: Tensor, hop: Bundle) -> Bundle:
        """Sum the node's gradients of what was passed on, and return them across."""
        with call.record.piece(Part.COPIES, "sum dKV of the node"):
            for index, dkeys in enumerate(dkv):
                if self.relayed is not None:
                    self.relayed.write(gives[:, index], dkeys, back[:, index])
        return hop


@dataclass(frozen=True, eq=False)
class Arriving:
    """Keys and values on their way.

    Attributes:
        landing: where the waiting call reads them, [J, Hkv, D] each.
        received: where those of others arrive, [R, 2, Hkv, D].
    """

    landing: Pair
    received: Tensor


def _buffer(like: Tensor, splits: tuple[Splits, ...]) -> Tensor:
    """Return room for the rows of all hops, K and V of each: [rows, 2, Hkv, D]."""
    return like.new_empty((sum(map(sum, splits)), 2, *like.shape[1:]))


def _bundles(
    send: Tensor, sent: tuple[Splits, ...], recv: Tensor, received: tuple[Splits, ...]
) -> list[Bundle]:
    """Return each hop's part of the buffers."""
    sends = torch.split(send, [sum(splits) for splits in sent])
    recvs = torch.split(recv, [sum(splits) for splits in received])
    return [Bundle(*one) for one in zip(sends, recvs, sent, received, strict=True)]


def _rows(hops: Sequence[Sequence[Message]]) -> tuple[NDArray[np.bool_], Indices]:
    """Return each row of all hops' messages: whether it is of own KV, and which row it is there."""
    messages = [message for hop in hops for message in hop]
    starts = np.array([m.start for m in messages], dtype=np.int64)
    sizes = np.array([m.rows for m in messages], dtype=np.int64)
    own = np.array([m.own for m in messages], dtype=bool)
    return np.repeat(own, sizes), ranges(starts, sizes)


def _splits(messages: Sequence[Message], ranks: int) -> Splits:
    """Return the rows to or from each rank."""
    tokens = [0] * ranks
    for message in messages:
        tokens[message.peer] += message.rows
    return tuple(tokens)

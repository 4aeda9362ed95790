"""All-gathers, whole or FlashCP's without every document's last shard; see `executor.routes`.

Forward: K and V are gathered, from where they lie if the whole of them is, and the waiting call's
keys are joined from what arrived and own rows with one gather. Backward: gradients are summed in
float32 for every row, and go home in one of two ways. By all-to-all, in the tensors' own precision,
every rank returns its share of every row and the owner sums in float32: the bytes of a
reduce-scatter in that precision, without its rounding at every hop. By reduce-scatter, the paper's
way, in float32 from where they were summed: as exact, but twice the bytes in half precision.

Shapes: t local tokens, N ranks, M rows that each rank gathers, J joined keys, Hkv key/value heads,
D head size.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor

from executor.kernels.segments import Pair
from executor.placement import Placement
from executor.record import Part
from executor.routes import Route, route
from executor.rows import Rows, Sums, count, rows, take, take_into, wide
from executor.transfers import Collective, Pattern, Schedule, Start
from executor.waiting import Calls

if TYPE_CHECKING:
    from executor.joined import Call


@dataclass(frozen=True, eq=False)
class Gathered:
    """One rank's part of an all-gather, ready for its device; see `executor.routes.Route`.

    Attributes:
        ranks: N.
        padded: M.
        in_place: local rows, the first ones, whose keys are read where they lie.
        send: local rows to send.
        own: local rows that follow the received ones.
        join: rows of received and own ones that the waiting call reads.
        sums: of the waiting call's gradients, by received and by own row.
        sums_home: local rows to which gradients of own and sent rows are added.
        scatters: whether gradients go home by reduce-scatter, else by all-to-all.
    """

    ranks: int
    padded: int
    in_place: int
    send: Rows
    own: Rows
    join: Rows
    sums: tuple[Sums | None, Sums | None]
    sums_home: Sums | None
    scatters: bool

    @classmethod
    def of(
        cls, placed: Placement, rank: int, calls: Calls, device: torch.device, *, scatters: bool
    ) -> Self:
        """Build the index tensors of `rank`'s part, once a plan."""
        return cls(**fields_of(route(placed, rank, calls), placed, calls, device, scatters))

    def start(
        self,
        call: "Call",
        kv: Pair,
        *,
        packs: bool,  # noqa: ARG002 - it is one part
    ) -> Schedule[tuple[Any, Pair]]:
        """Gather; return the ticket and the buffers [N M + own, Hkv, D] of K and V."""
        received, record = self.ranks * self.padded, call.record
        size = (received + count(self.own), *kv[0].shape[1:])
        buffers = kv[0].new_empty(size), kv[1].new_empty(size)
        with record.piece(Part.COPIES, "pack KV"):
            sends = [self.packed(x) for x in kv]
        ticket = yield Start(
            [
                Collective(Pattern.ALL_GATHER, send, buffer[:received])
                for send, buffer in zip(sends, buffers, strict=True)
            ],
            name="KV",
        )
        if count(self.own):
            with record.piece(Part.COPIES, "place own KV"):
                for x, buffer in zip(kv, buffers, strict=True):
                    take_into(buffer[received:], x, self.own)
        return ticket, buffers

    def joined(self, call: "Call", buffers: Pair) -> Pair:
        """Return the keys and values [J, Hkv, D] of the waiting call, once all has arrived."""
        with call.record.piece(Part.COPIES, "place KV"):
            return self.laid_out(buffers[0]), self.laid_out(buffers[1])

    def give_back(self, call: "Call", dkv: Pair) -> Schedule[tuple[Any, list[Pair]]]:
        """Send gradients home; return the ticket and, for K and V, own gradients and what comes.

        Args:
            call: the call.
            dkv: the waiting call's gradients of keys and values [J, Hkv, D].
        """
        received = self.ranks * self.padded
        transfers, results = [], []
        with call.record.piece(Part.COPIES, "sum dKV"):
            for x in dkv:
                size = (received, *x.shape[1:])
                # What stays here is never rounded.
                own = x.new_empty((count(self.own), *size[1:]), dtype=wide(x.dtype))
                send = (own if self.scatters else x).new_empty(size)
                self.spread(send, own, x)
                if self.scatters:
                    pattern, back = Pattern.REDUCE_SCATTER, send.new_empty((self.padded, *size[1:]))
                else:
                    pattern, back = Pattern.ALL_TO_ALL, torch.empty_like(send)
                transfers.append(Collective(pattern, send, back))
                results.append((own, back))
        ticket = yield Start(transfers, name="dKV")
        return ticket, results

    def finish(self, call: "Call", returned: list[Pair], dkv: Pair) -> None:
        """Complete the gradients of own rows; arguments as `executor.landed.Landed.finish`'s."""
        with call.record.piece(Part.COPIES, "add dKV"):
            for target, (own, back) in zip(dkv, returned, strict=True):
                target[self.in_place :].zero_()
                if self.sums_home is not None:
                    self.sums_home.add(target, own, self._summed(back, wide(target.dtype)))

    def packed(self, x: Tensor) -> Tensor:
        """Return what to send [M, Hkv, D]: `x` itself if that is all of it, else a copy."""
        sent = count(self.send)
        if sent == self.padded == x.shape[0] and x.is_contiguous():
            return x
        send = x.new_empty((self.padded, *x.shape[1:]))
        take_into(send[:sent], x, self.send)
        return send

    def laid_out(self, buffer: Tensor) -> Tensor:
        """Return the waiting call's keys or values out of the buffer."""
        return take(buffer, self.join)

    def spread(self, send: Tensor, own: Tensor, dkeys: Tensor) -> None:
        """Sum the waiting call's gradients by row, in float32.

        Args:
            send: where those of received rows go, [N M, Hkv, D].
            own: where those of own rows go, [own, Hkv, D].
            dkeys: the gradients [J, Hkv, D].
        """
        for target, sums in zip((send, own), self.sums, strict=True):
            if sums is not None:
                sums.write(target, dkeys)

    def _summed(self, back: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the sum of all ranks' gradients of the rows sent, this one's included."""
        sent = count(self.send)
        if self.scatters:
            return back[:sent]
        parts = back.view(self.ranks, self.padded, *back.shape[1:])
        total: Tensor = parts[:, :sent].sum(0, dtype=dtype)
        return total


def fields_of(
    found: Route, placed: Placement, calls: Calls, device: torch.device, scatters: bool
) -> dict[str, Any]:
    """Return the attributes of `Gathered` by name."""
    received = placed.plan.cp * found.padded
    sent = found.join < received
    return {
        "ranks": placed.plan.cp,
        "padded": found.padded,
        "in_place": calls.in_place,
        "send": rows(found.send, device),
        "own": rows(found.own, device),
        "join": rows(found.join, device),
        "sums": (
            Sums.of(device, (found.join[sent], np.flatnonzero(sent)), every=received),
            Sums.of(
                device,
                (found.join[~sent] - received, np.flatnonzero(~sent)),
                every=len(found.own),
            ),
        ),
        "sums_home": Sums.of(
            device,
            (found.own, np.arange(found.own.size)),
            (found.send, np.arange(found.send.size)),
        ),
        "scatters": scatters,
    }

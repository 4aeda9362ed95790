"""A rank's own rows beside what it receives: where they are read, and what comes back of them.

Whatever way the rows of others come: those whose keys are not read where they lie are copied
beside them, and so are earlier shards of a document into the prefix of a later one of the same
rank. Backward an own row's gradients meet in float32: its own call's, those of its copies, and
those that its receivers return.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from executor.kernels.segments import Pair
from executor.landing import Landing
from executor.placement import Indices
from executor.record import Part
from executor.rows import Rows, Sums, count, move, put, rows, take_into

if TYPE_CHECKING:
    from executor.joined import Call


@dataclass(frozen=True, eq=False)
class OwnRows:
    """Ready for a device; t local tokens, J keys of the waiting call.

    Attributes:
        in_place: local rows, the first ones, whose keys are read where they lie.
        home: where the keys of each local row from `in_place` on are read.
        prefix: local rows that are also in a later own shard's prefix, and where.
        sums: of own prefixes' gradients and what comes back, local rows.
    """

    in_place: int
    home: Rows
    prefix: tuple[Rows, Rows]
    sums: Sums | None

    @classmethod
    def of(
        cls, found: Landing, in_place: int, back: tuple[Indices, Indices], device: torch.device
    ) -> "OwnRows":
        """Build the index tensors, once a plan.

        Args:
            found: how keys come together.
            in_place: local rows whose keys are read where they lie.
            back: the local row of each own row that is sent, and where its gradient comes back.
            device: where the tensors are.
        """
        return cls(
            in_place=in_place,
            home=rows(found.home, device),
            prefix=(rows(found.prefix_from, device), rows(found.prefix_to, device)),
            sums=Sums.of(device, back, (found.prefix_from, found.prefix_to)),
        )

    def place(self, call: "Call", kv: Pair, landing: Pair) -> None:
        """Copy own keys and values [t, Hkv, D] to where they are read."""
        if count(self.home) or count(self.prefix[1]):
            with call.record.piece(Part.COPIES, "place own KV"):
                for x, target in zip(kv, landing, strict=True):
                    put(target, self.home, x[self.in_place :])
                    move(target, self.prefix[1], x, self.prefix[0])

    def finish(self, call: "Call", returned: "Returned", dkv: Pair) -> None:
        """Complete the gradients of own rows.

        Args:
            call: the call.
            returned: gradients of what was read and of what was sent, arrived.
            dkv: gradients of k and v [t, Hkv, D], or some heads of them, of which the rows read in
                place are written.
        """
        if not count(self.home) and self.sums is None:
            return
        with call.record.piece(Part.COPIES, "add dKV"):
            for target, dkeys, back in zip(dkv, returned.keys, returned.back, strict=True):
                take_into(target[self.in_place :], dkeys, self.home)
                if self.sums is not None:
                    self.sums.add(target, back, dkeys)


@dataclass(frozen=True, eq=False)
class Returned:
    """Gradients on their way home.

    Attributes:
        keys: of the waiting call's keys and values [J, Hkv, D].
        back: what others return, [rows sent in all hops, Hkv, D].
    """

    keys: Pair
    back: Pair

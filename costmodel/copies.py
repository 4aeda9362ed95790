"""Predicts the time of copying KV between its place in the model and the exchange's buffers.

Three ways to do it. `per-shard` is the paper's: shards are copied one by one, each at a fixed cost,
and the bytes move at the rate that its breakdown shows. `queued` is what `executor.published` does,
where the host's time of queueing a copy was measured: calls one by one, each of which waits for
whichever is slower, the host or the memory; on a CPU, which is both, for one and then the other.
`in-place` moves only what must move, in few kernels, at the rate of the device's memory: each byte
is read once and written once.

Fitted to the paper's breakdown (CP 8, 32 heads, 128k; 2.15 GB of KV gathered forward and as much
dKV scattered backward): its Per-Doc rows less its Llama3 rows give 95-112 us for each further
shard copied on a rank, over both passes, and what remains moves at 350 GB/s, a fifth of
what the memory could do. Its FlashCP rows were not used. See docs/research/copy-model.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from costmodel.errors import ProfileError
from costmodel.estimate import Estimate, Source
from costmodel.figure import Figure

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from costmodel.checks import Fields

COPY_MODES = ("per-shard", "in-place")


@dataclass(frozen=True)
class CopyModel:
    """What copies cost.

    Attributes:
        per_shard_us: fixed cost of a shard copied, forward and backward together.
        per_shard_gbps: bytes of KV a second, in thousands of millions, of shard-wise copies.
        memory_gbps: bandwidth of the device's memory, reads and writes together.
        memory_share: share of it that a copy kernel reaches.
        queue_us: the host's time of queueing a slice's copy; None where nobody measured it.
    """

    per_shard_us: Figure
    per_shard_gbps: Figure
    memory_gbps: Figure
    memory_share: Figure
    queue_us: Figure | None = None

    def estimate(self, moved_bytes: float, pieces: float, mode: str) -> Estimate:
        """Return the time of copying `moved_bytes` in `pieces` shards by `mode`.

        Raises:
            ProfileError: an unknown mode.
        """
        if mode == "per-shard":
            us = pieces * self.per_shard_us.value + moved_bytes / (self.per_shard_gbps.value * 1e3)
            return Estimate(us, max(self.per_shard_us.source, self.per_shard_gbps.source))
        if mode == "in-place":
            return Estimate(2 * moved_bytes / self.memory_bytes_per_us, self.memory_source)
        raise ProfileError(f"copy mode {mode!r} is unknown; there are: {', '.join(COPY_MODES)}")

    def us_array(
        self, moved_bytes: NDArray[np.float64], pieces: NDArray[np.float64], mode: str
    ) -> NDArray[np.float64]:
        """Return the times of many ranks' copies, as `estimate` would; [ranks] to [ranks]."""
        if mode == "per-shard":
            return pieces * self.per_shard_us.value + moved_bytes / (
                self.per_shard_gbps.value * 1e3
            )
        return 2 * moved_bytes / self.memory_bytes_per_us

    def queued_us(
        self, moved_bytes: NDArray[np.float64], calls: NDArray[np.int64], *, host_copies: bool
    ) -> NDArray[np.float64]:
        """Return the times of copies that are queued one by one; arrays of one shape.

        Args:
            moved_bytes: read once and written once.
            calls: in which they are.
            host_copies: whether the host copies itself, after queueing, as a CPU does.

        Raises:
            ProfileError: the profile has no `queue_us`.
        """
        if self.queue_us is None:
            raise ProfileError("the profile's copies.queue_us is missing; calibrate to measure it")
        queued = calls * self.queue_us.value
        copied = 2 * moved_bytes / self.memory_bytes_per_us
        together: NDArray[np.float64] = (
            queued + copied if host_copies else np.maximum(queued, copied)
        )
        return together

    @property
    def memory_bytes_per_us(self) -> float:
        """Bytes read or written a microsecond by a copy kernel."""
        return self.memory_gbps.value * self.memory_share.value * 1e3

    @property
    def memory_source(self) -> Source:
        """Where the memory's rate came from."""
        return max(self.memory_gbps.source, self.memory_share.source)

    def to_json(self) -> dict[str, Any]:
        """Return the copies as they stand in a profile."""
        found = {
            "per_shard_us": self.per_shard_us.to_json(),
            "per_shard_gbps": self.per_shard_gbps.to_json(),
            "memory_gbps": self.memory_gbps.to_json(),
            "memory_share": self.memory_share.to_json(),
        }
        if self.queue_us is not None:
            found["queue_us"] = self.queue_us.to_json()
        return found

    @classmethod
    def from_json(cls, fields: Fields) -> CopyModel:
        """Read the copies from a profile; raises ProfileError naming the field and value."""
        fields.only(("per_shard_us", "per_shard_gbps", "memory_gbps", "memory_share", "queue_us"))
        queues = "queue_us" in fields.document
        return cls(
            per_shard_us=Figure.from_json(fields, "per_shard_us"),
            per_shard_gbps=Figure.from_json(fields, "per_shard_gbps", least=1e-3),
            memory_gbps=Figure.from_json(fields, "memory_gbps", least=1e-3),
            memory_share=Figure.from_json(fields, "memory_share", least=1e-3, most=1.0),
            queue_us=Figure.from_json(fields, "queue_us") if queues else None,
        )

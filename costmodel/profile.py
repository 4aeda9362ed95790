"""All that is known of one kind of hardware, and the times that it predicts.

The parts live in modules of their own (attention, collectives, topology, copies); the profile
checks what callers pass, asks the part, and returns an `Estimate` that says where it came from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from costmodel import arguments, attention_kernel
from costmodel.attention import DIRECTIONS, AttentionModel
from costmodel.calibrated_points import Point, point_from_json, point_to_json
from costmodel.collectives import COLLECTIVES, UNEVEN, CollectiveCurve, CollectiveModel
from costmodel.copies import COPY_MODES, CopyModel
from costmodel.errors import ProfileError
from costmodel.estimate import NOTHING, Estimate, Source
from costmodel.figure import Figure
from costmodel.provenance import Provenance
from costmodel.topology import Network

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from costmodel.checks import Fields

_FIGURES = {
    # name -> bounds of its value
    "overlap_factor": (1.0, 100.0),
    "exchange_overlap_factor": (1.0, 100.0),
    "launch_us": (0.0, 1e6),
    "message_us": (0.0, 1e6),
    "peak_tflops": (1e-3, 1e6),
    "linear_share": (1e-3, 1.0),
}
# Figures that profiles of a version may know nothing of.
_UNKNOWN = {("exchange_overlap_factor", 1), ("message_us", 1), ("message_us", 2)}

UNKNOWN_EXCHANGE_OVERLAP = Figure(
    1.0, Source.REPORTED, "unknown: nobody has measured it; taken for 1"
)

UNKNOWN_MESSAGE = Figure(
    4.5,
    Source.REPORTED,
    "torch's share, 4.0 to 4.5 measured on a CPU (benchmarks/executor); NCCL's on top is unknown",
)


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A hardware profile; made by `load_profile`, never changed.

    Attributes:
        name: "h100-sxm", or the name that a calibration was given.
        provenance: what was measured, on what, with what.
        attention: times of the attention kernel.
        collectives: times of collectives within a node.
        network: the links between nodes.
        copies: times of copies within a device.
        overlap_factor: by how much attention slows while an exchange runs beside it, at least 1.
        exchange_overlap_factor: by how much the exchange slows while attention runs beside it.
        launch_us: time of launching one further kernel.
        message_us: the host's time of posting one message of an exchange.
        peak_tflops: dense bf16 matrix multiplication of the data sheet.
        linear_share: share of it that linear layers reach.
        points: what a calibration measured; none where the fit is to tables.
    """

    name: str
    provenance: Provenance
    attention: AttentionModel
    collectives: CollectiveModel
    network: Network
    copies: CopyModel
    overlap_factor: Figure
    exchange_overlap_factor: Figure = UNKNOWN_EXCHANGE_OVERLAP
    launch_us: Figure
    message_us: Figure = UNKNOWN_MESSAGE
    peak_tflops: Figure
    linear_share: Figure
    points: tuple[Point, ...] = ()

    def attention_us(
        self,
        q_lens: Sequence[int] | NDArray[np.integer[Any]],
        k_lens: Sequence[int] | NDArray[np.integer[Any]],
        *,
        q_heads: int,
        kv_heads: int,
        head_dim: int,
        direction: str,
        causal: bool = True,
        cache_write: bool = False,
    ) -> Estimate:
        """Return the time of one varlen attention kernel call over all the segments.

        Args:
            q_lens: query tokens of each segment; one of 0 costs nothing.
            k_lens: key tokens of each segment; under the causal mask at least as many as queries,
                the queries being the last of them.
            q_heads: query heads on the rank.
            kv_heads: key/value heads on the rank; divides `q_heads`.
            head_dim: head size.
            direction: "forward" or "backward".
            causal: False for full rectangles, as steps of a ring use them.
            cache_write: count the KV-cache write that the bundled profiles' measurements of
                forward calls contain; training has none. True reproduces those measurements.

        Returns:
            Microseconds and source; no segments take 0.

        Raises:
            ProfileError: a wrong argument; names it and its value.
        """
        queries, keys = arguments.tokens(q_lens, "q_lens"), arguments.tokens(k_lens, "k_lens")
        if len(queries) != len(keys):
            raise ProfileError(f"there are {len(queries)} q_lens and {len(keys)} k_lens")
        if causal and (short := np.flatnonzero(keys < queries)).size:
            i = int(short[0])
            raise ProfileError(
                f"segment {i} has {queries[i]} query tokens but {keys[i]} key tokens;"
                " under the causal mask a segment's queries are the last of its keys"
            )
        arguments.known(direction, "direction", DIRECTIONS)
        for name, value in (("q_heads", q_heads), ("kv_heads", kv_heads), ("head_dim", head_dim)):
            arguments.whole(value, name, least=1)
        parameters = self.attention.parameters(
            q_heads, kv_heads, head_dim, direction, causal=causal, cache_write=cache_write
        )
        if not queries.any():
            return NOTHING
        splits = np.array([0, len(queries)], np.int64)
        us = float(attention_kernel.attention_us(queries, keys, splits, parameters)[0])
        source = self.attention.source(
            queries, keys, q_heads, kv_heads, head_dim, direction, causal=causal
        )
        return Estimate(us, source)

    def collective_us(
        self,
        name: str,
        total_bytes: float,
        ranks: int,
        *,
        ranks_per_node: int | None = None,
    ) -> Estimate:
        """Return the time of one collective.

        Args:
            name: "all_gather", "reduce_scatter", "all_to_all" or "send_recv" (a ring's step).
            total_bytes: S as nccl-tests counts it: the total over ranks of an all-gather or
                reduce-scatter; one rank's buffer of an all-to-all (it keeps S / ranks and sends
                as much to each of the others); what each rank sends in a send_recv. 0 bytes take
                the latency.
            ranks: size of the group; 1 takes no time.
            ranks_per_node: how many of them share a node; by default all, or as many as fill the
                profile's nodes alike.

        Returns:
            Microseconds and source; REPORTED as soon as a group spans nodes.

        Raises:
            ProfileError: a wrong argument; names it and its value.
        """
        arguments.known(name, "collective", COLLECTIVES)
        arguments.number(total_bytes, "total_bytes")
        ranks = arguments.whole(ranks, "ranks", least=1, most=arguments.MOST_RANKS)
        per_node = self.network.per_node(ranks, ranks_per_node)
        if per_node == ranks:
            return self.collectives.estimate(name, float(total_bytes), ranks)
        return self.network.spanning(self.collectives, name, float(total_bytes), ranks, per_node)

    def collective_us_array(
        self,
        name: str,
        total_bytes: ArrayLike,
        ranks: int,
        *,
        ranks_per_node: int | None = None,
    ) -> tuple[NDArray[np.float64], Source]:
        """Return the times of many collectives of one group at once, for planners.

        Args:
            name: as for `collective_us`.
            total_bytes: S of each message, [messages].
            ranks: as for `collective_us`.
            ranks_per_node: as for `collective_us`.

        Returns:
            Microseconds [messages], and the worst source among them.

        Raises:
            ProfileError: a wrong argument; names it and its value.
        """
        arguments.known(name, "collective", COLLECTIVES)
        sizes = np.asarray(total_bytes, np.float64)
        wrong = np.flatnonzero(~(np.isfinite(sizes) & (sizes >= 0)))
        if sizes.ndim != 1 or wrong.size:
            what = f"shape {sizes.shape}" if sizes.ndim != 1 else f"{sizes[wrong[0]]}"
            raise ProfileError(f"total_bytes holds {what}; it must be a list of bytes, 0 or more")
        ranks = arguments.whole(ranks, "ranks", least=1, most=arguments.MOST_RANKS)
        per_node = self.network.per_node(ranks, ranks_per_node)
        ends = [
            self.collective_us(name, float(end), ranks, ranks_per_node=per_node).source
            for end in ((sizes.min(), sizes.max()) if sizes.size else ())
        ]
        if per_node == ranks:
            times = self.collectives.us_array(name, sizes, ranks)
        else:
            times = np.array(
                [
                    self.network.spanning(self.collectives, name, float(size), ranks, per_node).us
                    for size in sizes
                ],
                np.float64,
            )
        inside = Source.INTERPOLATED if sizes.size > 1 and ranks > 1 else Source.MEASURED
        return times, max([inside, *ends])

    def all_to_all_v_us(
        self,
        largest_bytes: float,
        ranks: int,
        *,
        ranks_per_node: int | None = None,
        across_bytes: float | None = None,
    ) -> Estimate:
        """Return the time of an all-to-all whose ranks send and receive different amounts.

        It ends when its busiest rank does. Where uneven ones were measured in a group of this size
        it takes what one of as busy a rank took; else what an even all-to-all takes in which every
        rank sends and receives as much as that one: a buffer of S = largest * ranks / (ranks - 1),
        of which a rank keeps S / ranks.

        Args:
            largest_bytes: the most that any rank sends to, or receives from, all the others.
            ranks: size of the group; 1 takes no time.
            ranks_per_node: as for `collective_us`.
            across_bytes: the most of it that any rank sends to, or receives from, other nodes; by
                default as much as in an even exchange. See `costmodel.topology`; without effect
                within one node.

        Returns:
            Microseconds; EXTRAPOLATED at best: from even ones, or from one pattern of uneven ones.

        Raises:
            ProfileError: a wrong argument; names it and its value.
        """
        arguments.number(largest_bytes, "largest_bytes")
        ranks = arguments.whole(ranks, "ranks", least=1, most=arguments.MOST_RANKS)
        per_node = self.network.per_node(ranks, ranks_per_node)
        if across_bytes is not None:
            arguments.number(across_bytes, "across_bytes")
            if across_bytes > largest_bytes:
                raise ProfileError(
                    f"across_bytes is {across_bytes}, more than largest_bytes, {largest_bytes}"
                )
        if ranks == 1:
            return NOTHING
        if per_node == ranks:
            found = self.collectives.estimate(UNEVEN, largest_bytes, ranks)
        else:
            if across_bytes is None:
                across_bytes = largest_bytes * (ranks - per_node) / (ranks - 1)
            found = self.network.spanning_v(
                self.collectives, largest_bytes, across_bytes, ranks, per_node
            )
        return Estimate(found.us, max(found.source, Source.EXTRAPOLATED))

    def copy_us(self, moved_bytes: float, pieces: float, mode: str) -> Estimate:
        """Return the time of copying KV on one rank.

        Args:
            moved_bytes: bytes copied; each is read once and written once.
            pieces: shards copied, forward and backward counted as one; without effect in place.
            mode: "per-shard" (the paper's way) or "in-place".

        Raises:
            ProfileError: a wrong argument; names it and its value.
        """
        arguments.number(moved_bytes, "moved_bytes")
        arguments.number(pieces, "pieces")
        arguments.known(mode, "copy mode", COPY_MODES)
        return self.copies.estimate(moved_bytes, pieces, mode)

    def linear_us(self, flops: float) -> Estimate:
        """Return the time of linear layers from their floating-point operations.

        Raises:
            ProfileError: a wrong argument; names it and its value.
        """
        arguments.number(flops, "flops")
        rate = self.peak_tflops.value * self.linear_share.value * 1e6
        return Estimate(flops / rate, max(self.peak_tflops.source, self.linear_share.source))

    def to_json(self) -> dict[str, Any]:
        """Return the body of the profile file."""
        return {
            "name": self.name,
            "provenance": self.provenance.to_json(),
            **{name: getattr(self, name).to_json() for name in _FIGURES},
            "network": self.network.to_json(),
            "copies": self.copies.to_json(),
            "collectives": {
                "source": self.collectives.source.label,
                "curves": [curve.to_json() for curve in self.collectives.curves],
            },
            "attention": self.attention.to_json(),
            **({"points": [point_to_json(p) for p in self.points]} if self.points else {}),
        }

    @classmethod
    def from_json(cls, part: Fields) -> Profile:
        """Read the body of a profile file; raises ProfileError naming the field and value."""
        collectives = part.part("collectives")
        collectives.only(("source", "curves"))
        if collectives.source() not in (Source.MEASURED, Source.REPORTED):
            raise collectives.fail("source", "must be measured, or reported of other hardware")
        curves = tuple(CollectiveCurve.from_json(item) for item in collectives.parts("curves"))
        keys = [(curve.collective, curve.ranks, curve.ranks_per_node) for curve in curves]
        if repeated := [key for key in keys if keys.count(key) > 1]:
            raise collectives.fail("curves", f"holds {repeated[0][0]} on {repeated[0][1]} twice")
        profile = cls(
            name=part.text("name"),
            provenance=Provenance.from_json(part.part("provenance")),
            attention=AttentionModel.from_json(part.part("attention")),
            collectives=CollectiveModel(curves, collectives.source()),
            network=Network.from_json(part.part("network")),
            copies=CopyModel.from_json(part.part("copies")),
            **{
                name: Figure.from_json(part, name, least=least, most=most)
                for name, (least, most) in _FIGURES.items()
                if name in part.document or (name, part.document.get("version")) not in _UNKNOWN
            },
            points=tuple(point_from_json(p) for p in part.parts("points"))
            if "points" in part.document
            else (),
        )
        part.only(("format", "version", *profile.to_json()))
        return profile

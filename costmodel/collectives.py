"""Predicts the time of NCCL collectives from measured points of (collective, group size).

Between two measured sizes the time is the straight line through them: alpha + beta * bytes with
the alpha and beta of that stretch. NCCL changes protocol (LL, LL128, Simple) and channel count as
messages grow, and within one such regime its time is a latency and a bandwidth; a single
alpha + beta * S + gamma * sqrt(S) over all sizes errs by 8.2% on left-out sizes above 64 KB, the
piecewise line by 5.9% (docs/research/collective-model.md). That single curve, fitted robustly, is
used where there is nothing to interpolate: beyond the largest size, scaled to meet it.

Sizes are S as nccl-tests counts bytes: the total over ranks for all-gather and reduce-scatter; for
all-to-all the buffer of one rank, of which it keeps S/n and sends S/n to each of the others. In
all three a rank sends and receives S * (n - 1) / n. For `send_recv`, S is what each rank sends to
its neighbour in a ring while it receives as much.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from costmodel.errors import ProfileError
from costmodel.estimate import NOTHING, Estimate, Source

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from costmodel.checks import Fields

COLLECTIVES = ("all_gather", "reduce_scatter", "all_to_all", "send_recv")
UNEVEN = "all_to_all_v"
"""An all-to-all of uneven parts; S is what its busiest rank sends to, or gets from, the others."""


@dataclass(frozen=True)
class CollectiveCurve:
    """The measured times of one collective in one kind of group, made monotone.

    Attributes:
        collective: one of `COLLECTIVES`, or `UNEVEN`.
        ranks: size of the group, at least 2.
        ranks_per_node: how many of them share a node; all, unless it was measured across nodes.
        sizes_bytes: S of each point, rising.
        times_us: time of each point, positive and never falling.
        alpha_us: latency of the fit over all sizes.
        beta_us_per_byte: its bandwidth term.
        gamma_us_per_root_byte: its square-root term.
    """

    collective: str
    ranks: int
    ranks_per_node: int
    sizes_bytes: tuple[float, ...]
    times_us: tuple[float, ...]
    alpha_us: float
    beta_us_per_byte: float
    gamma_us_per_root_byte: float

    @property
    def latency_us(self) -> float:
        """Time of the smallest measured message: what a message of no bytes takes."""
        return self.times_us[0]

    def fit_us(self, total_bytes: float) -> float:
        """Return alpha + beta * S + gamma * sqrt(S)."""
        return (
            self.alpha_us
            + self.beta_us_per_byte * total_bytes
            + self.gamma_us_per_root_byte * math.sqrt(total_bytes)
        )

    def us(self, total_bytes: float) -> float:
        """Return the time of a message of `total_bytes` (S)."""
        sizes, times = self.sizes_bytes, self.times_us
        if total_bytes <= sizes[0]:
            return times[0]
        if total_bytes >= sizes[-1]:
            return times[-1] * self.fit_us(total_bytes) / self._fit_at_end
        i = bisect_right(sizes, total_bytes)
        share = (total_bytes - sizes[i - 1]) / (sizes[i] - sizes[i - 1])
        return times[i - 1] + share * (times[i] - times[i - 1])

    def us_array(self, total_bytes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the times of many messages at once, [messages] to [messages]."""
        times = np.interp(total_bytes, self.sizes_bytes, self.times_us)
        beyond = total_bytes > self.sizes_bytes[-1]
        if beyond.any():
            large = total_bytes[beyond]
            fit = self.alpha_us + self.beta_us_per_byte * large
            fit += self.gamma_us_per_root_byte * np.sqrt(large)
            times[beyond] = self.times_us[-1] * fit / self._fit_at_end
        return times

    def source(self, total_bytes: float) -> Source:
        """Say whether S was measured, lies between measured sizes or outside them."""
        if total_bytes in self._measured:
            return Source.MEASURED
        inside = self.sizes_bytes[0] <= total_bytes <= self.sizes_bytes[-1]
        return Source.INTERPOLATED if inside else Source.EXTRAPOLATED

    @cached_property
    def _fit_at_end(self) -> float:
        return self.fit_us(self.sizes_bytes[-1])

    @cached_property
    def _measured(self) -> frozenset[float]:
        return frozenset(self.sizes_bytes)

    def to_json(self) -> dict[str, Any]:
        """Return the curve as it stands in a profile."""
        return {
            "collective": self.collective,
            "ranks": self.ranks,
            "ranks_per_node": self.ranks_per_node,
            "alpha_us": self.alpha_us,
            "beta_us_per_byte": self.beta_us_per_byte,
            "gamma_us_per_root_byte": self.gamma_us_per_root_byte,
            "sizes_bytes": list(self.sizes_bytes),
            "times_us": list(self.times_us),
        }

    @classmethod
    def from_json(cls, fields: Fields) -> CollectiveCurve:
        """Read a curve from a profile; raises ProfileError naming the field and value."""
        ranks = fields.whole("ranks", least=2, most=2**20)
        per_node = ranks
        if "ranks_per_node" in fields.document:  # not in version 1, which knew no others
            per_node = fields.whole("ranks_per_node", least=1, most=ranks)
        if ranks % per_node:
            raise fields.fail("ranks_per_node", f"is {per_node}, which does not divide {ranks}")
        curve = cls(
            collective=fields.word("collective", (*COLLECTIVES, UNEVEN)),
            ranks=ranks,
            ranks_per_node=per_node,
            sizes_bytes=fields.numbers("sizes_bytes"),
            times_us=fields.numbers("times_us", least=1e-6),
            alpha_us=fields.number("alpha_us"),
            beta_us_per_byte=fields.number("beta_us_per_byte"),
            gamma_us_per_root_byte=fields.number("gamma_us_per_root_byte"),
        )
        fields.only(curve.to_json())
        if not curve.sizes_bytes:
            raise fields.fail("sizes_bytes", "is empty; a curve needs at least one point")
        if len(curve.sizes_bytes) != len(curve.times_us):
            raise fields.fail(
                "times_us", f"has {len(curve.times_us)} values for {len(curve.sizes_bytes)} sizes"
            )
        for key, values, strict in (
            ("sizes_bytes", curve.sizes_bytes, True),
            ("times_us", curve.times_us, False),
        ):
            for before, after in pairwise(values):
                if after < before or (strict and after == before):
                    raise fields.fail(key, f"falls from {before:g} to {after:g}; it must rise")
        if curve.fit_us(curve.sizes_bytes[-1]) <= 0:
            raise fields.fail("alpha_us", "and beta and gamma are all 0")
        return curve


@dataclass(frozen=True)
class CollectiveModel:
    """The curves of every measured (collective, group), within one node and across nodes.

    Attributes:
        curves: at most one for a collective, group size and ranks a node.
        source: MEASURED on this hardware, or REPORTED where they are another's.
    """

    curves: tuple[CollectiveCurve, ...]
    source: Source = Source.MEASURED

    @cached_property
    def _groups(self) -> dict[str, dict[int, CollectiveCurve]]:
        groups: dict[str, dict[int, CollectiveCurve]] = {}
        for curve in sorted(self.curves, key=lambda curve: curve.ranks):
            if curve.ranks_per_node == curve.ranks:
                groups.setdefault(curve.collective, {})[curve.ranks] = curve
        return groups

    @cached_property
    def _across(self) -> dict[tuple[str, int, int], CollectiveCurve]:
        return {(c.collective, c.ranks, c.ranks_per_node): c for c in self.curves}

    def across(self, name: str, total_bytes: float, ranks: int, per_node: int) -> Estimate | None:
        """Return the time in a group that spans nodes, None where that was not measured."""
        curve = self._across.get((name, ranks, per_node))
        if curve is None:
            return None
        return Estimate(curve.us(total_bytes), max(curve.source(total_bytes), self.source))

    def measured_ranks(self, name: str) -> list[int]:
        """Return the group sizes in which `name` was measured, rising."""
        return list(self._groups.get(name, {}))

    def curve(self, name: str, ranks: int) -> CollectiveCurve | None:
        """Return the measured curve, or None where this group size was not measured."""
        return self._groups.get(name, {}).get(ranks)

    def estimate(self, name: str, total_bytes: float, ranks: int) -> Estimate:
        """Return the time of collective `name` over `ranks` GPUs of one node.

        A single rank has nobody to talk to: 0. Where `send_recv` was not measured, each rank of a
        2-rank all-to-all of S sends S/2 while it receives as much, and a switch gives every pair
        its own path, so a ring step of S takes what that of 2 * S takes; marked extrapolated.
        Where it was, a ring of another size takes what the nearest measured one takes. Where
        `UNEVEN` was not measured in a group of this size, it takes what an even all-to-all does in
        which each rank sends as much; marked extrapolated.
        """
        if ranks == 1:
            return NOTHING
        groups = self._groups.get(name)
        if name == UNEVEN and (groups is None or ranks not in groups):
            even = self.estimate("all_to_all", total_bytes * ranks / (ranks - 1), ranks)
            return Estimate(even.us, max(even.source, Source.EXTRAPOLATED))
        if name == "send_recv" and not groups:
            pair = self.estimate("all_to_all", 2.0 * total_bytes, 2)
            return Estimate(pair.us, max(pair.source, Source.EXTRAPOLATED))
        if not groups:
            raise ProfileError(
                f"the profile has no measurement of {name}; calibrate with two ranks or more"
            )
        curve = groups.get(ranks)
        if curve is not None:
            found = Estimate(curve.us(total_bytes), curve.source(total_bytes))
        elif name == "send_recv":
            near = groups[min(groups, key=lambda known: (abs(known - ranks), known))]
            found = Estimate(near.us(total_bytes), Source.EXTRAPOLATED)
        else:
            found = _between_groups(list(groups.values()), total_bytes, ranks)
        return Estimate(found.us, max(found.source, self.source))

    def us_array(
        self, name: str, total_bytes: NDArray[np.float64], ranks: int
    ) -> NDArray[np.float64]:
        """Return the times of many messages, as `estimate` would; [messages] to [messages]."""
        if ranks == 1:
            return np.zeros(len(total_bytes))
        if name == "send_recv" and name not in self._groups:
            return self.us_array("all_to_all", 2.0 * total_bytes, 2)
        curve = self.curve(name, ranks)
        if curve is not None:
            return curve.us_array(total_bytes)
        return np.array([self.estimate(name, float(size), ranks).us for size in total_bytes])


def _between_groups(curves: list[CollectiveCurve], total_bytes: float, ranks: int) -> Estimate:
    """Estimate a group size that was not measured from those that were (rising ranks).

    The latency grows with the steps of the ring, so along the ranks; the rest with the bytes over
    a link, so along (n - 1) / n. Leaving out 4 ranks and predicting them from 2 and 8 errs by
    5.7% above 64 KB; predicting 8 from 2 and 4 by 12%.
    """
    upper = next((i for i, curve in enumerate(curves) if curve.ranks > ranks), len(curves))
    if 0 < upper < len(curves):
        low, high = curves[upper - 1], curves[upper]
        by_rank = (ranks - low.ranks) / (high.ranks - low.ranks)
        by_link = (_link_share(ranks) - _link_share(low.ranks)) / (
            _link_share(high.ranks) - _link_share(low.ranks)
        )
        latency = low.latency_us + by_rank * (high.latency_us - low.latency_us)
        transfer = (1 - by_link) * (low.us(total_bytes) - low.latency_us) + by_link * (
            high.us(total_bytes) - high.latency_us
        )
        source = max(low.source(total_bytes), high.source(total_bytes), Source.INTERPOLATED)
        return Estimate(latency + transfer, source)
    near = curves[0] if upper == 0 else curves[-1]
    step_us = 0.0
    if upper > 0 and len(curves) > 1:
        before = curves[-2]
        step_us = max(0.0, (near.latency_us - before.latency_us) / (near.ranks - before.ranks))
    latency = near.latency_us + step_us * (ranks - near.ranks)
    transfer = near.us(total_bytes) - near.latency_us
    return Estimate(
        latency + transfer * _link_share(ranks) / _link_share(near.ranks), Source.EXTRAPOLATED
    )


def _link_share(ranks: int) -> float:
    return (ranks - 1) / ranks

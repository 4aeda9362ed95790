"""Groups that span nodes: NVLink inside, one network interface a GPU between.

Nothing between nodes is measured for bundled profiles: bandwidth and latency are reported figures,
and so is every estimate that uses them. With n ranks on m nodes of r, S as nccl-tests counts it,
w the bandwidth of one interface and l the latency of one step over the network:

    all_gather, reduce_scatter   max(T(S, r), S (m - 1) / (m r w)) + (m - 1) l
    all_to_all                   max(T(S r / n, r), S (n - r) / (n w)) + (m - 1) l
    send_recv                    max(T(S, 2), S / w) + l

T(S, r) is the time of the same collective within one node of r ranks (0 for r = 1). The parts
overlap, hence the maximum: rings carry chunks through both at once, and all-to-all posts every
transfer together. A node takes in S (m - 1) / m of an all-gather over its r interfaces; a rank of
an all-to-all sends S / n to each of the n - r ranks elsewhere over its own. These are bounds of a
well-spread ring, as hierarchical collectives reach them; a badly placed job is slower.

An all-to-all of uneven parts, of which the busiest rank sends or receives L in all and the busiest
on the network A of it across nodes, takes

    all_to_all_v                 max(T(L r / (r - 1), r), A / w) + (m - 1) l

Inside the node all of L is counted, since what leaves it passes the same links on its way to
another GPU's interface; where nothing leaves it (A = 0), there is no step over the network.

Groups across nodes whose collectives a calibration measured follow their own curves instead, and
the formulas serve the others. An all-to-all of uneven parts then takes what was measured of one
whose busiest rank sends everybody as much, times the ratio of the formula at A and at that one's
L (n - r) / (n - 1). On one machine whose two "nodes" share a memory and cores the formulas erred
by 109%: parts that they let overlap there wait for the same cores.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from costmodel.collectives import UNEVEN
from costmodel.errors import ProfileError
from costmodel.estimate import NOTHING, Estimate, Source
from costmodel.figure import Figure

if TYPE_CHECKING:
    from costmodel.checks import Fields
    from costmodel.collectives import CollectiveModel


@dataclass(frozen=True)
class Network:
    """The links between nodes.

    Attributes:
        gpus_per_node: GPUs that share the fast links.
        nic_gbps: what one GPU's interface carries a direction, GB/s.
        step_us: latency of one step between nodes.
    """

    gpus_per_node: int
    nic_gbps: Figure
    step_us: Figure

    def per_node(self, ranks: int, ranks_per_node: int | None) -> int:
        """Return how many of `ranks` share a node.

        Without `ranks_per_node` that is all of them where a node holds them, else the largest
        number a node holds that fills every node alike.

        Raises:
            ProfileError: `ranks_per_node` is below 1 or does not divide `ranks`.
        """
        if ranks_per_node is None:
            most = min(ranks, self.gpus_per_node)
            return next(share for share in range(most, 0, -1) if ranks % share == 0)
        if isinstance(ranks_per_node, bool) or ranks_per_node != int(ranks_per_node):
            raise ProfileError(f"ranks per node is {ranks_per_node!r}, not a whole number")
        if ranks_per_node < 1 or ranks % ranks_per_node:
            raise ProfileError(
                f"{ranks_per_node} ranks per node do not divide {ranks} ranks;"
                f" take one of {_divisors(ranks)}"
            )
        return int(ranks_per_node)

    def spanning(
        self, model: CollectiveModel, name: str, total_bytes: float, ranks: int, per_node: int
    ) -> Estimate:
        """Return the time of a collective over `ranks` of which `per_node` share a node."""
        measured = model.across(name, total_bytes, ranks, per_node)
        if measured is not None:
            return measured
        nodes = ranks // per_node
        bytes_per_us = self.nic_gbps.value * 1e3
        if name == "send_recv":
            inside = model.estimate(name, total_bytes, 2) if per_node > 1 else NOTHING
            between_us, steps = total_bytes / bytes_per_us, 1
        elif name == "all_to_all":
            inside = model.estimate(name, total_bytes * per_node / ranks, per_node)
            between_us = total_bytes * (ranks - per_node) / (ranks * bytes_per_us)
            steps = nodes - 1
        else:
            inside = model.estimate(name, total_bytes, per_node)
            between_us = total_bytes * (nodes - 1) / (nodes * per_node * bytes_per_us)
            steps = nodes - 1
        source = max(inside.source, self.nic_gbps.source, self.step_us.source, Source.EXTRAPOLATED)
        return Estimate(max(inside.us, between_us) + steps * self.step_us.value, source)

    def spanning_v(
        self,
        model: CollectiveModel,
        largest_bytes: float,
        across_bytes: float,
        ranks: int,
        per_node: int,
    ) -> Estimate:
        """Return the time of an uneven all-to-all by its busiest rank's bytes, see the module."""
        inside = NOTHING
        if per_node > 1:
            inside = model.estimate(UNEVEN, largest_bytes, per_node)
        if across_bytes == 0:
            return inside
        found = self._uneven(inside, across_bytes, ranks // per_node)
        spread = largest_bytes * (ranks - per_node) / (ranks - 1)
        measured = model.across(UNEVEN, largest_bytes, ranks, per_node)
        if measured is None:
            even_bytes = largest_bytes * ranks / (ranks - 1)
            measured = model.across("all_to_all", even_bytes, ranks, per_node)
        if measured is None:
            return found
        share = found.us / self._uneven(inside, spread, ranks // per_node).us
        return Estimate(measured.us * share, max(measured.source, Source.EXTRAPOLATED))

    def _uneven(self, inside: Estimate, across_bytes: float, nodes: int) -> Estimate:
        across_us = across_bytes / (self.nic_gbps.value * 1e3)
        source = max(inside.source, self.nic_gbps.source, self.step_us.source)
        return Estimate(max(inside.us, across_us) + (nodes - 1) * self.step_us.value, source)

    def to_json(self) -> dict[str, Any]:
        """Return the network as it stands in a profile."""
        return {
            "gpus_per_node": self.gpus_per_node,
            "nic_gbps": self.nic_gbps.to_json(),
            "step_us": self.step_us.to_json(),
        }

    @classmethod
    def from_json(cls, fields: Fields) -> Network:
        """Read the network from a profile; raises ProfileError naming the field and value."""
        fields.only(("gpus_per_node", "nic_gbps", "step_us"))
        return cls(
            gpus_per_node=fields.whole("gpus_per_node", least=1, most=4096),
            nic_gbps=Figure.from_json(fields, "nic_gbps", least=1e-3),
            step_us=Figure.from_json(fields, "step_us"),
        )


def _divisors(ranks: int) -> str:
    divisors = [share for share in range(1, ranks + 1) if ranks % share == 0]
    return ", ".join(map(str, divisors))

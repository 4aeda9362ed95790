"""Links between nodes, from collectives that were measured across them.

The formulas of `topology` are turned round: with the part within a node known, what a large message
takes beyond its steps gives the interface's rate, what the smallest takes gives the steps' latency.
Medians over collectives and group shapes, since each is one or two points. They are for groups that
were not measured: those that were have curves of their own.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from costmodel.estimate import Source
from costmodel.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from costmodel.calibrated_points import TransferPoint
    from costmodel.collectives import CollectiveModel
    from costmodel.topology import Network

_LARGEST = 2  # sizes of each group that tell the rate
_NEAR = 1.05


def measured_network(
    points: Sequence[TransferPoint], inside: CollectiveModel, network: Network
) -> Network:
    """Return `network` with the rate and latency that `points`, across nodes, show.

    Args:
        points: each with fewer ranks a node than ranks.
        inside: collectives, of which those within a node count.
        network: whose other figures are kept.
    """
    groups: dict[tuple[str, int, int], list[TransferPoint]] = {}
    for point in points:
        if point.parts == "even":
            key = (point.collective, point.ranks, point.ranks_per_node)
            groups.setdefault(key, []).append(point)
    if not groups:
        return network
    within = tuple(curve for curve in inside.curves if curve.ranks_per_node == curve.ranks)
    inside = replace(inside, curves=within)
    steps_us: list[float] = []
    rates: tuple[list[float], list[float]] = ([], [])
    for (name, ranks, per_node), group in groups.items():
        ordered = sorted(group, key=lambda point: point.total_bytes)
        steps = 1 if name == "send_recv" else ranks // per_node - 1
        least = ordered[0]
        free = replace(network, step_us=_figure(0.0), nic_gbps=_figure(1e9))
        alone_us = free.spanning(inside, name, float(least.total_bytes), ranks, per_node).us
        step_us = max(least.us - alone_us, 0.0) / steps
        steps_us.append(step_us)
        slow = replace(network, step_us=_figure(0.0), nic_gbps=_figure(1e-3))
        for point in ordered[-_LARGEST:]:
            # At 1e-3 GB/s, one byte a microsecond, the time is the bytes over the interface.
            size = float(point.total_bytes)
            moved = slow.spanning(inside, name, size, ranks, per_node).us
            rest_us = max(point.us - steps * step_us, 1e-3)
            # What the links within the node alone take tells nothing of those between.
            limited = rest_us <= free.spanning(inside, name, size, ranks, per_node).us * _NEAR
            rates[limited].append(moved / rest_us)
    reference = f"measured: {len(points)} collectives across nodes"
    return replace(
        network,
        nic_gbps=Figure(_short(np.median(rates[0] or rates[1]) / 1e3), Source.MEASURED, reference),
        step_us=Figure(_short(np.median(steps_us)), Source.MEASURED, reference),
    )


def _figure(value: float) -> Figure:
    return Figure(value, Source.MEASURED, "for turning the formula round")


def _short(value: float | np.floating) -> float:
    return float(f"{float(value):.5g}")

"""The curves that `flashcp hardware show` draws: the model's, with measured points beside them."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

    from costmodel.profile import Profile

Q_HEADS, KV_HEADS, HEAD_DIM = 32, 8, 128
_LENGTHS = [2**power for power in range(6, 18)]
_SIZES = [2**power for power in range(14, 33, 2)]


@dataclass(frozen=True)
class AttentionPoint:
    """One causal sequence without a prefix, forward, 32:8 heads of size 128.

    Attributes:
        tokens: length of the sequence.
        model_us: predicted time.
        model_tflops: its rate, causal floating-point operations over time.
        measured_us: median of the measured times; None where none was.
        measured_tflops: its rate.
        source: where the prediction came from.
    """

    tokens: int
    model_us: float
    model_tflops: float
    measured_us: float | None
    measured_tflops: float | None
    source: str

    def to_json(self) -> dict[str, Any]:
        """Return the point as a JSON object."""
        return asdict(self)


@dataclass(frozen=True)
class CollectivePoint:
    """One collective over one group.

    Attributes:
        collective: its name; "all_to_all_v" is of uneven parts.
        ranks: size of the group.
        ranks_per_node: how many of them share a node.
        total_bytes: S, as nccl-tests counts it.
        model_us: predicted time.
        model_busbw_gbps: its bus bandwidth, S (n - 1) / n over time; of ring steps and uneven parts
            S over time, what a rank sends.
        measured_us: measured time; None where there is none.
        measured_busbw_gbps: its bus bandwidth.
        source: where the prediction came from.
    """

    collective: str
    ranks: int
    ranks_per_node: int
    total_bytes: int
    model_us: float
    model_busbw_gbps: float
    measured_us: float | None
    measured_busbw_gbps: float | None
    source: str

    def to_json(self) -> dict[str, Any]:
        """Return the point as a JSON object."""
        return asdict(self)


@dataclass(frozen=True)
class CallPoint:
    """One measured attention call and what the model makes of it.

    Attributes:
        direction: "forward" or "backward".
        head_dim: head size.
        shape: "equal lengths", "mixed lengths" or "prefixes".
        flops: causal floating-point operations; backward counts 2.5 times the forward's.
        measured_us: measured time.
        model_us: predicted time.
        measured_tflops: measured rate.
        model_tflops: predicted rate.
    """

    direction: str
    head_dim: int
    shape: str
    flops: float
    measured_us: float
    model_us: float
    measured_tflops: float
    model_tflops: float

    def to_json(self) -> dict[str, Any]:
        """Return the point as a JSON object."""
        return asdict(self)


def call_points(profile: "Profile") -> list[CallPoint]:
    """Return every attention call that a calibration measured; none for a bundled profile."""
    from costmodel.calibrated_points import AttentionPoint as Measured
    from costmodel.fit_attention import predict_us

    points = [point for point in profile.points if isinstance(point, Measured)]
    predicted = predict_us(profile.attention, [point.call() for point in points])
    found = []
    for point, model_us in zip(points, predicted.tolist(), strict=True):
        lens = zip(point.q_lens, point.k_lens, strict=True)
        pairs = point.q_heads * sum(q * (2 * k - q + 1) / 2 for q, k in lens)
        flops = 4 * point.head_dim * pairs * (2.5 if point.direction == "backward" else 1.0)
        found.append(
            CallPoint(
                direction=point.direction,
                head_dim=point.head_dim,
                shape=point.shape,
                flops=flops,
                measured_us=point.us,
                model_us=model_us,
                measured_tflops=flops / point.us / 1e6,
                model_tflops=flops / model_us / 1e6,
            )
        )
    return sorted(found, key=lambda p: (p.direction != "forward", p.head_dim, p.flops))


def attention_curve(profile: "Profile") -> list[AttentionPoint]:
    """Return the forward rate of one sequence over its length."""
    table = _measured(profile, "attention")
    points = []
    for tokens in _LENGTHS:
        estimate = profile.attention_us(
            [tokens],
            [tokens],
            q_heads=Q_HEADS,
            kv_heads=KV_HEADS,
            head_dim=HEAD_DIM,
            direction="forward",
            # The bundled tables' calls contain a KV-cache write; a calibration's do not.
            cache_write=not profile.points,
        )
        flops = 4 * Q_HEADS * HEAD_DIM * tokens * (tokens + 1) / 2
        measured = None
        if table is not None:
            rows = (table["seq_len"] == tokens) & (table["batch_size"] == 1)
            rows &= (table["q_heads"] == Q_HEADS) & (table["kv_heads"] == KV_HEADS)
            measured = _median(table.loc[rows & (table["head_dim"] == HEAD_DIM), "fwd_us"])
        points.append(
            AttentionPoint(
                tokens=tokens,
                model_us=estimate.us,
                model_tflops=flops / estimate.us / 1e6,
                measured_us=measured,
                measured_tflops=None if measured is None else flops / measured / 1e6,
                source=estimate.source.label,
            )
        )
    return points


def collective_curves(profile: "Profile") -> list[CollectivePoint]:
    """Return the bandwidth of each measured collective over size.

    In its largest group within a node and, where it was measured there, across nodes.
    """
    from costmodel.collectives import UNEVEN

    table = _measured(profile, "collectives")
    own = _own_transfers(profile)
    largest: dict[tuple[bool, str], tuple[int, int]] = {}
    for curve in profile.collectives.curves:
        place = curve.ranks > curve.ranks_per_node, curve.collective
        largest[place] = max(largest.get(place, (0, 0)), (curve.ranks, curve.ranks_per_node))
    points = []
    for (_, name), (ranks, per_node) in sorted(largest.items()):
        group = name, ranks, per_node
        for size in sorted({s for *of, s in own if tuple(of) == group}) or _SIZES:
            if name == UNEVEN:
                estimate = profile.all_to_all_v_us(size, ranks, ranks_per_node=per_node)
            else:
                estimate = profile.collective_us(name, size, ranks, ranks_per_node=per_node)
            moved = size if name in ("send_recv", UNEVEN) else size * (ranks - 1) / ranks
            measured = own.get((*group, size))
            if table is not None:
                rows = (table["collective"] == name) & (table["num_gpus"] == ranks)
                measured = _median(table.loc[rows & (table["bytes"] == size), "us"])
            points.append(
                CollectivePoint(
                    collective=name,
                    ranks=ranks,
                    ranks_per_node=per_node,
                    total_bytes=size,
                    model_us=estimate.us,
                    model_busbw_gbps=moved / estimate.us / 1e3,
                    measured_us=measured,
                    measured_busbw_gbps=None if measured is None else moved / measured / 1e3,
                    source=estimate.source.label,
                )
            )
    return points


def group_title(point: CollectivePoint) -> str:
    """Return the words for a collective and its group."""
    nodes = "" if point.ranks == point.ranks_per_node else f", {point.ranks_per_node} a node"
    return f"{point.collective} over {point.ranks} ranks{nodes}"


def _own_transfers(profile: "Profile") -> dict[tuple[str, int, int, int], float]:
    """Return the times of a calibration's exchanges by name, group and size."""
    from costmodel.calibrated_points import TransferPoint
    from costmodel.collectives import UNEVEN

    return {
        (
            point.collective if point.parts == "even" else UNEVEN,
            point.ranks,
            point.ranks_per_node,
            point.total_bytes,
        ): point.us
        for point in profile.points
        if isinstance(point, TransferPoint) and point.parts != "empty"
    }


def _measured(profile: "Profile", what: str) -> "pd.DataFrame | None":
    """Return the bundled table that the profile was fitted to, or None for another profile."""
    from costmodel.profile_file import bundled_profiles, load_profile
    from costmodel.tables import attention_table, collective_table

    if profile.name not in bundled_profiles() or load_profile(profile.name) != profile:
        return None
    table = attention_table if what == "attention" else collective_table
    return table(profile.name)


def _median(times: "pd.Series[float]") -> float | None:
    return float(np.median(times)) if len(times) else None

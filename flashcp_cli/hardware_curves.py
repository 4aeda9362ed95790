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
    """One collective over a whole node.

    Attributes:
        collective: its name.
        ranks: size of the group.
        total_bytes: S, as nccl-tests counts it.
        model_us: predicted time.
        model_busbw_gbps: its bus bandwidth, S (n - 1) / n over time.
        measured_us: measured time; None where there is none.
        measured_busbw_gbps: its bus bandwidth.
        source: where the prediction came from.
    """

    collective: str
    ranks: int
    total_bytes: int
    model_us: float
    model_busbw_gbps: float
    measured_us: float | None
    measured_busbw_gbps: float | None
    source: str

    def to_json(self) -> dict[str, Any]:
        """Return the point as a JSON object."""
        return asdict(self)


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
    """Return the bus bandwidth of each measured collective, in its largest group, over size."""
    table = _measured(profile, "collectives")
    points = []
    for name in sorted({curve.collective for curve in profile.collectives.curves}):
        ranks = profile.collectives.measured_ranks(name)[-1]
        for size in _SIZES:
            estimate = profile.collective_us(name, size, ranks, ranks_per_node=ranks)
            moved = size * (ranks - 1) / ranks
            measured = None
            if table is not None:
                rows = (table["collective"] == name) & (table["num_gpus"] == ranks)
                measured = _median(table.loc[rows & (table["bytes"] == size), "us"])
            points.append(
                CollectivePoint(
                    collective=name,
                    ranks=ranks,
                    total_bytes=size,
                    model_us=estimate.us,
                    model_busbw_gbps=moved / estimate.us / 1e3,
                    measured_us=measured,
                    measured_busbw_gbps=None if measured is None else moved / measured / 1e3,
                    source=estimate.source.label,
                )
            )
    return points


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

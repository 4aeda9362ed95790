"""The numbers behind the report's plots: a row a configuration and strategy, and its packs."""

from typing import TYPE_CHECKING, Any

import numpy as np

from flashcp_cli.simulate_labels import label, size, varying

if TYPE_CHECKING:
    from flashcp.simulation.run import Simulated
    from flashcp.simulation.summary import Row
    from flashcp.simulation.sweep import Configuration, Sweep

PARTS = ("forward", "backward", "exchange", "copies")
_QUANTILES = np.linspace(0, 1, 41)


def configuration_name(sweep: "Sweep", configuration: "Configuration") -> str:
    """Name a configuration by what sets it apart from the others."""
    axes = varying(sweep)
    return ", ".join(f"{label(a)} {size(a, getattr(configuration, a))}" for a in axes) or "all"


def speedups(rows: "list[Row]", sweep: "Sweep") -> list[dict[str, Any]]:
    """Return a row a configuration, strategy and kind of speed-up: attention, layer, step."""
    cells = {c: i for i, c in enumerate(sweep.configurations)}
    found = []
    for row in rows:
        kinds = {
            "attention": row.speedup,
            "layer": row.layer_speedup,
            "training step": row.step_speedup,
        }
        for kind, interval in kinds.items():
            if interval is not None:
                found.append(
                    {
                        "cell": cells[row.configuration],
                        "across_cp": without(row.configuration, "cp", "ranks_per_node"),
                        "across_window": without(row.configuration, "context_tokens"),
                        "cp": row.configuration.cp,
                        "window": size("context_tokens", row.configuration.context_tokens),
                        "tokens": row.configuration.context_tokens,
                        "strategy": row.strategy,
                        "kind": kind,
                        "speedup": _round(interval.value),
                        "low": _round(interval.low),
                        "high": _round(interval.high),
                    }
                )
    return found


def breakdown(rows: "list[Row]", sweep: "Sweep") -> list[dict[str, Any]]:
    """Return a row a configuration, strategy and part of its mean time, in milliseconds."""
    cells = {c: i for i, c in enumerate(sweep.configurations)}
    return [
        {
            "cell": cells[row.configuration],
            "strategy": row.strategy,
            "part": part,
            "order": order,
            "ms": _round(row.means[f"{part}_us"] / 1000),
            "bound": _round(row.means["bound_us"] / 1000),
        }
        for row in rows
        for order, part in enumerate(PARTS)
    ]


def distributions(simulated: "Simulated") -> list[dict[str, Any]]:
    """Return quantiles over packs of imbalance and of KV moved, of every configuration."""
    cells = {c: i for i, c in enumerate(simulated.sweep.configurations)}
    found: list[dict[str, Any]] = []
    for configuration, strategy, frame in simulated.frames():
        imbalance = np.quantile(frame["imbalance"], _QUANTILES)
        moved = np.quantile(frame["moved_share"], _QUANTILES)
        found.extend(
            {
                "cell": cells[configuration],
                "strategy": strategy,
                "packs": _round(share),
                "imbalance": _round(imbalance[i]),
                "moved": _round(moved[i]),
            }
            for i, share in enumerate(_QUANTILES)
        )
    return found


def without(configuration: "Configuration", *axes: str) -> str:
    """Name what a configuration shares with those that differ in `axes` alone."""
    return "|".join(str(v) for name, v in vars(configuration).items() if name not in axes)


def _round(value: float) -> float:
    return float(f"{value:.5g}")

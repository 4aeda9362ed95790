"""Names and values of a sweep's axes as people read them, in the terminal and in the report."""

from typing import TYPE_CHECKING, Any

from flashcp_cli.amounts import number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flashcp.simulation.summary import Row
    from flashcp.simulation.sweep import Sweep

# Means of a row: tokens that cross nodes, of all ranks together and of the busiest.
ACROSS = ("across_tokens", "across_largest_tokens")
_LABELS = {
    "trace": "trace",
    "pack_by": "packer",
    "context_tokens": "window",
    "hardware": "hardware",
    "model": "model",
    "tensor_parallel": "TP",
    "cp": "CP",
    "link_bandwidth": "link bandwidth",
    "link_latency": "link latency",
    "kernel_speed": "kernel speed",
    "copies": "copies",
    "exchange": "exchange",
    "overlap": "overlap",
}
_DEFAULTS = {
    "pack_by": "concat",
    "tensor_parallel": 1,
    "link_bandwidth": 1.0,
    "link_latency": 1.0,
    "kernel_speed": 1.0,
    "exchange": "own",
    "overlap": "own",
}


def label(axis: str) -> str:
    """Return an axis's name for people."""
    return _LABELS[axis]


def varying(sweep: "Sweep") -> list[str]:
    """Return the axes with more than one value, in the order of the configurations."""
    return [axis for axis in _LABELS if len(_values(sweep, axis)) > 1]


def extent(sweep: "Sweep", rows: "Sequence[Row]") -> str:
    """Say how large a sweep is; short traces and wide windows make fewer packs than others."""
    strategies = len(sweep.strategies)
    least, most = min(row.packs for row in rows), max(row.packs for row in rows)
    packs = number(most, "pack") if least == most else f"{least:,} to {number(most, 'pack')}"
    return (
        f"{number(len(sweep.configurations), 'configuration')} of {strategies} "
        f"{'strategy' if strategies == 1 else 'strategies'}, {packs} each"
    )


def slowest(replicas: int) -> str:
    """Say whose time a step is."""
    return "of one replica" if replicas == 1 else f"the slowest of {replicas:,} replicas"


def constants(sweep: "Sweep") -> str:
    """Say what all configurations share, defaults left out."""
    words = []
    for axis, name in _LABELS.items():
        values = _values(sweep, axis)
        if len(values) == 1 and values[0] != _DEFAULTS.get(axis):
            plain = axis in {"trace", "hardware", "model"}
            words.append(size(axis, values[0]) if plain else f"{name} {size(axis, values[0])}")
    return ", ".join(words)


def size(axis: str, value: Any) -> str:
    """Write one value of an axis."""
    if axis == "context_tokens":
        return f"{value // 1024}k" if value % 1024 == 0 else f"{value:,}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def across_nodes(row: "Row", name: str) -> str:
    """Write what a row sends across nodes, one of `ACROSS`; a dash where there is one node."""
    return f"{row.means[name] / 1000:,.1f}k" if row.spans_nodes else "–"


def _values(sweep: "Sweep", axis: str) -> list[Any]:
    return list(dict.fromkeys(getattr(c, axis) for c in sweep.configurations))

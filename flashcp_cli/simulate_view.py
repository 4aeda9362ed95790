"""How `flashcp simulate` looks in the terminal: what is constant above, what varies in the rows."""

from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

from flashcp_cli.amounts import number
from flashcp_cli.simulate_labels import (
    ACROSS,
    across_nodes,
    constants,
    extent,
    label,
    size,
    slowest,
    varying,
)
from flashcp_cli.terminal import Terminal, terminal

if TYPE_CHECKING:
    from flashcp.simulation.intervals import Interval
    from flashcp.simulation.step import StepModel
    from flashcp.simulation.summary import Row
    from flashcp.simulation.sweep import Sweep


def print_rows(
    sweep: "Sweep",
    rows: "list[Row]",
    step: "StepModel",
    options: dict[str, Any],
) -> None:
    """Print the best rows, why each is where it is, and what the figures are."""
    console = terminal()
    shown = rows[: options["rows"]]
    console.print(
        Text(
            f"{extent(sweep, rows)}: {constants(sweep)}",
            style="bold",
        ),
        soft_wrap=True,
    )
    for trace in sweep.traces:
        if trace.note:
            console.print(Text(f"{trace.name}: {trace.note}", style="yellow"), soft_wrap=True)
    axes = varying(sweep)
    console.print_whole(_table(shown, axes))
    console.print_folded(_reasons(shown, axes))
    if len(shown) < len(rows):
        console.print(f"{number(len(rows) - len(shown), 'more row')}: --rows, --json, --html")
    for line in _notes(rows, step):
        console.print(Text(line, style="dim"), soft_wrap=True)
    _print_outputs(console, options)


def _table(rows: "list[Row]", axes: list[str]) -> Table:
    stepped = rows[0].step_us is not None
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 0, 0, 0))
    table.add_column("\n#", justify="right")
    for axis in axes:
        table.add_column(f"\n{label(axis)}", no_wrap=True)
    table.add_column("\nstrategy", no_wrap=True)
    for heading in (
        "attention\nms a layer",
        "\n±",
        "speed-up:\nattention",
        "\n±",
        *(("\nlayer", "\nstep") if stepped else ()),
        "imbal-\nance",
        "KV\nmoved",
        *(("across\nnodes", "\na rank") if _spans_nodes(rows) else ()),
        *(("memory\nGB",) if stepped else ()),
        "tokens/s\na GPU",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for place, row in enumerate(rows, 1):
        cells = [str(place)]
        cells += [size(axis, getattr(row.configuration, axis)) for axis in axes]
        cells += [row.strategy, f"{row.total_us.value / 1000:.2f}", f"{_half(row.total_us, 1000)}"]
        cells += [_times(row.speedup), _half(row.speedup)]
        if stepped:
            cells += [_times(row.layer_speedup), _times(row.step_speedup)]
        cells += [f"{row.imbalance.value:.3f}", f"{row.means['moved_share']:.0%}"]
        if _spans_nodes(rows):
            cells += [across_nodes(row, name) for name in ACROSS]
        if stepped:
            cells.append(_memory(row))
        cells.append(f"{row.tokens_per_s_gpu:,.0f}")
        table.add_row(*cells, style="red" if row.fits is False else "bold" if place == 1 else "")
    return table


def _reasons(rows: "list[Row]", axes: list[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("#", justify="right")
    table.add_column("why: ms of one attention layer, by cause")
    for place, row in enumerate(rows, 1):
        where = " ".join(
            f"{label(axis)} {size(axis, getattr(row.configuration, axis))}" for axis in axes
        )
        table.add_row(str(place), f"{f'{where} ' if where else ''}{row.strategy}: {row.reason}")
    return table


def _notes(rows: "list[Row]", step: "StepModel") -> list[str]:
    lines = [
        "attention: forward + backward of one layer on the slowest rank. Speed-ups are over",
        f"{_baseline(rows)}; ±: half of the 95% interval over packs.",
        "KV moved: share of a full all-gather.",
    ]
    if _spans_nodes(rows):
        lines.append(
            "across nodes: tokens of KV a layer, one way: all ranks', and the busiest rank's."
        )
    if rows[0].step_us is None:
        return [*lines, "The model gives attention heads only: no layer, step or memory."]
    lines += [
        "layer adds linear layers at a reported rate; step is all layers and the output head,",
        f"{slowest(step.replicas)}, recompute {step.recompute}. Not counted: exchange of",
        "gradients, optimiser, pipeline.",
    ]
    unfit = sum(row.fits is False for row in rows)
    if unfit:
        lines.append(
            f"{number(unfit, 'row')} beyond the GPU's memory (red, marked !): they come last."
        )
    elif all(row.fits is None for row in rows):
        lines.append("The hardware's memory is not known, so nothing was checked: --memory-gb.")
    if unfit == len(rows):
        least = min(rows, key=lambda row: row.memory.total_bytes if row.memory else 0.0)
        assert least.memory is not None  # noqa: S101 - for the type checker
        lines.append(
            f"Nothing fits: the smallest, {least.strategy} at CP {least.configuration.cp}, needs "
            f"{least.memory.total_bytes / 1e9:.0f} GB, of which {least.memory.kv_bytes / 1e9:.0f} "
            "GB is exchanged KV; a larger --cp or --tensor-parallel would make it less."
        )
    return lines


def _spans_nodes(rows: "list[Row]") -> bool:
    return any(row.spans_nodes for row in rows)


def _baseline(rows: "list[Row]") -> str:
    strategies = {row.strategy for row in rows}
    return rows[0].baseline + (
        " of the same configuration" if len(strategies) > 1 else " asked for"
    )


def _print_outputs(console: Terminal, options: dict[str, Any]) -> None:
    named = {
        "out": "every pack's row",
        "html": "the report",
        "plots": "plots",
        "timeline": "timeline",
    }
    for name, what in named.items():
        if options[name]:
            console.print(f"{options[name]}: {what}", soft_wrap=True)


def _half(interval: "Interval", unit: float = 1.0) -> str:
    return f"{(interval.high - interval.value) / unit:.2f}"


def _times(interval: "Interval | None") -> str:
    return "–" if interval is None else f"{interval.value:.2f}x"


def _memory(row: "Row") -> str:
    if row.memory is None:
        return "–"
    return f"{row.memory.total_bytes / 1e9:.0f}{'!' if row.fits is False else ''}"

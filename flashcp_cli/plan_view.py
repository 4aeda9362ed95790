"""Draws what `flashcp plan` found: two tables and one pack's shards in the terminal."""

from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

from flashcp_cli.pack_picture import pack_picture
from flashcp_cli.terminal import terminal

if TYPE_CHECKING:
    from flashcp.plans import Plan


def print_summary(summary: dict[str, Any], pictured: "Plan", index: int) -> None:
    """Print the tables, where their numbers come from, and the picture of pack `index`."""
    console = terminal()
    for line in _heading(summary):
        console.print(line, soft_wrap=True)
    console.print_whole(_balance(summary))
    console.print_whole(_times(summary))
    for line in _notes(summary):
        console.print(line, soft_wrap=True)
    console.print(Text(f"\nPack {index} by {pictured.strategy}", style="bold"))
    for line in pack_picture(pictured, console.width):
        console.print(line, soft_wrap=True)
    if summary["out"]:
        console.print(f"\n{summary['out']}: {summary['packing']['packs']:,} plans saved")


def _heading(summary: dict[str, Any]) -> list[Text]:
    trace, packing, model = summary["trace"], summary["packing"], summary["model"]
    nodes = summary["cp"] // summary["ranks_per_node"]
    ranks = f"{summary['cp']} ranks" + (f" on {nodes} nodes" if nodes > 1 else "")
    lines = [
        Text(
            f"{trace['name']}: {packing['packs']:,} packs of {_size(packing['context_tokens'])} "
            f"({packing['by']}, {packing['documents_per_pack']:.0f} documents each) over {ranks} "
            f"of {summary['hardware']}, {model['name']} {model['q_heads']}:{model['kv_heads']} "
            f"heads of {model['head_dim']}",
            style="bold",
        )
    ]
    if trace["note"]:
        lines.append(Text(trace["note"], style="yellow"))
    if packing["dropped_tokens"]:
        lines.append(
            Text(f"{packing['dropped_tokens']:,} tokens dropped by packing", style="yellow")
        )
    return lines


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 0, 0, 0))
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left", no_wrap=True)
    return table


def _balance(summary: dict[str, Any]) -> Table:
    table = _table(
        "\nstrategy",
        "imbal.\nmean",
        "\nworst",
        "KV moved\nitself",
        "\nEq. 5",
        "\nneeded",
        "padded\nwork",
        "shards\na rank",
        "plan ms\np50",
        "\np99",
    )
    for name, o in summary["strategies"].items():
        table.add_row(
            name,
            f"{o['imbalance']['mean']:.3f}",
            f"{o['imbalance']['worst']:.3f}",
            f"{o['moved_share']:.1%}",
            f"{o['eq5_share']:.1%}",
            f"{o['needed_share']:.1%}",
            f"{o['padded']:.3f}",
            f"{o['shards_per_rank']:.1f}",
            f"{o['planning_us']['p50'] / 1000:.3f}",
            f"{o['planning_us']['p99'] / 1000:.3f}",
            style=_style(summary, name),
        )
    return table


def _times(summary: dict[str, Any]) -> Table:
    table = _table(
        "\nstrategy",
        "\nforward",
        "\nbackward",
        "\nexchange",
        "\ncopies",
        "\ntotal",
        "speed-up:\nper-seq",
        "\nper-doc",
        "times\nbound",
        "whole\nlayer",
    )
    for name, o in summary["strategies"].items():
        speedups = [o["speedup_over"].get(base) for base in ("per-seq", "per-doc")]
        table.add_row(
            name,
            *(
                f"{o[part] / 1000:.2f}"
                for part in ("forward_us", "backward_us", "exchange_us", "copies_us", "total_us")
            ),
            *("–" if s is None else f"{s:.2f}x" for s in speedups),
            "–" if o["over_bound"] is None else f"{o['over_bound']:.2f}x",
            "–" if o["layer_us"] is None else f"{o['layer_us'] / 1000:.2f}",
            style=_style(summary, name),
        )
    return table


def _style(summary: dict[str, Any], name: str) -> str:
    return "bold green" if name == summary["chosen"] else ""


def _notes(summary: dict[str, Any]) -> list[Text]:
    chosen = summary["strategies"][summary["chosen"]]
    parts = ", ".join(f"{part} {label}" for part, label in chosen["sources"].items())
    layer = (
        "The model gives attention heads only, so no time of a whole layer."
        if summary["linear_us"] is None
        else f"whole layer: with {summary['linear_us'] / 1000:.2f} ms of linear layers."
    )
    return [
        Text(line, style="dim")
        for line in (
            "Milliseconds of one attention layer, forward + backward, slowest rank, mean of packs.",
            "KV moved: share of a full all-gather, by the strategy's own exchange, by the paper's",
            "Eq. 5, and by what ranks attend to. padded: largest rank's work in whole 128x128",
            "tiles over the mean.",
            f"bound: {summary['bound_us'] / 1000:.2f} ms, below which no plan can be. {layer}",
            f"Sources of {summary['chosen']}'s times: {parts}.",
        )
    ]


def _size(tokens: int) -> str:
    return f"{tokens // 1024}k" if tokens % 1024 == 0 else f"{tokens:,}"

"""Draws what `flashcp plan` found: tables, what to make of them, and one pack's shards."""

from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

from flashcp_cli.amounts import number
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
    if "gap" in summary:
        console.print_whole(_gaps(summary))
    for line in [*_notes(summary), *_tie_lines(summary)]:
        console.print(line, soft_wrap=True)
    how = _exchange(pictured, summary["model"]["kv_heads"])
    console.print(
        Text(f"\nPack {index} by {pictured.strategy}: {how}", style="bold"), soft_wrap=True
    )
    for line in pack_picture(pictured, console.width, summary["memory"]["picture_rank_bytes"]):
        console.print(line, soft_wrap=True)
    console.print(_memory(summary), soft_wrap=True)
    if summary["out"]:
        saved = f"\n{summary['out']}: {number(summary['packing']['packs'], 'plan')} saved"
        console.print(saved, soft_wrap=True)


def _heading(summary: dict[str, Any]) -> list[Text]:
    trace, packing, model = summary["trace"], summary["packing"], summary["model"]
    nodes = summary["cp"] // summary["ranks_per_node"]
    ranks = number(summary["cp"], "rank") + (f" on {nodes} nodes" if nodes > 1 else "")
    documents = number(round(packing["documents_per_pack"]), "document")
    lines = [
        Text(
            f"{trace['name']}: {number(packing['packs'], 'pack')} of "
            f"{_size(packing['context_tokens'])} ({packing['by']}, {documents} each) over {ranks} "
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
    spans_nodes = summary["ranks_per_node"] < summary["cp"]
    table = _table(
        "\nstrategy",
        "imbal.\nmean",
        "\nworst",
        "KV moved\nitself",
        "\nEq. 5",
        "\nneeded",
        *(("across\nnodes", "\na rank") if spans_nodes else ()),
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
            *(
                f"{o[tokens] / 1000:.1f}k"
                for tokens in ("across_tokens", "across_largest_tokens")
                if spans_nodes
            ),
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
                f"{max(o[part], 0.0) / 1000:.2f}"  # a part of nothing may round to -0.00
                for part in ("forward_us", "backward_us", "exchange_us", "copies_us", "total_us")
            ),
            *("–" if s is None else f"{s:.2f}x" for s in speedups),
            "–" if o["over_bound"] is None else f"{o['over_bound']:.2f}x",
            "–" if o["layer_us"] is None else f"{o['layer_us'] / 1000:.2f}",
            style=_style(summary, name),
        )
    return table


def _gaps(summary: dict[str, Any]) -> Table:
    table = _table(
        "\nstrategy",
        "time over\nbound, mean",
        "\nworst",
        "KV moved over\nbound, mean",
        "\nworst",
        "over exact\nmean",
        "\nworst",
    )
    for name, gap in summary["gap"]["strategies"].items():
        spreads = [gap[part] for part in ("time", "traffic", "exact")]
        table.add_row(
            name,
            *(
                "–" if spread is None else f"{spread[which]:.1%}"
                for spread in spreads
                for which in ("mean", "worst")
            ),
            style=_style(summary, name),
        )
    return table


def _tie_lines(summary: dict[str, Any]) -> list[Text]:
    """Say where `auto` gains nothing, and why where it is known."""
    packs = summary["packing"]["packs"]
    lines = []
    for name, tie in summary["ties"].items():
        other = "the best other strategy" if name == "other" else name
        said = [
            f"{how}uto is within 1% of {other} on "
            + ("this pack" if packs == 1 else f"{count:,} of {packs:,} packs")
            for how, count in (("a", tie["packs"]), ("copies aside, a", tie["placed_packs"]))
            if count
        ]
        if not said:
            continue
        line = "; ".join(said)
        filled = tie["one_document_packs"]
        if filled:
            these = "" if packs == 1 else f"in {filled:,} of them "
            line += f": {these}one document fills the window; cutting it evenly is all there is"
        lines.append(Text(f"{line[0].upper()}{line[1:]}.", style="yellow"))
    return lines


def _memory(summary: dict[str, Any]) -> Text:
    memory = summary["memory"]
    if memory["largest_bytes"] is None:
        return Text("Memory is not estimated for so many ranks and shards.", style="dim")
    return Text(
        f"Memory: one layer's attention, forward + backward; {memory['largest_bytes'] / 1e9:.2f} "
        f"GB at most on a rank, by {summary['chosen']} on {number(memory['packs'], 'pack')}.",
        style="dim",
    )


def _exchange(plan: "Plan", kv_heads: int) -> str:
    """Say how a plan's KV travels."""
    words = [plan.exchange.value]
    if plan.chunks(kv_heads) > 1:
        words.append(f"in {plan.chunks(kv_heads)} parts")
    if plan.bundled:
        words.append("bundled")
    if plan.overlap:
        words.append("beside attention")
    return ", ".join(words)


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
            *_across(summary),
            f"bound: {summary['bound_us'] / 1000:.2f} ms, below which no plan can be. {layer}",
            f"Sources of {summary['chosen']}'s times: {parts}.",
            *_gap_notes(summary),
        )
    ]


def _gap_notes(summary: dict[str, Any]) -> list[str]:
    if "gap" not in summary:
        return []
    exact = summary["gap"]["exact"]
    if not exact["tried_packs"]:
        last = f"exact: no pack is small enough for {summary['cp']} ranks."
    else:
        grids = [each["grid_tokens"] for each in exact["found"]] or [0]
        cuts = f"{min(grids):,} to {max(grids):,}" if min(grids) < max(grids) else f"{grids[0]:,}"
        last = (
            f"exact: proven on {len(exact['found'])} of {exact['tried_packs']} packs tried, of "
            f"{exact['small_packs']:,} that are small enough"
            + (f"; cuts at multiples of {cuts} tokens." if exact["found"] else ".")
        )
    return [
        "KV moved over bound: largest rank's share of a full all-gather, less what any plan with",
        f"that balance moves. {last}",
    ]


def _across(summary: dict[str, Any]) -> list[str]:
    if summary["ranks_per_node"] == summary["cp"]:
        return []
    return ["across nodes: thousands of tokens of KV one way, all ranks together and the busiest."]


def _size(tokens: int) -> str:
    return f"{tokens // 1024}k" if tokens % 1024 == 0 else f"{tokens:,}"

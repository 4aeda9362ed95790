"""Draws what `flashcp run` found: strategies side by side, then the ranks of the fastest."""

from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from flashcp_cli.terminal import terminal


def print_report(document: dict[str, Any]) -> None:
    """Print the report of `executor.report`."""
    console = terminal()
    for line in _heading(document):
        console.print(line, soft_wrap=True)
    console.print_whole(_strategies(document))
    name = document["winner"]["measured"]
    console.print(Text(f"Ranks of {name}, ms (forward + backward)", style="bold"))
    console.print_whole(_ranks(document["plans"][name]))
    console.print(
        "waits: for the exchange, as far as nothing hides it; exch.: the exchange by itself; "
        "MiB: estimated memory",
        soft_wrap=True,
    )
    for line in _notes(document):
        console.print(line, soft_wrap=True)


def _heading(document: dict[str, Any]) -> list[Text]:
    source, model, where = document["source"], document["model"], document["environment"]
    lines = [
        Text(
            f"{source['source']}, pack {source['pack']}: {source['documents']:,} documents, "
            f"{source['tokens']:,} tokens over {document['cp']} ranks, {model['q_heads']}:"
            f"{model['kv_heads']} heads of {model['head_dim']}, {document['dtype']}",
            style="bold",
        ),
        Text(
            f"{where['device']}, torch {where['torch']}, {where['attention_kernel']}"
            + (f", rows moved by {where['row_kernels']}" if where["device_type"] == "cuda" else "")
            + (f", {where['backend']}" if where.get("backend") else "")
        ),
    ]
    if document["copies"] == "published":
        lines.append(Text("per-seq, per-doc and flashcp copy KV shard by shard, as published"))
    if document["gradients"] == "reduce-scatter":
        lines.append(Text("Gradients of all-gathered KV go home by reduce-scatter, in float32"))
    if where.get("emulated"):
        lines.append(
            Text(
                "Emulated: all ranks in turn on one device; kernels and copies measured, the "
                f"exchange not, its times are those of the profile {where['exchange_from']}",
                style="yellow",
            )
        )
    if not document["comparable"]:
        lines.append(
            Text(
                f"This device is not the profile's ({document['hardware']}): measured and "
                "predicted times are not comparable, only shares and order",
                style="yellow",
            )
        )
    else:
        lines += [
            Text(f"Warning: {line}; calibrate as you run: flashcp calibrate -h", style="yellow")
            for line in document["profile_differences"]
        ]
    return lines


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 0, 0, 0))
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left", no_wrap=True)
    return table


def _strategies(document: dict[str, Any]) -> Table:
    comparable = document["comparable"]
    table = _table(
        "\nstrategy",
        "measured\nms",
        "predicted\nms",
        "\nerror" if comparable else "share\nerror",
        "imbalance\nmeas.",
        "\npred.",
        "sent\nMiB",
        "as\nplanned",
        "largest\nerror",
        "\nchecks",
    )
    for name, one in document["plans"].items():
        sent = sum(rank["sent_bytes"] for rank in one["ranks"])
        error = one["errors"]["slowest rank"] if comparable else one["largest_share_error"]
        checked = one["verification"]
        table.add_row(
            name,
            f"{one['measured_us'] / 1000:.2f}",
            f"{one['predicted_us'] / 1000:.2f}",
            f"{error:+.1%}" if comparable else f"{error:.1%}",
            f"{one['attention_imbalance']['measured']:.3f}",
            f"{one['attention_imbalance']['predicted']:.3f}",
            f"{sent / 2**20:.1f}",
            "yes" if one["sent_as_planned"] else "no",
            f"{max(checked['errors'].values()):.1e}" if checked else "-",
            ("passed" if one["passed"] else "FAILED") if checked else "none",
            style=None if one["passed"] else "red",
        )
    return table


_PARTS = ("forward", "backward", "copies", "merge", "exposed exchange", "other", "total")


def _ranks(one: dict[str, Any]) -> Table:
    table = _table(
        "rank",
        *("fwd", "bwd", "copies", "merge", "waits", "other", "total"),
        "spread",
        "exch.",
        "pred.",
        *(("error",) if one["errors"] else ()),
        "MiB",
    )
    for index, rank in enumerate(one["ranks"]):
        low, high = rank["spread_us"]
        table.add_row(
            str(rank["rank"]),
            *(_ms(rank["measured_us"][part]) for part in _PARTS),
            f"{_ms(low)}-{_ms(high)}",
            _ms(rank["exchange_us"]),
            _ms(rank["predicted_us"]["total"]),
            *((f"{one['errors']['ranks'][index]['total']:+.1%}",) if one["errors"] else ()),
            f"{rank['memory_bytes'] / 2**20:.0f}",
        )
    return table


def _ms(us: float) -> str:
    """Write microseconds as milliseconds, in three digits or more."""
    ms = us / 1000
    return f"{ms:.2f}" if ms < 10 else f"{ms:.1f}" if ms < 100 else f"{ms:.0f}"


def _host(name: str, one: dict[str, Any]) -> list[Text]:
    """Return a warning where a rank's host takes longer to queue a pass than its device to run it.

    A training step then waits for the host, which the measured times, of the device, do not show.
    """
    worst: tuple[float, str] | None = None
    for rank in one["ranks"]:
        if not rank["host_us"]:
            continue
        measured = rank["measured_us"]
        device = {"forward": measured["forward_total"]}
        device["backward"] = measured["total"] - measured["forward_total"]
        for direction, host_us in rank["host_us"].items():
            if host_us > device[direction] and (worst is None or host_us > worst[0]):
                what = f"what the device does in {_ms(device[direction])}"
                worst = host_us, f"{_ms(host_us)} ms to queue {direction}, {what}"
    if worst is None:
        return []
    return [Text(f"{name}: the host of a rank takes {worst[1]}; training waits for it", "yellow")]


def _notes(document: dict[str, Any]) -> list[Text]:
    winner = document["winner"]
    if len(document["plans"]) == 1:
        lines = []
    elif winner["won"]:
        lines = [Text(f"The predicted winner won: {winner['measured']}")]
    elif not document["comparable"]:
        lines = [
            Text(
                f"Predicted to win on {document['hardware']}: {winner['predicted']}; "
                f"fastest here: {winner['measured']}"
            )
        ]
    else:
        lines = [
            Text(
                f"Predicted to win: {winner['predicted']}, which was {winner['behind']:.1%} slower "
                f"than {winner['measured']}"
            )
        ]
    lines += [Text(f"{name}: {why}", style="yellow") for name, why in document["skipped"].items()]
    lines += [line for name, one in document["plans"].items() for line in _host(name, one)]
    checked = [one["verification"] for one in document["plans"].values() if one["verification"]]
    if checked and checked[0]["kv_heads"] < document["model"]["kv_heads"]:
        heads = document["model"]["kv_heads"]
        lines.append(
            Text(f"Checked against the oracle: {checked[0]['kv_heads']} of {heads} KV heads")
        )
    return lines

"""How `flashcp hardware` looks in the terminal."""

import math
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from flashcp_cli.hardware_curves import HEAD_DIM, KV_HEADS, Q_HEADS, group_title
from flashcp_cli.terminal import terminal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from costmodel.figure import Figure
    from costmodel.held_out import HeldOutError
    from costmodel.profile import Profile
    from flashcp_cli.hardware_curves import AttentionPoint, CallPoint, CollectivePoint

_BAR_CELLS = 14
_SOURCE_COLOURS = {
    "measured": "green",
    "interpolated": "cyan",
    "extrapolated": "yellow",
    "reported": "magenta",
}


def print_list(profiles: "Sequence[Profile]") -> None:
    """Print the bundled profiles, one a row, and below them their devices and data."""
    console = terminal()
    table = _table("name", "attention\nkernel", "NCCL")
    for heading in ("attention\npoints", "held-out\nerror", "collective\npoints"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("held-out\nerror", justify="right", no_wrap=True)
    for profile in profiles:
        p = profile.provenance
        table.add_row(
            Text(profile.name, style="bold"),
            p.attention_kernel,
            p.nccl or "not recorded",
            f"{p.attention_samples:,}",
            _mean(p.held_out, f"attention forward, head size {HEAD_DIM}"),
            f"{p.collective_samples:,}",
            _mean(p.held_out, "all collectives"),
        )
    console.print_folded(table)
    for profile in profiles:
        p = profile.provenance
        console.print(f"{profile.name}: {p.device}; collectives launched as {p.launch_mode}")
    for line in dict.fromkeys(p.provenance.data for p in profiles):
        console.print(Text(f"Data: {line}", style="dim"))


def _mean(errors: "Sequence[HeldOutError]", what: str) -> str:
    """Return the mean error of the first way in which `what` was held out inside the range."""
    found = next((error for error in errors if error.inside and error.what == what), None)
    return "not recorded" if found is None else f"{found.mean:.1%}"


def print_profile(
    profile: "Profile",
    attention: "Sequence[AttentionPoint]",
    calls: "Sequence[CallPoint]",
    collectives: "Sequence[CollectivePoint]",
) -> None:
    """Print a profile's provenance, parameters and curves."""
    console = terminal()
    p = profile.provenance
    console.print(Text(f"{profile.name}: {p.device}", style="bold"))
    versions = {
        "driver": p.driver,
        "CUDA": p.cuda,
        "torch": p.torch,
        "NCCL": p.nccl,
        f"{p.attention_kernel} release": p.attention_kernel_version,
        "date": p.date,
    }
    known = [f"{name} {value}" for name, value in versions.items() if value]
    unknown = [name for name, value in versions.items() if not value]
    console.print(
        f"{', '.join(known) or 'no versions recorded'}; not recorded: {', '.join(unknown) or '-'}"
    )
    console.print(f"Collectives launched as {p.launch_mode}. {p.data}.")
    console.print_folded(_parameters(profile))
    console.print_folded(_fits(profile))
    console.print_folded(_curves(profile))
    console.print(
        Text(
            f"Attention forward, one causal sequence, {Q_HEADS}:{KV_HEADS} heads of {HEAD_DIM}",
            style="bold",
        )
    )
    console.print_folded(_attention(attention))
    for kind in dict.fromkeys((call.direction, call.head_dim) for call in calls):
        chosen = [call for call in calls if (call.direction, call.head_dim) == kind]
        title = f"Measured calls, {kind[0]}, head size {kind[1]}: medians by their size"
        console.print(Text(title, style="bold"))
        console.print_folded(_calls(chosen))
    for title in dict.fromkeys(map(group_title, collectives)):
        points = [point for point in collectives if group_title(point) == title]
        sent = points[0].collective in ("send_recv", "all_to_all_v")
        rate = "sent" if sent else "bus bandwidth"
        console.print(Text(f"{title}, {rate} over S", style="bold"))
        console.print_folded(_collective(points))


def print_errors(errors: "Mapping[str, Sequence[HeldOutError]]") -> None:
    """Print held-out errors, a table for each GPU and way of holding out."""
    console = terminal()
    for name, rows in errors.items():
        for method in dict.fromkeys(error.method for error in rows):
            chosen = [error for error in rows if error.method == method]
            where = "inside" if chosen[0].inside else "outside"
            console.print(Text(f"{name}: {method} ({where} the sampled range)", style="bold"))
            table = _table("what")
            table.add_column("which", no_wrap=True)
            for heading in ("points", "mean", "p50", "p90", "worst", "bias"):
                table.add_column(heading, justify="right", no_wrap=True)
            before = None
            for e in chosen:
                table.add_row(
                    "" if e.what == before else e.what,
                    e.bucket,
                    f"{e.points:,}",
                    f"{e.mean:.1%}",
                    f"{e.p50:.1%}",
                    f"{e.p90:.1%}",
                    f"{e.worst:.1%}",
                    f"{e.bias:+.1%}",
                )
                before = e.what
            console.print_folded(table)


def parameter_rows(profile: "Profile") -> "list[tuple[str, Figure, str]]":
    """Return every figure of a profile with its name and unit."""
    network, copies = profile.network, profile.copies
    queued = [("copies, queueing one", copies.queue_us, "us")] if copies.queue_us else []
    return [
        ("network, one GPU", network.nic_gbps, "GB/s"),
        ("network, one step", network.step_us, "us"),
        ("copies, per shard", copies.per_shard_us, "us"),
        ("copies, per-shard rate", copies.per_shard_gbps, "GB/s"),
        *queued,
        ("device memory", copies.memory_gbps, "GB/s"),
        ("memory share reached", copies.memory_share, ""),
        ("attention overlap factor", profile.overlap_factor, ""),
        ("exchange overlap factor", profile.exchange_overlap_factor, ""),
        ("kernel launch", profile.launch_us, "us"),
        ("posting a message", profile.message_us, "us"),
        ("dense matmul peak", profile.peak_tflops, "TFLOP/s"),
        ("linear share of peak", profile.linear_share, ""),
    ]


def _parameters(profile: "Profile") -> Table:
    table = _table("parameter")
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("source", no_wrap=True)
    table.add_column("reference")
    for label, figure, unit in parameter_rows(profile):
        value = f"{figure.value:g} {unit}".strip()
        table.add_row(label, value, _source(figure.source.label), figure.reference)
    table.add_row("GPUs a node", str(profile.network.gpus_per_node), "", "")
    return table


def _fits(profile: "Profile") -> Table:
    table = _table("attention fit")
    for heading in ("tile", "launch us", "key tile us", "points"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("source", no_wrap=True)
    for fit in profile.attention.fits:
        points = "" if fit.sampled is None else f"{fit.sampled.count:,}"
        table.add_row(
            f"{fit.direction}, head size {fit.head_dim}",
            f"{fit.tile_q}x{fit.tile_k}",
            f"{fit.coefficients.launch_us:.2f}",
            f"{fit.coefficients.kv_tile_us:.3f}",
            points,
            _source(fit.source.label),
        )
    return table


def _curves(profile: "Profile") -> Table:
    table = _table()
    table.add_column("collective", no_wrap=True, min_width=14)
    across = any(curve.ranks != curve.ranks_per_node for curve in profile.collectives.curves)
    ranks = "ranks\n(a node)" if across else "ranks"
    headings = (ranks, "alpha\nus", "beta\nus/MB", "gamma\nus/√MB", "sizes", "S")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("source", no_wrap=True)
    for curve in profile.collectives.curves:
        table.add_row(
            curve.collective,
            str(curve.ranks)
            if curve.ranks_per_node == curve.ranks
            else f"{curve.ranks} ({curve.ranks_per_node})",
            f"{curve.alpha_us:.2f}",
            f"{curve.beta_us_per_byte * 2**20:.4g}",
            f"{curve.gamma_us_per_root_byte * 2**10:.2f}",
            str(len(curve.sizes_bytes)),
            f"{_bytes(curve.sizes_bytes[0])}-{_bytes(curve.sizes_bytes[-1])}",
            _source(profile.collectives.source.label),
        )
    return table


@dataclass(frozen=True)
class _Row:
    """A point of a curve: its label, its time and rate by the model and as measured."""

    label: str
    model_us: float
    model_rate: float
    measured_us: float | None
    measured_rate: float | None
    source: str


def _attention(points: "Sequence[AttentionPoint]") -> Table:
    rows = [
        _Row(
            f"{p.tokens:,}", p.model_us, p.model_tflops, p.measured_us, p.measured_tflops, p.source
        )
        for p in points
    ]
    return _curve("tokens", "TFLOP/s", rows)


def _calls(calls: "Sequence[CallPoint]") -> Table:
    bins: dict[int, list[CallPoint]] = {}
    for call in calls:
        bins.setdefault(int(math.log2(call.flops)), []).append(call)
    rows = []
    for power, members in sorted(bins.items()):
        middle = [
            median(getattr(call, name) for call in members)
            for name in ("model_us", "model_tflops", "measured_us", "measured_tflops")
        ]
        unit, exponent = ("GFLOP", 30) if power >= 30 else ("MFLOP", 20)
        label = f"{len(members)} of {2 ** (power - exponent):g} {unit}"
        rows.append(_Row(label, middle[0], middle[1], middle[2], middle[3], ""))
    return _curve("calls", "TFLOP/s", rows)


def _collective(points: "Sequence[CollectivePoint]") -> Table:
    rows = [
        _Row(
            _bytes(p.total_bytes),
            p.model_us,
            p.model_busbw_gbps,
            p.measured_us,
            p.measured_busbw_gbps,
            p.source,
        )
        for p in points
    ]
    return _curve("S", "GB/s", rows)


def _curve(first: str, unit: str, rows: "Sequence[_Row]") -> Table:
    table = _table()
    headings = (first, "model\nus", "measured\nus", f"model\n{unit}", f"measured\n{unit}")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("█ model\n◆ measured", width=_BAR_CELLS + 1, no_wrap=True)
    told = any(row.source for row in rows)
    if told:
        table.add_column("source", no_wrap=True)
    most = max(max(row.model_rate, row.measured_rate or 0.0) for row in rows)
    for row in rows:
        bar = ["█"] * round(row.model_rate / most * _BAR_CELLS)
        bar += [" "] * (_BAR_CELLS + 1 - len(bar))
        if row.measured_rate is not None:
            bar[round(row.measured_rate / most * _BAR_CELLS)] = "◆"
        table.add_row(
            row.label,
            _us(row.model_us),
            "" if row.measured_us is None else _us(row.measured_us),
            _rate(row.model_rate),
            "" if row.measured_rate is None else _rate(row.measured_rate),
            "".join(bar).rstrip(),
            *([_source(row.source)] if told else []),
        )
    return table


def _us(value: float) -> str:
    """Write microseconds; of a second and more, seconds."""
    return f"{value:,.1f}" if value < 1e6 else f"{value / 1e6:,.1f} s"


def _rate(value: float) -> str:
    """Write a rate so that a CPU's thousandth of a GPU's can still be read."""
    return f"{value:,.1f}" if value >= 10 else f"{value:.2g}"


def _table(*headings: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in headings:
        table.add_column(heading)
    return table


def _source(label: str) -> Text:
    return Text(label, style=_SOURCE_COLOURS[label])


def _bytes(size: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1024 or unit == "GB":
            return f"{size:g} {unit}"
        size /= 1024
    raise AssertionError(size)  # pragma: no cover

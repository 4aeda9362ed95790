"""How what `flashcp calibrate` measured looks: errors and warnings."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from costmodel.calibrated_errors import WEAK_ERROR, held_up
from flashcp_cli.terminal import terminal

if TYPE_CHECKING:
    from costmodel.profile import Profile


def print_calibration(
    profile: "Profile",
    out: Path,
    *,
    noisy: Mapping[str, float],
    weak: Sequence[str],
    resumed: int,
    planned: int,
) -> None:
    """Print what was measured, the held-out errors, and what not to trust."""
    console = terminal()
    p = profile.provenance
    console.print(Text(f"{profile.name}: {p.device}", style="bold"), soft_wrap=True)
    console.print(
        f"{p.attention_kernel}, torch {p.torch}, "
        f"{'gloo' if p.nccl is None else f'NCCL {p.nccl}'}; {p.launch_mode}",
        soft_wrap=True,
    )
    again = f", {resumed:,} of them before it was interrupted" if resumed else ""
    console.print(f"{len(profile.points):,} points measured{again}")
    if (missing := planned - len(profile.points)) > 0:
        console.print(
            f"Time ran out before {missing:,} more of the {planned:,} that would be measured",
            style="yellow",
            soft_wrap=True,
        )
    if outliers := held_up(profile):
        words = " and ".join(f"{n} {name}{'s' if n > 1 else ''}" for name, n in outliers.items())
        console.print(f"Held up, and left out of the fit: {words}", style="yellow")
    if p.held_out:
        console.print(Text("Errors on points left out of the fit", style="bold"))
        console.print_folded(_errors(profile))
    for figure, name in (
        (profile.overlap_factor, "attention slows beside an exchange"),
        (profile.exchange_overlap_factor, "an exchange slows beside attention"),
        (profile.copies.memory_share, "copies of picked rows reach, of contiguous ones"),
        (profile.launch_us, "one further kernel takes, us"),
        (profile.message_us, "posting a message takes the host, us"),
        (profile.network.nic_gbps, "between nodes, GB/s a rank"),
    ):
        console.print(f"{name}: {figure.value:g} ({figure.source.label})")
    for name, share in noisy.items():
        if share > WEAK_ERROR:
            console.print(
                Text(
                    f"This machine is noisy: repeats of {share:.0%} of the {name} points lie more "
                    "than 10% apart; end what else runs and calibrate again",
                    style="yellow",
                ),
                soft_wrap=True,
            )
    for line in weak:
        console.print(Text(line, style="yellow"), soft_wrap=True)
    console.print(f"Wrote {out}; use it with --hardware {out}", soft_wrap=True)


def _errors(profile: "Profile") -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("what")
    table.add_column("which", no_wrap=True)
    for heading in ("points", "mean", "p90", "worst", "bias"):
        table.add_column(heading, justify="right", no_wrap=True)
    before = None
    for e in profile.provenance.held_out:
        if not e.inside:
            continue
        table.add_row(
            "" if e.what == before else e.what,
            e.bucket,
            f"{e.points:,}",
            f"{e.mean:.1%}",
            f"{e.p90:.1%}",
            f"{e.worst:.1%}",
            f"{e.bias:+.1%}",
            style="yellow" if e.mean > WEAK_ERROR else None,
        )
        before = e.what
    return table

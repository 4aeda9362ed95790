"""`flashcp calibrate`: measure this machine, write its profile, and say how far to trust it."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flashcp_cli.options import MOST_SECONDS, Name, Number, PathNamed, Size, echo_json, json_option
from flashcp_cli.outputs import check_outputs
from flashcp_cli.torch_needs import require_gpu, require_torch

if TYPE_CHECKING:
    from costmodel.profile import Profile
    from executor.calibration.request import Request

_CPU_RANKS = 2
_STORE = ".partial"


@click.command()
@click.option(
    "--quick/--full",
    "quick",
    default=True,
    help="Within a minute (the default), or many more points within ten.",
)
@click.option(
    "--out",
    type=PathNamed(dir_okay=False),
    default=Path("profile.json"),
    show_default=True,
    help="Where the profile goes.",
)
@click.option("--name", help="Name of the profile (otherwise that of its file).")
@click.option(
    "--device",
    type=Name(("cuda", "cpu")),
    help="What to measure (otherwise GPUs if there are any).",
)
@click.option(
    "--nproc",
    type=Size(most=1024),
    help="Ranks that exchange with each other (otherwise one a GPU; 2 on a CPU).",
)
@click.option(
    "--dtype",
    type=Name(("bfloat16", "float16", "float32")),
    help="Precision of attention (bfloat16 on GPUs, float32 on a CPU otherwise).",
)
@click.option(
    "--timeout",
    type=Number(least=1, most=MOST_SECONDS),
    default=120,
    show_default=True,
    metavar="SECONDS",
    help="Seconds within which the ranks must find each other, and answer.",
)
@click.option("--restart", is_flag=True, help="Forget what an interrupted calibration measured.")
@json_option
def calibrate(quick: bool, out: Path, name: str | None, as_json: bool, **options: Any) -> None:
    """Measure this machine and write a profile that predictions can be made with.

    Attention forward and backward, exchanges by group size, copies, launches, and what attention
    and exchanges cost each other. A fifth of the points at a time is left out of the fit; how far
    predictions are from them is printed and kept in the profile. Interrupted, the same command
    goes on where it was.

    \b
    flashcp calibrate                                    this machine, within a minute
    flashcp calibrate --full --out h100.json             many more points
    torchrun --nproc-per-node 8 ... --no-python flashcp calibrate --full
    flashcp plan papers --cp 8 --hardware h100.json      predict with it
    """  # noqa: D301 - \b tells click to keep the lines
    request = _request(out, quick=quick, **options)
    from flashcp_cli.crowding import CALIBRATE, warn_if_crowded

    warn_if_crowded(request.device, request.ranks, CALIBRATE)
    results = _measure(request)
    if results is None:
        return  # rank 0 of torchrun's writes and reports for all
    profile = _profile(name or out.stem, request, results)
    from costmodel.calibrated_errors import held_up, noisy_kinds, weak_regions
    from costmodel.profile_file import write_profile

    write_profile(profile, out)
    request.store.unlink(missing_ok=True)
    weak, noisy = weak_regions(profile, full=not quick), noisy_kinds(profile.points)
    if as_json:
        echo_json(
            {
                "profile": str(out),
                "name": profile.name,
                **profile.provenance.to_json(),
                "points": len(profile.points),
                "planned": results["planned"],
                "resumed": results["resumed"],
                "held_up": held_up(profile),
                "noisy": noisy,
                "weak": weak,
            }
        )
    else:
        from flashcp_cli.calibrate_view import print_calibration

        print_calibration(
            profile,
            out,
            noisy=noisy,
            weak=weak,
            resumed=results["resumed"],
            planned=results["planned"],
        )


def _request(
    out: Path,
    *,
    quick: bool,
    device: str | None,
    nproc: int | None,
    dtype: str | None,
    timeout: float,
    restart: bool,
) -> "Request":
    """Return what to measure, having checked what can be checked before."""
    require_torch("calibrate")
    from executor.calibration.attention import DTYPES
    from executor.calibration.request import EFFORTS, Request
    from executor.calibration.session import in_torchrun
    from executor.device import default_device, visible_devices

    store = out.with_name(out.name + _STORE)
    check_outputs({"--out": out}, [])
    check_outputs({"--out": store}, [])
    device = device or default_device()
    if device == "cuda":
        require_gpu()
    there = visible_devices(device)
    ranks = nproc or (there if device == "cuda" else _CPU_RANKS)
    if in_torchrun():
        ranks = nproc or int(os.environ["WORLD_SIZE"])
    elif device == "cuda" and ranks > there:
        raise click.BadParameter(
            f"{ranks} ranks need a GPU each and torch sees {there}; take torchrun for several"
            " nodes",
            param_hint="--nproc",
        )
    if os.environ.get("RANK", "0") == "0":
        _check_writable(store, restart=restart)
    return Request(
        device=device,
        ranks=ranks,
        effort=EFFORTS[device, not quick],
        dtype=dtype or DTYPES[device],
        store=store,
        timeout_s=timeout,
    )


def _check_writable(store: Path, *, restart: bool) -> None:
    """Raise OSError now rather than after minutes of measuring."""
    if restart:
        store.unlink(missing_ok=True)
    there = store.exists()
    with store.open("a"):
        pass
    if not there:
        store.unlink()


def _measure(request: "Request") -> dict[str, Any] | None:
    """Measure, with progress on the error stream."""
    from executor.calibration import calibrate as measure
    from executor.errors import RunError
    from flashcp_cli.progress import of_calibration

    try:
        with of_calibration() as show:
            return measure(request, show)
    except RunError as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        if request.store.exists() and os.environ.get("RANK", "0") == "0":
            click.echo(
                f"\nflashcp: what was measured is kept in {request.store};"
                " the same command goes on from there",
                err=True,
            )
        raise


def _profile(name: str, request: "Request", results: dict[str, Any]) -> "Profile":
    from costmodel.calibrated import Conditions, base_for, calibrated_profile
    from executor.calibration.store import read_points

    conditions = Conditions(**results["conditions"])
    points = read_points(request.store)[1]
    return calibrated_profile(name, conditions, points, base_for(conditions.device))

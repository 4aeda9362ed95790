"""Warns where a CPU has more ranks than cores, which predictions know nothing of.

A profile's attention is timed by a thread's own clock, as if each rank had a core to itself, so
predictions of ranks that share cores are too short by at least ranks over cores.
"""

import os

import click

RUN = "so times come out longer than predicted; compare shares"
CALIBRATE = (
    "so exchanges are slower than with a core each, and attention is measured as if each had one"
)


def warn_if_crowded(device: str, ranks: int, consequence: str) -> None:
    """Say in one line on the error stream that ranks of this host share cores, if they do.

    Args:
        device: "cuda", which has no such limit, or "cpu".
        ranks: of the whole group; under torchrun its own count of this host's is taken.
        consequence: what follows.
    """
    from executor.device import ranks_here, visible_devices

    here = ranks_here(ranks)
    cores = visible_devices("cpu")
    if device != "cpu" or here <= cores or os.environ.get("RANK", "0") != "0":
        return
    share = "half a core" if here == 2 * cores else f"{cores / here:.2g} of a core"
    click.echo(
        f"Warning: {here} ranks on {cores} core{'s' if cores > 1 else ''}: each has {share}, "
        f"{consequence}",
        err=True,
    )

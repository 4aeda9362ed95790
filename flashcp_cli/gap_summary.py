"""What `flashcp plan --gap` reports: means and worst over packs, ready for JSON."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from flashcp.gaps import MOST_PACKS, exact_traffic, traffic_bounds

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flashcp.comparison import Comparison
    from traces.packing import Packing


def summarise_gaps(
    packing: "Packing", comparison: "Comparison", cp: int, *, hidden: bool
) -> dict[str, Any]:
    """Return each strategy's distances from the bounds, and from the exact least where known.

    Args:
        packing: the packs.
        comparison: every strategy on every pack.
        cp: CP degree.
        hidden: show no progress.

    Returns:
        By strategy: `time`, predicted over bound, less 1 (None where the bound is 0); `traffic`,
        moved less bound, and `exact`, moved less exact, as shares of a full all-gather (None where
        nothing was proven). `exact` beside them tells of which packs.
    """
    from flashcp_cli.progress import counted

    with counted("exact packs", hidden=hidden, least=1) as begin, _quiet_solver():
        exact = exact_traffic(packing, cp, progress=begin(0, min(MOST_PACKS, len(packing))))
    packs = [each.pack for each in exact.found]
    least = np.array([each.share for each in exact.found])
    strategies = {}
    for name, outcome in comparison.outcomes.items():
        bound = traffic_bounds(packing, cp, outcome.imbalance)
        positive = comparison.bound_us > 0
        over = outcome.total_us[positive] / comparison.bound_us[positive] - 1
        strategies[name] = {
            "time": _spread(over),
            "traffic": _spread(outcome.moved_share - bound),
            "exact": _spread(outcome.moved_share[packs] - least),
        }
    return {
        "strategies": strategies,
        "exact": {
            "small_packs": exact.small,
            "tried_packs": exact.tried,
            "found": [asdict(each) for each in exact.found],
        },
    }


def _spread(values: "NDArray[np.float64]") -> dict[str, float] | None:
    return {"mean": float(values.mean()), "worst": float(values.max())} if values.size else None


@contextmanager
def _quiet_solver() -> Iterator[None]:
    """Keep standard output ours: HiGHS 1.12 prints lines of its own there, from C."""
    try:
        ours = sys.stdout.fileno()
    except (OSError, ValueError):  # not a file: C code does not write there either
        yield
        return
    sys.stdout.flush()
    kept, nowhere = os.dup(ours), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, ours)
        yield
    finally:
        os.dup2(kept, ours)
        os.close(kept)
        os.close(nowhere)

"""Holds stored runs of plans (`flashcp run --results`) against what was predicted for them.

A run's file carries what was measured of every rank and part, and what the profile predicted. Where
the run was on the profile's device, times are compared, rank by rank and for the slowest; anywhere
else only what does not depend on the device's speed is: each rank's share of the attention.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from costmodel.checks import Fields, read_json
from costmodel.errors import ProfileError
from costmodel.held_out import HeldOutError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_PARTS = ("forward", "backward", "total")


def validate_run(path: Path, profiles: Sequence[str] = ()) -> list[HeldOutError]:
    """Return the errors of the predictions in a file of results.

    Args:
        path: what `flashcp run --results` wrote.
        profiles: names that the predictions must be of; any where empty.

    Raises:
        ProfileError: the file is missing, broken, no results, or of another profile.
    """
    document = Fields(read_json(path, "results"), f"results {path}")
    hardware = document.text("hardware")
    if profiles and hardware not in profiles:
        raise ProfileError(
            f"results {path} were predicted with {hardware}, not {', '.join(profiles)};"
            f" run again with --hardware {profiles[0]}"
        )
    comparable = document.flag("comparable")
    plans = document.part("plans")
    if not plans.document:
        raise document.fail("plans", "is empty; nothing was run")
    by_part: dict[str, list[float]] = {part: [] for part in _PARTS}
    slowest, shares = [], []
    for name in plans.document:
        plan = plans.part(name)
        ranks = plan.parts("ranks")
        for rank in ranks:
            measured, predicted = rank.part("measured_us"), rank.part("predicted_us")
            for part in _PARTS:
                if measured.number(part) > 0:
                    by_part[part].append(predicted.number(part) / measured.number(part) - 1)
        slowest.append(plan.number("predicted_us") / plan.number("measured_us", least=1e-6) - 1)
        found, expected = (_shares(ranks, which) for which in ("measured_us", "predicted_us"))
        shares += [e / f - 1 for e, f in zip(expected, found, strict=True) if f > 0]
    common: dict[str, Any] = {"method": f"run, predicted with {hardware}", "inside": True}
    results = []
    if comparable:
        results.append(HeldOutError.of(slowest, what="plans, slowest rank", **common))
        results += [
            HeldOutError.of(errors, what="ranks", bucket=part, **common)
            for part, errors in by_part.items()
            if errors
        ]
    if shares:
        results.append(HeldOutError.of(shares, what="ranks' shares of attention", **common))
    return results


def _shares(ranks: Sequence[Fields], which: str) -> list[float]:
    """Return each rank's attention over the mean."""
    times = [
        part.number("forward") + part.number("backward")
        for part in (rank.part(which) for rank in ranks)
    ]
    mean = float(np.mean(times)) if times else 0.0
    return [time / mean if mean > 0 else 0.0 for time in times]

"""How far a calibrated profile is from points that its fit had not seen, and where it is weak.

Reproducible from the profile's file alone: points are dealt into fifths by hashes of their number,
each fifth is predicted by a fit to the other four, and errors are summed up by what was measured
and by bucket. Uneven all-to-alls are never fitted; their errors are of the rule that derives them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from costmodel.calibrated import copy_model, fit_points, fit_transfers, of
from costmodel.calibrated_network import measured_network
from costmodel.calibrated_points import (
    NOISY_SPREAD,
    AttentionPoint,
    CopyPoint,
    Point,
    TransferPoint,
)
from costmodel.errors import ProfileError
from costmodel.fit_attention import predict_us, shuffled
from costmodel.held_out import HeldOutError
from costmodel.validate import LENGTH_BUCKETS, SIZE_BUCKETS, by_bucket

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from costmodel.profile import Profile

_Timed: TypeAlias = "AttentionPoint | TransferPoint | CopyPoint"

FOLDS = 5
METHOD = "each random fifth of the points left out"
_FEW = 3  # of fewer points an error says nothing
_UNFITTED = "never fitted, derived from even ones"
WEAK_ERROR = 0.10
"""Mean held-out error above which a region is called weak."""


def held_out(profile: Profile) -> list[HeldOutError]:
    """Return the errors of a calibrated profile, found again from its points.

    Raises:
        ProfileError: the profile holds no points.
    """
    if not profile.points:
        raise ProfileError(f"profile {profile.name} holds no measured points to validate against")
    return [*_attention(profile), *_transfers(profile), *_across(profile), *_copies(profile)]


def weak_regions(profile: Profile, *, full: bool) -> list[str]:
    """Return a line for each region whose held-out error is above 10%, with what to do.

    Args:
        profile: a calibrated one.
        full: whether it was calibrated with `--full`.
    """
    errors = profile.provenance.held_out
    noisy = noisy_kinds(profile.points)
    lines = []
    for error in errors:
        if error.mean <= WEAK_ERROR or error.points < _FEW or not _tells(error):
            continue
        kind = "attention" if error.what.startswith("attention") else "exchange"
        kind = "copies" if error.what.startswith("copies") else kind
        advice = "measure more points there: flashcp calibrate --full"
        if noisy.get(kind, 0.0) > WEAK_ERROR:
            advice = "its repeats differ: calibrate on a quieter machine"
        elif full:
            advice = "the model does not follow it; hold plans there against flashcp run"
        lines.append(
            f"weak: {error.what}, {error.bucket}: {error.mean:.0%} off on average over"
            f" {error.points} points; {advice}"
        )
    return lines


def _tells(error: HeldOutError) -> bool:
    """Tell whether a bucket names a region that others do not name too."""
    if not error.inside or error.what == "all collectives":
        return False
    if error.what.startswith("attention"):
        return error.bucket not in ("all", "from 64 tokens")
    if error.what.startswith("copies"):
        return error.bucket != "all"
    return error.bucket in ("to 64 KB", "above 64 KB")


def noisy_kinds(points: Sequence[Point]) -> dict[str, float]:
    """Return, for attention, exchange and copies, the share of points with noisy repeats."""
    shares = {}
    for name, kind in (
        ("attention", AttentionPoint),
        ("exchange", TransferPoint),
        ("copies", CopyPoint),
    ):
        if chosen := of(points, kind):
            shares[name] = sum(point.spread > NOISY_SPREAD for point in chosen) / len(chosen)
    return shares


def fold_of(count: int) -> NDArray[np.int64]:
    """Return the fifth that each of `count` points is dealt to."""
    folds = np.empty(count, np.int64)
    folds[shuffled(count, 0)] = np.arange(count) % FOLDS
    return folds


def _attention(profile: Profile) -> Iterator[HeldOutError]:
    points = of(profile.points, AttentionPoint)
    kernel, units = profile.attention.kernel, profile.attention.sms
    groups = sorted(
        {(p.direction, p.head_dim) for p in points}, key=lambda k: (k[0] != "forward", k[1])
    )
    for direction, head_dim in groups:
        chosen = [p for p in points if (p.direction, p.head_dim) == (direction, head_dim)]
        # A model has a forward at least; what it is does not touch the other direction's fit.
        beside = [p for p in points if p.direction == "forward"] if direction != "forward" else []

        def predict(
            known: Sequence[AttentionPoint],
            held: Sequence[AttentionPoint],
            beside: Sequence[AttentionPoint] = beside[:1],
        ) -> NDArray[np.float64]:
            model = fit_points([*beside, *known], kernel, units)
            return predict_us(model, [point.call() for point in held])

        errors = _left_out(chosen, predict)
        if errors is None:
            continue
        what = f"attention {direction}, head size {head_dim}"
        longest = np.array([max(p.q_lens) for p in chosen], np.float64)
        yield from by_bucket(errors, longest, LENGTH_BUCKETS, what=what, method=METHOD, inside=True)
        shapes = np.array([p.shape for p in chosen])
        for shape in sorted(set(shapes)):
            yield HeldOutError.of(
                errors[shapes == shape], what=what, method=METHOD, inside=True, bucket=str(shape)
            )


def _transfers(profile: Profile) -> Iterator[HeldOutError]:
    points = [p for p in of(profile.points, TransferPoint) if p.ranks == p.ranks_per_node]
    even = [p for p in points if p.parts == "even"]
    if not even:
        return

    def predict(
        known: Sequence[TransferPoint], held: Sequence[TransferPoint]
    ) -> NDArray[np.float64]:
        model = fit_transfers(known)
        return np.array([model.estimate(p.collective, p.total_bytes, p.ranks).us for p in held])

    errors = _left_out(even, predict)
    if errors is None:
        return
    sizes = np.array([p.total_bytes for p in even], np.float64)
    ends: dict[tuple[str, int], tuple[int, int]] = {}
    for p in even:
        low, high = ends.get((p.collective, p.ranks), (p.total_bytes, p.total_bytes))
        ends[p.collective, p.ranks] = min(low, p.total_bytes), max(high, p.total_bytes)
    inside = np.array([p.total_bytes not in ends[p.collective, p.ranks] for p in even])
    names = np.array([p.collective for p in even])
    for name in (None, *sorted(set(names))):
        for within in (True, False):
            rows = (inside == within) & (name is None or names == name)
            if rows.any():
                yield from by_bucket(
                    errors[rows],
                    sizes[rows],
                    SIZE_BUCKETS,
                    what="all collectives" if name is None else str(name),
                    method=METHOD if within else f"{METHOD}, smallest and largest sizes",
                    inside=within,
                )
    uneven = [p for p in points if p.parts == "uneven"]
    if uneven:
        derived = replace(profile, collectives=fit_transfers(even))
        predicted = [
            derived.all_to_all_v_us(p.total_bytes, p.ranks, ranks_per_node=p.ranks_per_node).us
            for p in uneven
        ]
        yield from by_bucket(
            np.array(predicted) / [p.us for p in uneven] - 1,
            np.array([p.total_bytes for p in uneven], np.float64),
            SIZE_BUCKETS,
            what="all_to_all, uneven parts",
            method=_UNFITTED,
            inside=True,
        )


def _across(profile: Profile) -> Iterator[HeldOutError]:
    points = of(profile.points, TransferPoint)
    across = [p for p in points if p.ranks > p.ranks_per_node and p.parts == "even"]

    def predict(
        known: Sequence[TransferPoint], held: Sequence[TransferPoint]
    ) -> NDArray[np.float64]:
        network = measured_network(known, profile.collectives, profile.network)
        return np.array(
            [
                network.spanning(
                    profile.collectives, p.collective, p.total_bytes, p.ranks, p.ranks_per_node
                ).us
                for p in held
            ]
        )

    errors = _left_out(across, predict)
    if errors is not None:
        sizes = np.array([p.total_bytes for p in across], np.float64)
        yield from by_bucket(
            errors,
            sizes,
            SIZE_BUCKETS,
            what="collectives across nodes",
            method=METHOD,
            inside=True,
        )


def _copies(profile: Profile) -> Iterator[HeldOutError]:
    points = of(profile.points, CopyPoint)

    def predict(known: Sequence[CopyPoint], held: Sequence[CopyPoint]) -> NDArray[np.float64]:
        model = copy_model(known, profile)
        whole = model.memory_gbps.value * 1e3 / 2
        times = []
        for p in held:
            if p.layout == "per shard":
                # The profile counts a shard's cost for both directions together.
                times.append(model.estimate(p.moved_bytes, p.pieces / 2, "per-shard").us)
            elif p.layout == "gathered":
                times.append(model.estimate(p.moved_bytes, 0, "in-place").us)
            else:
                times.append(p.moved_bytes / whole)
        return np.array(times)

    errors = _left_out(points, predict)
    if errors is None:
        return
    layouts = np.array([p.layout for p in points])
    yield HeldOutError.of(errors, what="copies", method=METHOD, inside=True)
    for layout in sorted(set(layouts)):
        yield HeldOutError.of(
            errors[layouts == layout],
            what="copies",
            method=METHOD,
            inside=True,
            bucket=str(layout),
        )


def _left_out(
    points: Sequence[_Timed], predict: Callable[..., NDArray[np.float64]]
) -> NDArray[np.float64] | None:
    """Return each point's signed relative error by a fit without its fifth; None for too few."""
    if len(points) < 2 * FOLDS:
        return None
    folds = fold_of(len(points))
    errors = np.empty(len(points))
    for fold in range(FOLDS):
        held = [points[i] for i in np.flatnonzero(folds == fold).tolist()]
        known = [points[i] for i in np.flatnonzero(folds != fold).tolist()]
        measured = np.array([p.us for p in held])
        errors[folds == fold] = predict(known, held) / measured - 1
    return errors

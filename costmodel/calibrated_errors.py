"""How far a calibrated profile is from points that its fit had not seen, and where it is weak.

Reproducible from the profile's file alone: points are dealt into fifths by hashes of their number,
each fifth is predicted by a fit to the other four, and errors are summed up by what was measured
and by bucket. Exchanges across nodes are judged twice: by the curves of their own groups, and, for
groups that were not measured, by the formula fitted to the other groups.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from costmodel.calibrated import fit_points, fit_transfers, of
from costmodel.calibrated_copies import copy_model
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
    lines = list(_untold(profile.points, full=full))
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


def _untold(points: Sequence[Point], *, full: bool) -> Iterator[str]:
    """Yield a line for each kind of points of which too few were measured to leave any out."""
    advice = "end what else runs" if full else "end what else runs, or flashcp calibrate --full"
    calls = [f"attention {p.direction}, head size {p.head_dim}" for p in of(points, AttentionPoint)]
    kinds = [*calls, *("copies" for _ in of(points, CopyPoint))]
    for kind in dict.fromkeys(kinds):
        if kinds.count(kind) < 2 * FOLDS:
            yield (
                f"unknown: {kind}: the {kinds.count(kind)} points that there was time for are too"
                f" few to leave some out; {advice}"
            )


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


def held_up(profile: Profile) -> dict[str, int]:
    """Return how many attention calls and exchanges the fit left out as held up, where any."""
    calls = sum(fit.sampled.count for fit in profile.attention.fits if fit.sampled is not None)
    sizes = sum(len(curve.sizes_bytes) for curve in profile.collectives.curves)
    exchanges = [p for p in of(profile.points, TransferPoint) if p.parts != "empty"]
    left_out = {
        "attention call": len(of(profile.points, AttentionPoint)) - calls,
        # Without any, the curves are another machine's.
        "exchange": len(exchanges) - sizes if exchanges else 0,
    }
    return {name: count for name, count in left_out.items() if count > 0}


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
    """Yield the errors of exchanges within a node, by collective."""
    points = [
        p
        for p in of(profile.points, TransferPoint)
        if p.ranks == p.ranks_per_node and p.parts != "empty"
    ]

    def predict(
        known: Sequence[TransferPoint], held: Sequence[TransferPoint]
    ) -> NDArray[np.float64]:
        model = fit_transfers(known)
        return np.array([_us(replace(profile, collectives=model), p) for p in held])

    errors = _left_out(points, predict)
    if errors is None:
        return
    inside, names = _between_ends(points), np.array([_name(p) for p in points])
    for name in (None, *sorted(set(names))):
        rows = names == name if name is not None else np.full(len(points), fill_value=True)
        yield from _by_size(points, errors, rows, inside, name or "all collectives")


def _across(profile: Profile) -> Iterator[HeldOutError]:
    """Yield the errors of exchanges across nodes: by their curves, and by the formula alone."""
    points = [p for p in of(profile.points, TransferPoint) if p.parts != "empty"]
    within = [p for p in points if p.ranks == p.ranks_per_node]
    across = [p for p in points if p.ranks > p.ranks_per_node]

    def predict(
        known: Sequence[TransferPoint], held: Sequence[TransferPoint]
    ) -> NDArray[np.float64]:
        model = fit_transfers([*within, *known])
        network = measured_network(known, model, profile.network)
        changed = replace(profile, collectives=model, network=network)
        return np.array([_us(changed, p) for p in held])

    errors = _left_out(across, predict)
    if errors is None:
        return
    every = np.full(len(across), fill_value=True)
    yield from _by_size(across, errors, every, _between_ends(across), "collectives across nodes")
    if not within:
        return
    # What a group across nodes that was not measured gets: the formula, fitted to the others.
    shapes = np.array([(p.ranks, p.ranks_per_node) for p in across])
    for ranks, per_node in sorted({(p.ranks, p.ranks_per_node) for p in across}):
        held = (shapes == (ranks, per_node)).all(axis=1)
        others = [p for p, out in zip(across, held, strict=True) if not out]
        if not others:
            continue
        left = [p for p, out in zip(across, held, strict=True) if out]
        formula = predict(others, left) / [p.us for p in left] - 1
        yield HeldOutError.of(
            formula,
            what=f"collectives across nodes, {ranks} ranks, {per_node} a node",
            method="the group left out, by formula",
            inside=False,
        )


def _us(profile: Profile, point: TransferPoint) -> float:
    """Return the time that `profile` predicts for an exchange."""
    size, ranks, per_node = float(point.total_bytes), point.ranks, point.ranks_per_node
    if point.parts == "uneven":
        return profile.all_to_all_v_us(size, ranks, ranks_per_node=per_node).us
    return profile.collective_us(point.collective, size, ranks, ranks_per_node=per_node).us


def _name(point: TransferPoint) -> str:
    return point.collective if point.parts == "even" else f"{point.collective}, uneven parts"


def _between_ends(points: Sequence[TransferPoint]) -> NDArray[np.bool_]:
    """Tell which points lie between the smallest and largest size of their collective and group."""
    ends: dict[tuple[str, int, int], tuple[int, int]] = {}
    keys = [(_name(p), p.ranks, p.ranks_per_node) for p in points]
    for key, p in zip(keys, points, strict=True):
        low, high = ends.get(key, (p.total_bytes, p.total_bytes))
        ends[key] = min(low, p.total_bytes), max(high, p.total_bytes)
    return np.array([p.total_bytes not in ends[k] for k, p in zip(keys, points, strict=True)])


def _by_size(
    points: Sequence[TransferPoint],
    errors: NDArray[np.float64],
    chosen: NDArray[np.bool_],
    inside: NDArray[np.bool_],
    what: str,
) -> Iterator[HeldOutError]:
    sizes = np.array([p.total_bytes for p in points], np.float64)
    for within in (True, False):
        rows = chosen & (inside == within)
        if rows.any():
            yield from by_bucket(
                errors[rows],
                sizes[rows],
                SIZE_BUCKETS,
                what=what,
                method=METHOD if within else f"{METHOD}, smallest and largest sizes",
                inside=within,
            )


def _copies(profile: Profile) -> Iterator[HeldOutError]:
    points = of(profile.points, CopyPoint)

    def predict(known: Sequence[CopyPoint], held: Sequence[CopyPoint]) -> NDArray[np.float64]:
        model = copy_model(known, (), profile)
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

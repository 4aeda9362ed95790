"""Fits the collective curves to measured times.

Two steps for each (collective, group size), both deterministic and in numpy alone:

1. The times are made monotone in the bytes by isotonic regression on medians (pool adjacent
   violators): a larger message never takes less, so a faster one after a slower one is noise.
   Medians, because the noise is one-sided spikes: 17.7 us between 6.5 and 7.6 us.
2. alpha + beta * S + gamma * sqrt(S), none negative, to the relative errors, by reweighted least
   squares with Huber's weights; of the at most three terms every subset is tried, since with
   non-negative coefficients the best fit is the best feasible one of these.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from costmodel.collectives import CollectiveCurve, CollectiveModel
from costmodel.errors import ProfileError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

_ROUNDS = 25
_HUBER = 0.1  # relative errors above this are counted linearly, not squared


def fit_collectives(rows: Iterable[tuple[str, int, float, float]]) -> CollectiveModel:
    """Fit a model to measured rows of (collective, ranks, bytes, us) within one node.

    Points of the same size are first reduced to their median.

    Raises:
        ProfileError: a row is not positive and finite, or there is none.
    """
    return fit_groups((name, ranks, ranks, size, us) for name, ranks, size, us in rows)


def fit_groups(rows: Iterable[tuple[str, int, int, float, float]]) -> CollectiveModel:
    """Fit a model to measured rows of (collective, ranks, ranks per node, bytes, us).

    Points of the same size are first reduced to their median.

    Raises:
        ProfileError: a row is not positive and finite, or there is none.
    """
    groups: dict[tuple[str, int, int], dict[float, list[float]]] = {}
    for collective, ranks, per_node, size_bytes, us in rows:
        if not (np.isfinite(us) and us > 0 and size_bytes >= 0 and np.isfinite(size_bytes)):
            raise ProfileError(
                f"{collective} on {ranks} ranks took {us} us for {size_bytes} bytes;"
                " both must be finite and the time positive"
            )
        key = (collective, ranks, per_node)
        groups.setdefault(key, {}).setdefault(float(size_bytes), []).append(us)
    if not groups:
        raise ProfileError("there are no measured collectives to fit")
    return CollectiveModel(
        tuple(_fit_curve(*key, points) for key, points in sorted(groups.items()))
    )


def _fit_curve(
    collective: str, ranks: int, per_node: int, points: dict[float, list[float]]
) -> CollectiveCurve:
    sizes = np.array(sorted(points))
    times = monotone([float(np.median(points[size])) for size in sizes])
    alpha, beta, gamma = _fit_terms(sizes, times)
    return CollectiveCurve(
        collective=collective,
        ranks=ranks,
        ranks_per_node=per_node,
        sizes_bytes=tuple(sizes.tolist()),
        times_us=tuple(times.tolist()),
        alpha_us=alpha,
        beta_us_per_byte=beta,
        gamma_us_per_root_byte=gamma,
    )


def monotone(values: Sequence[float]) -> NDArray[np.float64]:
    """Return the never-falling sequence nearest to `values` in absolute distance."""
    blocks: list[list[float]] = []
    for value in values:
        blocks.append([value])
        while len(blocks) > 1 and np.median(blocks[-2]) > np.median(blocks[-1]):
            last = blocks.pop()
            blocks[-1].extend(last)
    return np.concatenate([np.full(len(block), np.median(block)) for block in blocks])


def _fit_terms(
    sizes: NDArray[np.float64], times: NDArray[np.float64]
) -> tuple[float, float, float]:
    # Relative errors: every row is divided by its time, so that each target is 1. Scaled columns
    # keep the normal equations well conditioned.
    terms = np.stack([np.ones_like(sizes), sizes, np.sqrt(sizes)], axis=1)
    scale = np.maximum(terms.max(axis=0), 1.0)
    design = terms / scale / times[:, None]
    weights = np.ones_like(times)
    solution = np.zeros(3)
    for _ in range(_ROUNDS):
        solution = _non_negative(design, weights)
        error = np.abs(design @ solution - 1.0)
        weights = np.minimum(1.0, _HUBER / np.maximum(error, 1e-12))
    # Six digits: what machines' linear algebra may round differently is cut off.
    alpha, beta, gamma = (float(f"{term:.6g}") for term in (solution / scale).tolist())
    return alpha, beta, gamma


def _non_negative(design: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    root = np.sqrt(weights)
    rows, target = design * root[:, None], root
    best, least = np.zeros(design.shape[1]), np.inf
    for count in range(1, design.shape[1] + 1):
        for chosen in combinations(range(design.shape[1]), count):
            part = np.linalg.lstsq(rows[:, chosen], target, rcond=None)[0]
            loss = float(np.sum((rows[:, chosen] @ part - target) ** 2))
            if part.min() >= 0 and loss < least - 1e-12:
                best = np.zeros(design.shape[1])
                best[list(chosen)] = part
                least = loss
    return best

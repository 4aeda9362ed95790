"""Fits an attention model to measured kernel calls, robustly and from as few as a dozen of them.

The coefficients of a (direction, head size) are fitted in the logarithm of the time by
Levenberg-Marquardt on their own logarithms, with safeguards:

- Each point weighs 1 / (1 + (error / 2.5 spread)^2) (Cauchy), the spread taken anew in every round
  from the median error, so that slow outliers do not pull the curve.
- Of a kernel for CPUs, what a block of queries and a segment cost beside their pairs is the best of
  a grid: set to the figures of another hour, backward calls of 1,024 queries and more came out 18
  to 20% too short.
- Each coefficient is drawn, weakly, towards a prior: the same kernel on known hardware. What few
  points cannot tell stays at the prior; thousands of points override it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pandas as pd

from costmodel import attention_kernel as kernel
from costmodel.attention import (
    COEFFICIENTS,
    CPU_KERNEL,
    AttentionFit,
    AttentionModel,
    Coefficients,
    Direction,
)
from costmodel.attention_calls import KERNELS, SMS, KernelTraits, MeasuredCall, calls_from_table
from costmodel.attention_prior import PRIOR, PRIOR_SPREAD
from costmodel.attention_sampled import Sampled
from costmodel.errors import ProfileError
from costmodel.estimate import Source
from groundwork.jit import jit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_T = TypeVar("_T")

# What every fit finds; `empty_tile_us` only those of a kernel that starts empty blocks.
_ALWAYS = tuple(name for name in COEFFICIENTS if name != "empty_tile_us")
# Rows of a block and of a segment that are tried for a kernel for CPUs, and the error from which a
# call tells between them no more the larger it is.
_CPU_ROWS = tuple((block, segment) for block in (2, 5, 10, 18) for segment in (0, 8, 20))
_TELLING = 0.1
_ROUNDS = 60
_LEAST_SPREAD = 0.02
_CAUCHY = 2.5
_STEP = 1e-4


def fit_attention(
    calls: pd.DataFrame | Sequence[MeasuredCall],
    *,
    kernel_name: str | None = None,
    sms: int | None = None,
    traits: KernelTraits | None = None,
    prior: AttentionModel | None = None,
) -> AttentionModel:
    """Fit a model to measured calls of one kernel on one GPU.

    Args:
        calls: measured calls, or a table as `calls_from_table` takes it.
        kernel_name: e.g. "flash-attn-3"; from the table's `kernel` column where not given.
        sms: streaming multiprocessors; from the table's `gpu` column where not given.
        traits: of the kernel; from `KERNELS` where not given.
        prior: a model of similar hardware that few points lean on.

    Returns:
        A model with a fit for every (direction, head size) among the calls.

    Raises:
        ProfileError: no forward calls, or a kernel or GPU that is not known.
    """
    if isinstance(calls, pd.DataFrame):
        kernel_name = kernel_name or _only_value(calls, "kernel")
        sms = sms or _lookup(SMS, _only_value(calls, "gpu"), "GPU")
        calls = calls_from_table(calls)
    if kernel_name is None or sms is None:
        raise ProfileError("fitting attention calls needs the kernel's name and the GPU's SMs")
    traits = traits or _lookup(KERNELS, kernel_name, "attention kernel")
    groups: dict[tuple[str, int], list[MeasuredCall]] = defaultdict(list)
    for call in calls:
        groups[call.direction, call.head_dim].append(call)
    fits = tuple(
        _fit_one(groups[key], kernel_name, traits, sms, _prior_for(prior, key))
        for key in sorted(groups)
    )
    return AttentionModel(
        kernel=kernel_name,
        sms=sms,
        packs_gqa=traits.packs_gqa,
        splits_keys=traits.splits_keys,
        fits=fits,
    )


def predict_us(model: AttentionModel, calls: Sequence[MeasuredCall]) -> NDArray[np.float64]:
    """Return the model's time of each call."""
    times = np.empty(len(calls))
    for i, call in enumerate(calls):
        parameters = model.parameters(
            call.q_heads,
            call.kv_heads,
            call.head_dim,
            call.direction,
            cache_write=call.cache_write,
        )
        q_lens, k_lens = call.lengths()
        splits = np.array([0, len(q_lens)], np.int64)
        times[i] = kernel.attention_us(q_lens, k_lens, splits, parameters)[0]
    return times


def cross_validate(
    table: pd.DataFrame, folds: int = 5, by: str | None = None, seed: int = 0
) -> pd.DataFrame:
    """Predict each row of a table by a fit to the rows of other folds.

    Args:
        table: of one kernel on one GPU, as `calls_from_table` takes it.
        folds: number of folds; with `by`, at most the number of its values.
        by: a column whose values are kept together, so that a whole value is predicted from
            others; None deals rows out at random.
        seed: of the deal.

    Returns:
        The table with `predicted_us` and `error` (predicted / measured - 1) added.

    Raises:
        ProfileError: fewer rows or values than folds, or an unknown column.
    """
    if by is not None and by not in table.columns:
        raise ProfileError(f"the attention table has no column {by!r} to fold by")
    values = np.arange(len(table)) if by is None else pd.factorize(table[by], sort=True)[0]
    groups = int(values.max(initial=-1)) + 1
    folds = folds if by is None else min(folds, groups)
    if folds < 2 or groups < folds:
        raise ProfileError(f"{groups} rows or values are too few for {folds} folds")
    rank_of = np.empty(groups, np.int64)
    rank_of[shuffled(groups, seed)] = np.arange(groups)
    fold_of_row = (rank_of % folds)[values]
    calls = calls_from_table(table)
    kernel_name = _only_value(table, "kernel")
    sms = _lookup(SMS, _only_value(table, "gpu"), "GPU")
    predicted = np.empty(len(table))
    for fold in range(folds):
        held = np.flatnonzero(fold_of_row == fold)
        known = np.flatnonzero(fold_of_row != fold)
        model = fit_attention([calls[i] for i in known], kernel_name=kernel_name, sms=sms)
        predicted[held] = predict_us(model, [calls[i] for i in held])
    return table.assign(predicted_us=predicted, error=predicted / table["fwd_us"] - 1)


def shuffled(count: int, seed: int) -> NDArray[np.int64]:
    """Return 0..count-1 in the order of the splitmix64 hashes of (seed, index)."""
    with np.errstate(over="ignore"):
        z = (np.arange(count, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z += np.uint64(seed) * np.uint64(0xD1342543DE82EF95)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.argsort(z ^ (z >> np.uint64(31)), kind="stable").astype(np.int64)


@dataclass(frozen=True)
class _Problem:
    """The calls of one fit, reduced to what does not depend on the coefficients."""

    names: tuple[str, ...]  # of the coefficients that are fitted; the others are 0
    features: NDArray[np.float64]  # [calls, FEATURES]
    unit: NDArray[np.float64]  # [calls, PARAMETERS] with every coefficient 1
    penalised: NDArray[np.bool_]  # [calls] whether the pack penalty applies
    log_us: NDArray[np.float64]  # [calls]

    def predict(self, logs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the logarithm of each call's time for the coefficients' logarithms."""
        c = dict(zip(self.names, np.exp(logs), strict=True))
        rows = self.unit.copy()
        for name, position in _POSITIONS.items():
            rows[:, position] *= c.get(name, 0.0)
        for position in (kernel.KV_TILE_US, kernel.QUERY_ROW_US):
            rows[self.penalised, position] *= (1 + c["pack_penalty"]) / 2
        return np.log(_combine_many(self.features, rows))


# Where in a call's parameters each coefficient stands as a factor.
_POSITIONS = {
    "launch_us": kernel.LAUNCH_US,
    "kv_tile_us": kernel.KV_TILE_US,
    "query_tile_us": kernel.QUERY_TILE_US,
    "query_row_us": kernel.QUERY_ROW_US,
    "tail": kernel.TAIL,
    "critical_scale": kernel.CRITICAL_SCALE,
    "split_us": kernel.SPLIT_US,
    "split_row_us": kernel.SPLIT_ROW_US,
    "throttle": kernel.THROTTLE,
    "throttle_after_us": kernel.THROTTLE_AFTER_US,
    "l2_mb": kernel.L2_MB,
    "row_spill_us_per_mb": kernel.ROW_SPILL_US,
    "cache_spill_us_per_mb": kernel.CACHE_SPILL_US,
    "cache_write_us": kernel.CACHE_WRITE_US,
    "empty_tile_us": kernel.EMPTY_TILE_US,
}
_UNIT = Coefficients(*(1.0 for _ in COEFFICIENTS))


def _fit_one(
    calls: list[MeasuredCall], name: str, traits: KernelTraits, sms: int, prior: Coefficients
) -> AttentionFit:
    head_dim = calls[0].head_dim
    direction: Direction = "forward" if calls[0].direction == "forward" else "backward"
    tile_q, tile_k = traits.tile(head_dim)
    names = COEFFICIENTS if traits.empty_blocks and direction == "backward" else _ALWAYS
    best, least = None, np.inf
    for rows in _CPU_ROWS if name == CPU_KERNEL else (None,):
        blank = AttentionFit(
            direction, head_dim, tile_q, tile_k, _UNIT, Source.MEASURED, None, rows
        )
        problem = _problem(calls, blank, names, name, traits, sms)
        logs = _solve(problem, _logs(prior, names), _values(PRIOR_SPREAD, names))
        errors = problem.predict(logs) - problem.log_us
        cost = float(np.log1p((errors / _TELLING) ** 2).sum())
        if cost < least:
            best, least = replace(blank, coefficients=_rounded(logs, names)), cost
    if best is None:
        raise AssertionError("there is at least one candidate")
    sampled = Sampled.of((*call.lengths(), call.q_heads, call.kv_heads) for call in calls)
    return replace(best, sampled=sampled)


def _rounded(logs: NDArray[np.float64], names: tuple[str, ...]) -> Coefficients:
    values = (float(f"{value:.5g}") for value in np.exp(logs))
    return Coefficients(**dict(zip(names, values, strict=True)))


def _problem(
    calls: list[MeasuredCall],
    blank: AttentionFit,
    names: tuple[str, ...],
    name: str,
    traits: KernelTraits,
    sms: int,
) -> _Problem:
    forward = replace(blank, direction="forward")
    fits = (blank,) if blank.direction == "forward" else (forward, blank)
    model = AttentionModel(name, sms, traits.packs_gqa, traits.splits_keys, fits)
    unit = np.stack(
        [
            model.parameters(
                call.q_heads,
                call.kv_heads,
                blank.head_dim,
                blank.direction,
                cache_write=call.cache_write,
            )
            for call in calls
        ]
    )
    lengths = [call.lengths() for call in calls]
    splits = np.concatenate([[0], np.cumsum([len(q) for q, _ in lengths])]).astype(np.int64)
    return _Problem(
        names=names,
        features=_features_many(
            np.concatenate([q for q, _ in lengths]),
            np.concatenate([k for _, k in lengths]),
            splits,
            unit,
        ),
        unit=unit,
        # With a penalty of 1 and a tile time of 1, penalised calls have tiles of 2.
        penalised=unit[:, kernel.KV_TILE_US] == 2.0,
        log_us=np.log([call.us for call in calls]),
    )


def _solve(
    problem: _Problem, prior: NDArray[np.float64], spreads: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the coefficients' logarithms of the best fit."""
    logs, damping = prior.copy(), 1e-2
    errors = problem.predict(logs) - problem.log_us
    for _ in range(_ROUNDS):
        spread = max(_LEAST_SPREAD, 1.4826 * float(np.median(np.abs(errors))))
        weights = 1.0 / (1.0 + (errors / (_CAUCHY * spread)) ** 2) / spread**2
        pulls = 1.0 / spreads**2
        slopes = np.empty((len(errors), len(logs)))
        for j in range(len(logs)):
            moved = logs.copy()
            moved[j] += _STEP
            slopes[:, j] = (problem.predict(moved) - problem.log_us - errors) / _STEP
        normal = slopes.T @ (slopes * weights[:, None]) + np.diag(pulls)
        gradient = slopes.T @ (weights * errors) + pulls * (logs - prior)
        cost = float(weights @ errors**2 + pulls @ (logs - prior) ** 2)
        while damping < 1e8:
            step = np.linalg.solve(normal + damping * np.diag(np.diag(normal)), -gradient)
            trial = logs + np.clip(step, -1.0, 1.0)
            tried = problem.predict(trial) - problem.log_us
            if float(weights @ tried**2 + pulls @ (trial - prior) ** 2) < cost:
                break
            damping *= 4.0
        else:
            return logs
        settled = float(np.abs(trial - logs).max()) < 1e-5
        logs, errors, damping = trial, tried, max(damping / 8.0, 1e-7)
        if settled:
            break
    return logs


def _prior_for(prior: AttentionModel | None, key: tuple[str, int]) -> Coefficients:
    if prior is None or not any(fit.direction == key[0] for fit in prior.fits):
        return PRIOR
    found = prior.fit(key[1], key[0])[0].coefficients
    # From before they were counted, or of a kernel that starts none: it says nothing of them.
    return replace(found, empty_tile_us=found.empty_tile_us or PRIOR.empty_tile_us)


def _values(coefficients: Coefficients, names: tuple[str, ...]) -> NDArray[np.float64]:
    return np.array([getattr(coefficients, name) for name in names])


def _logs(coefficients: Coefficients, names: tuple[str, ...]) -> NDArray[np.float64]:
    return np.log(np.maximum(_values(coefficients, names), 1e-6))


def _only_value(table: pd.DataFrame, column: str) -> str:
    if column not in table.columns:
        raise ProfileError(f"the attention table has no column {column!r}")
    values = table[column].unique().tolist()
    if len(values) != 1:
        raise ProfileError(f"the attention table holds {len(values)} {column}s: {values}; take one")
    return str(values[0])


def _lookup(known: dict[str, _T], name: str, what: str) -> _T:
    if name not in known:
        raise ProfileError(f"{what} {name!r} is not known; known: {', '.join(known)}")
    return known[name]


@jit
def _features_many(
    q_lens: NDArray[np.int64],
    k_lens: NDArray[np.int64],
    splits: NDArray[np.int64],
    parameters: NDArray[np.float64],
) -> NDArray[np.float64]:
    features = np.zeros((len(splits) - 1, kernel.FEATURES), np.float64)
    for call in range(len(splits) - 1):
        for i in range(splits[call], splits[call + 1]):
            a, b, c, d, e, g = kernel.segment_features(q_lens[i], k_lens[i], parameters[call])
            features[call, 0] += a
            features[call, 1] += b
            features[call, 2] += c
            features[call, 3] = max(features[call, 3], d)
            features[call, 4] = max(features[call, 4], e)
            features[call, 5] += g
    return features


@jit
def _combine_many(
    features: NDArray[np.float64], parameters: NDArray[np.float64]
) -> NDArray[np.float64]:
    times = np.empty(len(features), np.float64)
    for i in range(len(features)):
        f = features[i]
        times[i] = kernel.combine(f[0], f[1], f[2], f[3], f[4], f[5], parameters[i])
    return times

"""Measures how far predictions are from measured points that the fit has not seen.

For every bundled GPU and each part of its profile, with deterministic folds:

- inside the sampled range: attention calls are dealt into five folds, then their sequence lengths
  are; of collectives one size at a time is left out of every group, and the middle group size is
  predicted from the others;
- outside: the two longest sequence lengths, the two largest messages and the largest group are
  predicted from everything below them.

Errors are relative and reported signed (bias) and absolute (mean, p50, p90, worst), by bucket.
In-sample errors are not reported anywhere: they say nothing about predictions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from costmodel.attention_calls import calls_from_table
from costmodel.errors import ProfileError
from costmodel.fit_attention import cross_validate, fit_attention, predict_us
from costmodel.fit_collectives import fit_collectives
from costmodel.held_out import HeldOutError
from costmodel.names import nearest
from costmodel.tables import attention_table, collective_table

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

    from costmodel.collectives import CollectiveModel

FOLDS = 5
LARGE_BYTES = 65536
"""Messages above this size are what the accuracy target of collectives speaks of."""

SIZE_BUCKETS = (
    ("to 64 KB", 0, LARGE_BYTES + 1),
    ("above 64 KB", LARGE_BYTES + 1, np.inf),
    ("128 KB..512 KB", 2**17, 2**20),
    ("1 MB..8 MB", 2**20, 2**24),
    ("16 MB..64 MB", 2**24, 2**27),
    ("128 MB and more", 2**27, np.inf),
)
LENGTH_BUCKETS = (
    ("below 64 tokens", 0, 64),
    ("from 64 tokens", 64, np.inf),
    ("64..511 tokens", 64, 512),
    ("512..2047 tokens", 512, 2048),
    ("2048..8191 tokens", 2048, 8192),
    ("from 8192 tokens", 8192, np.inf),
)


def validate(gpu: str) -> list[HeldOutError]:
    """Return the held-out errors of one bundled GPU's models; takes a few seconds.

    Raises:
        ProfileError: there are no measured tables of that GPU.
    """
    return [*validate_attention(gpu), *validate_collectives(gpu)]


def require_table(gpu: str) -> None:
    """Raise ProfileError unless there are measured tables of `gpu`."""
    _rows(collective_table(), gpu)


def validate_attention(gpu: str) -> list[HeldOutError]:
    """Return the errors of the attention model, by head size and sequence length."""
    table = _rows(attention_table(), gpu)
    lengths = sorted(table["seq_len"].unique())
    beyond = table["seq_len"] >= lengths[-2]
    ends = f"sequences from {lengths[-2]} tokens left out"
    model = fit_attention(table[~beyond].reset_index(drop=True))
    held = table[beyond].reset_index(drop=True)
    extrapolated = held.assign(error=predict_us(model, calls_from_table(held)) / held["fwd_us"] - 1)
    by_length = cross_validate(table, FOLDS, by="seq_len")
    between = by_length["seq_len"].between(lengths[1], lengths[-2])
    results = []
    for rows, method, inside in (
        (cross_validate(table, FOLDS), f"{FOLDS} folds of the calls", True),
        (by_length[between], f"{FOLDS} folds of the sequence lengths", True),
        (extrapolated, ends, False),
    ):
        for head_dim, part in rows.groupby("head_dim"):
            results += by_bucket(
                part["error"].to_numpy(np.float64),
                part["seq_len"].to_numpy(np.float64),
                LENGTH_BUCKETS,
                what=f"attention forward, head size {int(str(head_dim))}",
                method=method,
                inside=inside,
            )
    return results


def validate_collectives(gpu: str) -> list[HeldOutError]:
    """Return the errors of the collective model, by collective and size, then by group size."""
    table = _rows(collective_table(), gpu)
    sizes = sorted(table["bytes"].unique())
    groups = sorted(table["num_gpus"].unique())
    between = [table["bytes"] == size for size in sizes[1:-1]]
    tests = [
        (
            np.concatenate([np.flatnonzero(mask) for mask in between]),
            np.concatenate([_predict_left_out(table, mask) for mask in between]),
            "one size left out at a time",
            True,
        )
    ]
    for mask, method, inside in (
        (table["bytes"] == sizes[-1], "the largest size left out", False),
        (table["bytes"] >= sizes[-2], "the two largest sizes left out", False),
        (table["num_gpus"] == groups[len(groups) // 2], "the middle group size left out", True),
        (table["num_gpus"] == groups[-1], "the largest group left out", False),
    ):
        tests.append((np.flatnonzero(mask), _predict_left_out(table, mask), method, inside))
    results = []
    for rows, errors, method, inside in tests:
        part = table.iloc[rows]
        message = part["bytes"].to_numpy(np.float64)
        for name in (None, *sorted(part["collective"].unique())):
            chosen = np.ones(len(part), bool) if name is None else part["collective"] == name
            results += by_bucket(
                errors[chosen],
                message[chosen],
                SIZE_BUCKETS,
                what=name or "all collectives",
                method=method,
                inside=inside,
            )
    return results


def fit_collective_table(table: pd.DataFrame) -> CollectiveModel:
    """Fit the collectives of one GPU's table (columns of `tables.COLLECTIVE_COLUMNS`)."""
    columns = ("collective", "num_gpus", "bytes", "us")
    return fit_collectives(zip(*(table[name].tolist() for name in columns), strict=True))


def _predict_left_out(table: pd.DataFrame, left_out: pd.Series[bool]) -> NDArray[np.float64]:
    model = fit_collective_table(table[~left_out])
    held = table[left_out]
    predicted = [
        model.estimate(name, float(size), int(ranks)).us
        for name, size, ranks in zip(
            held["collective"], held["bytes"], held["num_gpus"], strict=True
        )
    ]
    return _relative(predicted, held["us"])


def _relative(predicted: ArrayLike, measured: pd.Series[float]) -> NDArray[np.float64]:
    return np.asarray(predicted, np.float64) / measured.to_numpy(np.float64) - 1


def by_bucket(
    errors: NDArray[np.float64],
    sizes: NDArray[np.float64],
    buckets: tuple[tuple[str, float, float], ...],
    *,
    what: str,
    method: str,
    inside: bool,
) -> list[HeldOutError]:
    """Sum up signed errors, [points], of all points and of those whose size is in each bucket."""
    results = []
    for bucket, low, high in (("all", -np.inf, np.inf), *buckets):
        chosen = (sizes >= low) & (sizes < high)
        if chosen.any():
            results.append(
                HeldOutError.of(
                    errors[chosen], what=what, method=method, inside=inside, bucket=bucket
                )
            )
    return results


def _rows(table: pd.DataFrame, gpu: str) -> pd.DataFrame:
    known = sorted(table["gpu"].unique())
    if gpu not in known:
        raise ProfileError(f"there are no measured tables of {gpu!r}; {nearest(gpu, known)}")
    return table[table["gpu"] == gpu].reset_index(drop=True)

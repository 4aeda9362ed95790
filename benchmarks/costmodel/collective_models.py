"""Compares ways of predicting a collective at a size that was not measured.

    python benchmarks/costmodel/collective_models.py

One size at a time (neither the smallest nor the largest) is left out of every bundled (GPU,
collective, group size); each way is fitted to the rest and predicts it. Results and what they led
to: docs/research/collective-model.md.
"""

import math
from bisect import bisect_right
from collections.abc import Callable

import numpy as np
import pandas as pd

from costmodel.collectives import CollectiveCurve
from costmodel.fit_collectives import fit_collectives
from costmodel.tables import collective_table

Predictor = Callable[[CollectiveCurve, float], float]
TANGENT_SHARE = 0.5


def one_curve(curve: CollectiveCurve, size: float) -> float:
    """Return alpha + beta * S + gamma * sqrt(S) over all sizes."""
    return curve.fit_us(size)


def log_line(curve: CollectiveCurve, size: float) -> float:
    """Return the straight line between neighbours in logarithms of size and time."""
    logs = np.log(curve.sizes_bytes), np.log(curve.times_us)
    return math.exp(np.interp(math.log(size), *logs))


def corrected(curve: CollectiveCurve, size: float) -> float:
    """Return the one curve times its error, a line between neighbours over log size."""
    fit = np.array([curve.fit_us(known) for known in curve.sizes_bytes])
    errors = np.log(np.array(curve.times_us) / fit)
    return curve.fit_us(size) * math.exp(
        np.interp(math.log(size), np.log(curve.sizes_bytes), errors)
    )


def line(curve: CollectiveCurve, size: float) -> float:
    """Return the straight line between neighbours: what the package does."""
    return curve.us(size)


def tangents(curve: CollectiveCurve, size: float) -> float:
    """Return the line, moved half-way to the neighbouring lines' extensions where both agree."""
    sizes, times = curve.sizes_bytes, curve.times_us
    i = bisect_right(sizes, size)
    slopes = np.diff(times) / np.diff(sizes)
    chord = curve.us(size)
    left = times[i - 1] + slopes[max(i - 2, 0)] * (size - sizes[i - 1])
    right = times[i] - slopes[min(i, len(slopes) - 1)] * (sizes[i] - size)
    bend = min(left, right) if min(left, right) > chord else max(left, right)
    agree = (left - chord) * (right - chord) > 0
    return float(chord + TANGENT_SHARE * (bend - chord) if agree else chord)


WAYS: dict[str, Predictor] = {
    "alpha + beta S + gamma sqrt(S)": one_curve,
    "lines in log-log": log_line,
    "the curve x interpolated error": corrected,
    "lines (the package's)": line,
    "lines bent towards tangents": tangents,
}


def main() -> None:
    """Print the mean error of every way, above 64 KB and up to it."""
    columns = ["collective", "num_gpus", "bytes", "us"]
    rows = []
    for gpu, table in collective_table().groupby("gpu"):
        for size in sorted(table["bytes"].unique())[1:-1]:
            left_out = table["bytes"] == size
            kept = table.loc[~left_out, columns].itertuples(index=False, name=None)
            model = fit_collectives(kept)
            for row in table[left_out].itertuples():
                curve = model.curve(row.collective, row.num_gpus)
                assert curve is not None  # noqa: S101 - every group has other sizes
                for way, predict in WAYS.items():
                    error = predict(curve, float(size)) / row.us - 1
                    rows.append((gpu, row.collective, size > 65536, way, error))
    errors = pd.DataFrame(rows, columns=["gpu", "collective", "large", "way", "error"])
    for way, part in errors.groupby("way", sort=False):
        large = part[part["large"]]
        by = large.groupby("collective")["error"].apply(lambda e: e.abs().mean())
        named = ", ".join(f"{name} {value:.1%}" for name, value in by.items())
        print(
            f"{way:34} above 64 KB {large['error'].abs().mean():6.2%}"
            f" (bias {large['error'].mean():+.1%}; {named});"
            f" to 64 KB {part.loc[~part['large'], 'error'].abs().mean():.1%}"
        )


if __name__ == "__main__":
    main()

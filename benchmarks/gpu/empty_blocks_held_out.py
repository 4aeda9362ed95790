"""Whether a time of empty blocks mends predictions: python empty_blocks_held_out.py FOLDER FOLDER.

Folders are what run_all.sh saved. Every plan as executed, of every strategy, is predicted again
with the folder's own profile but for backward attention, whose `empty_tile_us` is

- none, as the runs were predicted;
- fitted to the other folder's runs, so that no run predicts itself: the one time of a block of 128
  keys that makes its ranks' backward least wrong, all else left as calibrated;
- fitted by `costmodel.calibrated` to the folder's calibrated calls, with all other coefficients
  fitted anew beside it; no run is used. For comparison, the same refit without the term.

Printed are the mean and 90th percentile of each rank's error, of backward and of everything; what
the calibrated calls alone say of the time; and what the model says that attending to each rank's
segments in two calls, cut at the best length, would save: of a fused plan the call over all keys,
of an overlapping one each of its two calls.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from runs import runs_of

from costmodel import load_profile
from costmodel.attention_kernel import EMPTY_TILE_US, attention_us
from costmodel.calibrated import fit_points, of, traits_of
from costmodel.calibrated_points import AttentionPoint
from executor.report import predicted_ranks
from flashcp.exchange import Exchange, waiting_segments
from flashcp.prediction import predict

BLOCK = 128  # keys
TIMES = np.arange(0.0, 2.0, 0.02)  # us of a block
PARTS = ("backward", "total")
MOST_CUTS = 24  # lengths at which a call is tried to be cut


def with_attention(runs, attention):
    """Return the same runs predicted with another model of attention."""
    return [
        (name, plan, replace(setting, profile=replace(setting.profile, attention=attention)), ranks)
        for name, plan, setting, ranks in runs
    ]


def with_block_us(attention, block_us):
    """Return the model with this time of an empty block of 128 keys in backward."""
    fits = tuple(
        replace(
            fit,
            coefficients=replace(fit.coefficients, empty_tile_us=block_us * fit.tile_k / BLOCK),
        )
        if fit.direction == "backward"
        else fit
        for fit in attention.fits
    )
    return replace(attention, fits=fits)


def errors(runs):
    """Return each rank's relative error, [parts, ranks]."""
    columns = []
    for _, plan, setting, ranks in runs:
        for predicted, rank in zip(predicted_ranks(predict(plan, setting)), ranks, strict=True):
            measured = rank["measured_us"]
            columns.append([predicted[part] / measured[part] - 1 for part in PARTS])
    return np.array(columns).T


def fitted_to_runs(runs):
    """Return the time of a block that makes the ranks' backward least wrong in the mean."""
    attention = runs[0][2].profile.attention
    ends = [
        errors(with_attention(runs, with_block_us(attention, us)))[0] + 1 for us in (0.0, TIMES[-1])
    ]
    # Backward rises with the time of a block in proportion, but for the clock.
    line = [np.abs(ends[0] + (ends[1] - ends[0]) * us / TIMES[-1] - 1).mean() for us in TIMES]
    return float(TIMES[np.argmin(line)])


def said(name, off):
    """Return a line of errors."""
    parts = (
        f"{part} {np.abs(row).mean():5.1%} (p90 {np.quantile(np.abs(row), 0.9):5.1%}, "
        f"bias {row.mean():+5.1%})"
        for part, row in zip(PARTS, off, strict=True)
    )
    return f"  {name:34} {', '.join(parts)}"


def block_us(attention):
    """Return the time of a block of 128 keys, as text, by head size."""
    return ", ".join(
        f"{fit.coefficients.empty_tile_us * BLOCK / fit.tile_k:.2f} at head size {fit.head_dim}"
        for fit in attention.fits
        if fit.direction == "backward"
    )


def refitted(profile, *, counted):
    """Return the profile's attention, fitted to its calls again; with the term or without."""
    kernel = profile.attention.kernel
    traits = replace(traits_of(kernel), empty_blocks=counted)
    points = of(profile.points, AttentionPoint)
    return fit_points(points, kernel, profile.attention.sms, traits)


def calls(plan):
    """Yield queries, keys and mask of each call of a plan that is no ring, and its splits."""
    keys = plan.stop.astype(np.int64)
    queries = keys - plan.start
    if not plan.overlap:
        yield queries, keys, True, plan.rank_splits
        return
    yield queries, queries, True, plan.rank_splits
    q_lens, k_lens, splits = waiting_segments(plan.start, plan.stop, plan.rank_splits)
    yield q_lens, k_lens, False, splits


def saved_by_two_calls(plan, setting):
    """Return backward of the slowest rank's calls, and what cutting them in two leaves of it."""
    before, after = np.zeros(plan.cp), np.zeros(plan.cp)
    for queries, keys, causal, splits in calls(plan):
        parameters = setting.attention_parameters("backward", causal=causal)
        for rank in range(plan.cp):
            mine = slice(splits[rank], splits[rank + 1])
            q, k = queries[mine], keys[mine]
            whole = one_call(q, k, parameters)
            edges = np.quantile(k, np.linspace(0, 1, MOST_CUTS)) if k.size else ()
            cut = [
                one_call(q[k <= edge], k[k <= edge], parameters)
                + one_call(q[k > edge], k[k > edge], parameters)
                for edge in np.unique(edges)
            ]
            before[rank] += whole
            after[rank] += min([whole, *cut])
    return before.max(), after.max()


def one_call(queries, keys, parameters):
    """Return the time of one call."""
    splits = np.array([0, queries.size], np.int64)
    return float(attention_us(queries, keys, splits, parameters)[0])


def main(folders):
    """Print both folders."""
    profiles = [load_profile(str(folder / "profile.json")) for folder in folders]
    runs = [list(runs_of(*pair)) for pair in zip(folders, profiles, strict=True)]
    found_us = [fitted_to_runs(one) for one in runs]
    for i, folder in enumerate(folders):
        attention, other_us = profiles[i].attention, found_us[1 - i]
        again = refitted(profiles[i], counted=True)
        tries = {
            "as predicted": attention,
            f"other folder's runs, {other_us:.2f} us": with_block_us(attention, other_us),
            "own calls again, not counted": refitted(profiles[i], counted=False),
            "own calls again, counted": again,
        }
        ranks = sum(plan.cp for _, plan, _, _ in runs[i])
        print(f"{folder.name}: {len(runs[i])} plans, {ranks} ranks")
        for name, model in tries.items():
            print(said(name, errors(with_attention(runs[i], model))))
        autos = [run for run in runs[i] if run[1].strategy == "auto"]
        for name in ("as predicted", "own calls again, counted"):
            print(said(f"auto alone, {name}", errors(with_attention(autos, tries[name]))))
        print(f"  calibrated calls say, us a block: {block_us(again)}")
        for name, plan, setting, _ in with_attention(runs[i], again):
            if plan.exchange is not Exchange.RING:
                before, after = saved_by_two_calls(plan, setting)
                empty = setting.attention_parameters("backward")[EMPTY_TILE_US]
                if empty and 1 - after / before > 0.005:
                    print(f"  two calls, {name} {plan.strategy}: -{1 - after / before:.1%}")


if __name__ == "__main__":
    main([Path(one) for one in sys.argv[1:3]])

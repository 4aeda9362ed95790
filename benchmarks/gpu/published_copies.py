"""What copies a shard take: python published_copies.py FOLDER FOLDER, two folders of run_all.sh.

A profile that calibrated no `copies.queue_us` predicts published copies by the paper's cost of a
shard. Here they are predicted from the calls and bytes that `executor.published` makes
(`flashcp.copied_by_shard`) and the profile's own memory, with the host's time of a call fitted to
the other folder's runs, so that no run predicts itself. Printed are errors of the copies and of the
totals of every rank, before and after, and the share of pieces that wait for the host; then how
many times as fast `auto` was as each baseline, and would be if no copy waited for the host, as
where other layers' work is queued ahead.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from runs import runs_of

from costmodel import load_profile
from costmodel.estimate import Source
from costmodel.figure import Figure
from flashcp.copied_by_shard import shard_copies

HOST_US = np.arange(3.0, 25.0, 0.1)


def copies_us(plan, setting, host_us):
    """Return each rank's copies, [4 pieces, ranks], and whether each waits for the host."""
    queue = Figure(host_us, Source.MEASURED, "fitted to the other folder")
    model = replace(setting.profile.copies, queue_us=queue)
    found = shard_copies(plan, setting.model.dtype_bytes)
    moved = found.tokens * setting.model.kv_bytes_per_token
    us = model.queued_us(moved, found.calls, host_copies=False)
    return us, us > 2 * moved / model.memory_bytes_per_us


def fitted(runs):
    """Return the host's time of a call that explains these runs' copies best."""

    def off(host_us):
        errors = [
            np.log(copies_us(plan, setting, host_us)[0].sum(axis=0) / measured(ranks, "copies"))
            for _, plan, setting, ranks in runs
        ]
        return np.abs(np.concatenate(errors)).mean()

    return float(HOST_US[np.argmin([off(us) for us in HOST_US])])


def measured(ranks, part):
    """Return what a part took on each rank."""
    return np.array([rank["measured_us"][part] for rank in ranks])


def main(folders):
    """Print a line for each folder, predicted with the other's."""
    profiles = [load_profile(str(folder / "profile.json")) for folder in folders]
    runs = [list(runs_of(*pair, published=True)) for pair in zip(folders, profiles, strict=True)]
    for mine, other, folder in zip(runs, reversed(runs), folders, strict=True):
        host_us = fitted(other)
        rows, waiting = [], []
        for _, plan, setting, ranks in mine:
            pieces, waits = copies_us(plan, setting, host_us)
            copies, total = measured(ranks, "copies"), measured(ranks, "total")
            before = np.array([rank["predicted_us"]["copies"] for rank in ranks])
            whole = np.array([rank["predicted_us"]["total"] for rank in ranks])
            after = pieces.sum(axis=0)
            totals = whole / total, (whole - before + after) / total
            rows.append([before / copies - 1, after / copies - 1, *(x - 1 for x in totals)])
            waiting.append((pieces * waits).sum() / pieces.sum())
        off = np.abs(np.concatenate(rows, axis=1))
        means, p90s = off.mean(axis=1), np.quantile(off, 0.9, axis=1)
        said = [f"{mean:.1%} (p90 {p90:.1%})" for mean, p90 in zip(means, p90s, strict=True)]
        print(
            f"{folder.name}: {off.shape[1]} ranks, {host_us:.1f} us a call; "
            f"copies off by {said[0]} before, {said[1]} after; totals {said[2]}, {said[3]}; "
            f"{np.mean(waiting):.0%} of the copies' time waits for the host"
        )
    for mine, folder in zip(runs, folders, strict=True):
        for name, plan, setting, ranks in mine:
            auto = json.loads((folder / f"{name}.run.json").read_text())["plans"]["auto"]
            total = measured(ranks, "total")
            ahead = total - measured(ranks, "copies") + copies_us(plan, setting, 0.0)[0].sum(axis=0)
            speed_ups = (
                min(times.max(), total.max()) / auto["measured_us"] for times in (total, ahead)
            )
            print(f"{name} {plan.strategy}: " + ", ".join(f"{x:.2f}x" for x in speed_ups))


if __name__ == "__main__":
    main([Path(one) for one in sys.argv[1:3]])

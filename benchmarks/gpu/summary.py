"""Prints a short table of the results that run_all.sh saved: python summary.py FOLDER.

One line a run and strategy; then, for each pack, how much faster `auto` was than the baselines with
their published copies; then the errors of predictions, of those copies apart. Files that are
missing or damaged are named and passed over, so that there always is a table.
"""

import json
import sys
from pathlib import Path

import numpy as np

PUBLISHED = "-published"  # ends the names of runs whose baselines copy shard by shard
COLUMNS = (
    f"{'run':32} {'strategy':9} {'measured ms':>11} {'predicted ms':>12} {'error':>8} "
    f"{'copies':>7} {'imbalance':>9}  checks"
)


def main(folder: Path) -> None:
    """Print the table."""
    print("\n".join(steps(folder)))
    print(f"\n{COLUMNS}")
    runs = {}
    for path in sorted(folder.glob("*.run.json")) + sorted(folder.glob("*.nccl.json")):
        name = path.name.split(".")[0]
        try:
            document = json.loads(path.read_text())
            print("\n".join(lines(name, document)))
        except (ValueError, KeyError, TypeError) as error:
            print(f"{name:32} cannot be read: {type(error).__name__} {error}")
            continue
        if path.name.endswith(".run.json"):
            runs[name] = document["plans"]
    if not runs:
        print("no emulated run was finished")
    print("\n".join(["", *against_published(runs), *errors(runs), *bare(folder)]))


def steps(folder: Path) -> list[str]:
    """Return the GPU, the steps that failed, and those that were left out."""
    path = folder / "steps.txt"
    said = path.read_text().splitlines() if path.exists() else []
    late = [line.split(":")[0] for line in said if ": left out" in line]
    found = [line for line in said if ": done" not in line and ": left out" not in line]
    return found + ([f"left out for want of time: {', '.join(late)}"] if late else [])


def lines(name: str, document: dict) -> list[str]:
    """Return a line a strategy."""
    found = []
    for strategy, one in document["plans"].items():
        error = f"{one['errors']['slowest rank']:+8.1%}" if one["errors"] else "       -"
        checked = "none" if one["verification"] is None else "passed" if one["passed"] else "FAILED"
        found.append(
            f"{name:32} {strategy:9} {one['measured_us'] / 1000:11.2f} "
            f"{one['predicted_us'] / 1000:12.2f} {error} {copies(one):7.1%} "
            f"{one['attention_imbalance']['measured']:9.3f}  {checked}"
        )
    return found + [f"{name:32} {other:9} {why}" for other, why in document["skipped"].items()]


def copies(one: dict) -> float:
    """Return copies and merges over attention, of the rank with most."""
    return max(
        (rank["measured_us"]["copies"] + rank["measured_us"]["merge"])
        / max(rank["measured_us"]["forward"] + rank["measured_us"]["backward"], 1e-9)
        for rank in one["ranks"]
    )


def against_published(runs: dict) -> list[str]:
    """Return how many times as long the published baselines take as auto, by pack."""
    found = []
    for name, plans in runs.items():
        published = runs.get(f"{name}{PUBLISHED}")
        if published is None or "auto" not in plans:
            continue
        auto = plans["auto"]["measured_us"]
        ratios = (
            f"{strategy} {one['measured_us'] / auto:.2f}x" for strategy, one in published.items()
        )
        found.append(f"auto against published copies, {name}: {', '.join(ratios)}")
    return found


def errors(runs: dict) -> list[str]:
    """Return the errors of predictions: as plans are executed, of auto, with published copies."""
    published = {name: plans for name, plans in runs.items() if name.endswith(PUBLISHED)}
    executed = {name: plans for name, plans in runs.items() if name not in published}
    autos = {name: {"auto": plans["auto"]} for name, plans in executed.items() if "auto" in plans}
    found = []
    for what, some in (
        ("plans as executed", executed),
        ("auto alone", autos),
        ("published copies", published),
    ):
        held = [one["errors"] for plans in some.values() for one in plans.values()]
        held = [one for one in held if one]
        if not held:
            continue
        slowest = [abs(one["slowest rank"]) for one in held]
        ranks = [abs(rank["total"]) for one in held for rank in one["ranks"]]
        found.append(
            f"predicted against measured, {what}: mean {np.mean(slowest):.1%} of the slowest "
            f"rank; per rank mean {np.mean(ranks):.1%}, p90 {np.quantile(ranks, 0.9):.1%}"
        )
    return found


def bare(folder: Path) -> list[str]:
    """Return how near the executor's attention came to the kernel alone."""
    path = folder / "bare-attention.json"
    if not path.exists():
        return []
    document = json.loads(path.read_text())
    ratios = [row["ratio"] for row in document["rows"]]
    line = (
        f"{document['kernel']}: bare call's time over the executor's attention, forward: mean "
        f"{np.mean(ratios):.3f}, least {np.min(ratios):.3f}"
    )
    return [line]


if __name__ == "__main__":
    main(Path(sys.argv[1]))

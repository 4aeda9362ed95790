"""What is left of the exchange, copies and merges beside attention, where plans overlap.

    python benchmarks/executor/overlap.py PLANS.parquet [REPETITIONS]

Two packs of 16k tokens of WLB-LLM lengths, 4 gloo ranks, 8:2 heads of 64, float32. PLANS is made if
it is not there: `auto`, and the shards of `flashcp` and `per-doc`, each with a needed-only exchange
that overlaps. Run it in turn from two checkouts on one file to hold two executors against each
other: `PYTHONPATH=CHECKOUT python .../overlap.py PLANS.parquet`, from the checkout's root.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

import executor
import flashcp
from costmodel import ModelShape, load_profile
from executor.job import Job, Options
from executor.launch import launch
from flashcp.exchange import Exchange
from flashcp.plan_file import Header, PlanFile, load_plans, save_plans
from flashcp.prediction import Setting

NAMES = ("auto", "flashcp", "per-doc")
MODEL = ModelShape(name="8:2 of 64", q_heads=8, kv_heads=2, head_dim=64, dtype="float32")
CP, PACKS = 4, 2


def main(path: Path, repetitions: int) -> None:
    """Print a line a plan."""
    if not path.exists():
        make(path)
    plans = load_plans(path).plans
    names = tuple(f"{name}, pack {pack}" for pack in range(PACKS) for name in NAMES)
    options = {"warmups": 1, "repetitions": repetitions, "verify": False}
    job = Job(
        names=names,
        plans=tuple(plans),
        model=MODEL,
        options=Options(dtype="float32", device="cpu", **options),
    )
    print(Path(executor.__file__).parent)
    print("| plan | sent MiB | slowest / mean | copies | merges | exchange waited for, most | ms |")
    print("|---|---|---|---|---|---|---|")
    for name, rows in launch(job)["plans"].items():
        attention = of(rows, "forward", "backward")
        copies, merges, waited = (
            of(rows, part) / attention.sum() for part in ("copies", "merge", "exchange")
        )
        totals = np.max([np.add(row["forward_us"], row["backward_us"]) for row in rows], axis=0)
        print(
            f"| {name} | {sum(row['sent_bytes'] for row in rows) / 2**20:.1f} "
            f"| {attention.max() / attention.mean():.3f} | {copies.sum():.2%} "
            f"| {merges.sum():.2%} | {waited.max() * CP:.2%} | {np.median(totals) / 1e3:.0f} |"
        )


def make(path: Path) -> None:
    """Save the plans of both packs."""
    setting = Setting(profile=load_profile("h100-sxm"), model=MODEL, copies="in-place")
    packing = flashcp.pack(flashcp.load_trace("wlb-llm"), 16384, packs=PACKS)
    way = {"exchange": Exchange.ALL_TO_ALL_NEEDED, "overlap": True, "ranks_per_node": None}
    lengths = [packing.document_lengths(pack) for pack in range(PACKS)]
    plans = [
        replace(flashcp.plan(one, CP, name, setting), **way) for one in lengths for name in NAMES
    ]
    header = Header(
        strategy="auto", cp=CP, context_tokens=16384, model=MODEL.to_json(), hardware="h100-sxm",
        trace="wlb-llm", trace_fingerprint="", program_version="",
    )  # fmt: skip
    rows = [np.arange(plan.lengths.size) for plan in plans]
    offsets = [np.zeros_like(one) for one in rows]
    save_plans(path, PlanFile(header=header, plans=plans, rows=rows, offsets=offsets))


def of(rows: list[dict], *parts: str) -> np.ndarray:
    """Return each rank's median microseconds of parts of both directions together, [ranks]."""
    times = [
        np.sum([row["parts"][d][part] for d in ("forward", "backward") for part in parts], axis=0)
        for row in rows
    ]
    return np.median(times, axis=1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 3)

"""What each rank spends on copies beside its attention, on real gloo ranks.

    python benchmarks/executor/copies.py [PACK] [COPIES] [STRATEGY,...]

One pack of 16k tokens of WLB-LLM lengths, 4 ranks, 8:2 heads of 64, float32; medians of 5 after 1.
COPIES is in-place or published (`flashcp run --copies`).
"""

import sys

import numpy as np

import flashcp
from costmodel import ModelShape, load_profile
from executor.job import Job, Options
from executor.launch import launch
from flashcp.prediction import Setting

MODEL = ModelShape(name="8:2 of 64", q_heads=8, kv_heads=2, head_dim=64, dtype="float32")
CP = 4


def main(pack: int, copies: str, names: tuple[str, ...]) -> None:
    """Print a line a strategy."""
    setting = Setting(profile=load_profile("h100-sxm"), model=MODEL, copies="in-place")
    packing = flashcp.pack(flashcp.load_trace("wlb-llm"), 16384, packs=pack + 1)
    lengths = packing.document_lengths(pack)
    job = Job(
        names=names,
        plans=tuple(flashcp.plan(lengths, CP, name, setting) for name in names),
        model=MODEL,
        options=Options(
            dtype="float32", device="cpu", warmups=1, repetitions=5, verify=False, copies=copies
        ),
    )
    print("| strategy | copies | ms of each rank | of its attention, most | mean |")
    print("|---|---|---|---|---|")
    for name, rows in launch(job)["plans"].items():
        spent = np.array([part(row, ("copies",), ("copies",)) for row in rows])
        attention = np.array([part(row, ("forward",), ("backward",)) for row in rows])
        print(
            f"| {name} | {copies} | {', '.join(f'{us / 1000:.1f}' for us in spent)} "
            f"| {(spent / attention).max():.2%} | {spent.sum() / attention.sum():.2%} |"
        )


def part(row: dict, forward: tuple[str, ...], backward: tuple[str, ...]) -> float:
    """Return the median microseconds of parts of both directions together."""
    parts = row["parts"]
    times = [parts["forward"][one] for one in forward] + [
        parts["backward"][one] for one in backward
    ]
    return float(np.median(np.sum(times, axis=0)))


if __name__ == "__main__":
    words = sys.argv[1:]
    main(
        int(words[0]) if words else 0,
        words[1] if len(words) > 1 else "in-place",
        tuple(words[2].split(",")) if len(words) > 2 else ("per-seq", "per-doc", "flashcp", "auto"),
    )

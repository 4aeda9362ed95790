"""Bytes sent and balance of real gloo ranks, against what was planned.

    python benchmarks/executor/gloo_ranks.py [PACKS]

The first packs of 16k tokens of WLB-LLM lengths, 4 ranks, 8:2 heads of 64, float32. Every send is
counted from the tensors handed to the process group; attention is each rank's own kernels, forward
and backward, median of 5 after 1. Also what the host spends: making a plan ready for one rank, once
a plan, and what one call of `attention` adds around its kernels.
"""

import sys
import time
from importlib.metadata import version

import numpy as np

import flashcp
from costmodel import ModelShape, load_profile
from executor.handle import prepare
from executor.job import Job, Options
from executor.launch import launch
from executor.report import report
from flashcp.prediction import Setting

NAMES = ("ring", "zigzag", "per-seq", "per-doc", "flashcp", "auto")
MODEL = ModelShape(name="8:2 of 64", q_heads=8, kv_heads=2, head_dim=64, dtype="float32")
CP = 4


def main(packs: int) -> None:
    """Print one table a pack, then the cost of preparing plans."""
    setting = Setting(profile=load_profile("h100-sxm"), model=MODEL, copies="in-place")
    packing = flashcp.pack(flashcp.load_trace("wlb-llm"), 16384, packs=packs)
    for index in range(packs):
        lengths = packing.document_lengths(index)
        job = Job(
            names=NAMES,
            plans=tuple(flashcp.plan(lengths, CP, name, setting) for name in NAMES),
            model=MODEL,
            options=Options(dtype="float32", device="cpu", warmups=1, repetitions=5),
        )
        found = report(job, launch(job), setting)
        if index == 0:
            where = found["environment"]
            print(f"{where['date']}, {where['device']}, torch {where['torch']}, {where['backend']}")
            print(f"flashcp {version('flashcp')}, kernel {where['attention_kernel']}\n")
        print(f"pack {index}: {len(lengths)} documents {lengths.tolist()}\n")
        print(
            "| strategy | sent MiB | planned MiB | attention, slowest / mean | measured ms | err |"
        )
        print("|---|---|---|---|---|---|")
        for name, one in found["plans"].items():
            sent, planned = (
                sum(rank[key] for rank in one["ranks"]) / 2**20
                for key in ("sent_bytes", "planned_bytes")
            )
            error = max(one["verification"]["errors"].values())
            print(
                f"| {name} | {sent:.1f} | {planned:.1f} "
                f"| {one['attention_imbalance']['measured']:.3f} "
                f"| {one['measured_us'] / 1000:.0f} | {error:.1e} |"
            )
        print()
    preparing(setting)


def preparing(setting: Setting) -> None:
    """Print how long one rank takes to make a plan of 128k tokens at CP 8 ready."""
    for trace in ("wlb-llm", "code"):
        lengths = flashcp.pack(flashcp.load_trace(trace), 131072, packs=1).document_lengths(0)
        for name in ("per-doc", "flashcp", "auto", "zigzag"):
            plan = flashcp.plan(lengths, 8, name, setting)
            times = []
            for _ in range(5):
                began = time.perf_counter()
                prepare(plan, 3)
                times.append(time.perf_counter() - began)
            # The first also orders the shards of all ranks, which the others find done.
            print(
                f"prepare, {trace} ({len(lengths)} documents), {name}, {plan.shards} shards: "
                f"first {times[0] * 1e3:.1f} ms, then {np.median(times[1:]) * 1e3:.1f} ms"
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)

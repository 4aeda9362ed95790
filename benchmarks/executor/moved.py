"""Bytes that copies and merges move beside attention, counted operator by operator; see README.md.

For `auto`'s plans of 128k packs on eight H100s: what the executor moves by one-pass kernels and by
torch's operators, and what predictions count, as shares of the predicted attention. Nothing is
timed: bytes are turned into time at the profile's copy rate. Run from the repository's root:
python benchmarks/executor/moved.py MODEL [PACKS]
"""

import sys
from collections import Counter

import pytest

from costmodel.model_shape import load_model
from costmodel.profile_file import load_profile
from flashcp.auto import auto_plan
from flashcp.plan_costs import PlanCosts
from flashcp.prediction import Setting
from tests.executor.bytes_moved import bytes_moved
from traces import load, pack

CP = 8
TRACES = ("wlb-llm", "code", "papers", "long-sft", "wiki")
PREDICTED = ("packed", "placed", "merged", "added", "summed", "returned")
COUNTED = {
    "pack KV": "packed", "place own KV": "placed", "place KV": "placed",
    "merge outputs": "merged", "add dQ": "added", "sum dKV": "summed", "add dKV": "returned",
}  # fmt: skip


def main():
    """Print a table."""
    packs = int(sys.argv[2]) if len(sys.argv) > 2 else 20
    setting = Setting(profile=load_profile("h100-sxm"), model=load_model(sys.argv[1]))
    rate = setting.profile.copies.memory_bytes_per_us
    print("| trace | by | " + " | ".join((*PREDICTED, "all")) + " |")
    print("|---" * (len(PREDICTED) + 3) + "|")
    for trace in TRACES:
        packing = pack(load(trace), 131072, by="truncate", packs=packs)
        rows = {"torch": Counter(), "one pass": Counter(), "predicted": Counter()}
        attention_us = 0.0
        for index in range(len(packing)):
            plan = auto_plan(packing.document_lengths(index), CP, setting)
            costs = PlanCosts(plan, setting)
            for direction in ("forward", "backward"):
                own, part = costs.attention(direction)
                attention_us += own.sum() + costs.chunks * part.sum()
            for what in PREDICTED:
                rows["predicted"][what] += getattr(costs.copies, what).sum()
            for name in ("torch", "one pass"):
                with pytest.MonkeyPatch.context() as patch:
                    moved = bytes_moved(plan, setting.model, patch, one_pass=name == "one pass")
                for (_, piece), found in moved.items():
                    rows[name][COUNTED[piece]] += found / rate
        for name, row in rows.items():
            shares = [100 * row[what] / attention_us for what in PREDICTED]
            cells = " | ".join(f"{share:.2f}%" for share in (*shares, sum(shares)))
            print(f"| {trace} | {name} | {cells} |", flush=True)


if __name__ == "__main__":
    main()

"""How many messages `auto`'s exchanges post: python messages.py --packs 25.

A needed-only exchange sends every piece of a prefix as a message of its own, for K and for V and
for each part by heads, so that it lands where the kernel reads it. Each is an operation that the
host creates and hands to NCCL. Where that would hold the device up, the plan is bundled: one
all-to-all a hop and part. Counted are sends and receives of one rank, one layer and one direction,
over all ranks of all packs: as pieces, and what the chosen plans post. Predicted times are of
forward and backward, against the same plans as pieces and, if the host took no time, as pieces too.
"""

import argparse
from dataclasses import replace

import numpy as np

import flashcp
from costmodel import load_model, load_profile
from flashcp.copied import LANDING
from flashcp.exchange import Exchange
from flashcp.prediction import Setting, predict


def counts(plan, kv_heads):
    """Return of each rank the messages as pieces, and the operations that the plan posts."""
    if plan.exchange not in LANDING:
        return np.zeros((plan.cp, 2))
    parts = plan.chunks(kv_heads)
    pieces = 2 * parts * plan.pieces
    hops = 2 if plan.exchange is Exchange.ALL_TO_ALL_TWO_LEVEL else 1
    return np.stack([pieces, np.full(plan.cp, parts * hops) if plan.bundled else pieces], axis=1)


def row(packing, cp, setting):
    """Return the figures of one trace at one CP degree."""
    posted, bundled, totals, as_pieces, free = [], [], [], [], []
    for i in range(len(packing)):
        plan = flashcp.plan(packing.document_lengths(i), cp, "auto", setting)
        posted.append(counts(plan, setting.model.kv_heads))
        bundled.append(plan.bundled)
        totals.append(predict(plan, setting).total_us)
        as_pieces.append(predict(replace(plan, bundled=False), setting).total_us)
        profile = setting.profile
        idle = replace(profile, message_us=replace(profile.message_us, value=0.0))
        at_no_cost = replace(setting, profile=idle)
        free.append(predict(replace(plan, bundled=False), at_no_cost).total_us)
    both = np.concatenate(posted)
    ratios = np.array(totals) / np.array([as_pieces, free])
    return (*np.median(both, axis=0), *both.max(axis=0), np.mean(bundled), *ratios.mean(axis=1))


def main():
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--packs", type=int, default=25)
    parser.add_argument("--model", default="llama3-8b")
    parser.add_argument("--traces", default="wlb-llm,code,papers")
    given = parser.parse_args()
    profile, model = load_profile("h100-sxm"), load_model(given.model)
    print(
        "| CP | trace | pieces p50 | largest | posted p50 | largest | bundled plans "
        "| time over pieces | over pieces, host free |"
    )
    print("|---" * 9 + "|")
    for cp in (8, 16, 32):
        setting = Setting(profile=profile, model=model, ranks_per_node=8, copies="in-place")
        for trace in given.traces.split(","):
            packing = flashcp.pack(flashcp.load_trace(trace), 131072, packs=given.packs)
            p50, ours, most, our_most, bundled, *ratios = row(packing, cp, setting)
            print(
                f"| {cp} | {trace} | {p50:.0f} | {most:.0f} | {ours:.0f} | {our_most:.0f} "
                f"| {bundled:.0%} | {ratios[0]:.2f} | {ratios[1]:.2f} |"
            )


if __name__ == "__main__":
    main()

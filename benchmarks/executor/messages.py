"""How many messages `auto`'s exchanges post: python messages.py --packs 25.

A needed-only exchange sends every piece of a prefix as a message of its own, for K and for V and
for each part by heads, so that it lands where the kernel reads it. Each is an operation that the
host creates and hands to NCCL, some 10 us of Python. Counted are sends and receives of one rank,
one layer and one direction, over all ranks of all packs; and what one message for K and V together
to each peer would leave.
"""

import argparse

import numpy as np

import flashcp
from costmodel import load_model, load_profile
from executor.landing import landing
from executor.layout import placement
from flashcp.copied import LANDING
from flashcp.prediction import Setting, predict


def counts(plan, kv_heads):
    """Return messages of each rank, and how many one a peer and hop would leave."""
    found = []
    for rank in range(plan.cp):
        hops = landing(placement(plan), rank).hops if plan.exchange in LANDING else ()
        ways = [way for hop in hops for way in (hop.sends, hop.recvs)]
        posted = 2 * sum(map(len, ways))
        peers = sum(len({message.peer for message in way}) for way in ways)
        found.append((posted * plan.chunks(kv_heads), peers * plan.chunks(kv_heads)))
    return found


def main():
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--packs", type=int, default=25)
    parser.add_argument("--model", default="llama3-8b")
    parser.add_argument("--traces", default="wlb-llm,code,papers")
    given = parser.parse_args()
    profile, model = load_profile("h100-sxm"), load_model(given.model)
    print("| CP | trace | posted p50 | p99 | largest | one a peer p50 | p99 | predicted ms p50 |")
    print("|---" * 8 + "|")
    for cp in (8, 16, 32):
        setting = Setting(profile=profile, model=model, ranks_per_node=8)
        for trace in given.traces.split(","):
            packing = flashcp.pack(flashcp.load_trace(trace), 131072, packs=given.packs)
            rows, times = [], []
            for i in range(len(packing)):
                plan = flashcp.plan(packing.document_lengths(i), cp, "auto", setting)
                rows += counts(plan, model.kv_heads)
                times.append(predict(plan, setting).total_us / 1e3)
            (p50, fewer), (p99, few) = np.quantile(rows, (0.5, 0.99), axis=0)
            print(
                f"| {cp} | {trace} | {p50:.0f} | {p99:.0f} | {np.max(rows, axis=0)[0]} "
                f"| {fewer:.0f} | {few:.0f} | {np.median(times):.1f} |"
            )


if __name__ == "__main__":
    main()

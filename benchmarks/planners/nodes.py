"""What knowing the nodes is worth: 16 ranks on two nodes of 8, auto against the same auto blind.

The topology-blind plan is `auto`'s own, made as if all 16 ranks shared one node, with times evened
out as on nodes; both plans are then measured and predicted on the real nodes: NVLink of the profile
inside, 50 GB/s a GPU across. Traffic across nodes is of the exchange that each plan uses, one way,
all ranks together. "renumbered" is the blind plan with its ranks put on the nodes that suit them
best: what can be had without a search or an exchange that knows nodes. Run:
python benchmarks/planners/nodes.py --packs 200
"""

import argparse
import time
from collections import Counter
from dataclasses import replace

import numpy as np

from costmodel.model_shape import load_model
from costmodel.profile_file import load_profile
from flashcp.auto import auto_plan
from flashcp.measures import measure
from flashcp.prediction import Setting, predict
from flashcp.search.evaluate import options
from flashcp.search.nodes import gather_on_nodes
from traces import load, pack

TRACES = ("wlb-llm", "code", "papers", "long-sft", "wiki")
SHORT = {
    "ring": "ring",
    "all-gather": "gather",
    "all-gather-non-last": "non-last",
    "all-to-all-needed": "needed",
    "all-to-all-two-level": "two-level",
}


def settings(model, per_node, cp, nic_gbps):
    """Return the real setting and the one that takes all ranks for neighbours."""
    profile = load_profile("h100-sxm")
    nic = replace(profile.network.nic_gbps, value=nic_gbps)
    profile = replace(profile, network=replace(profile.network, nic_gbps=nic))
    real = Setting(profile=profile, model=load_model(model), ranks_per_node=per_node)
    return real, replace(real, ranks_per_node=cp)


def renumbered_us(blind, cp, per_node, real):
    """Return time and traffic across nodes of the blind plan's way on renumbered ranks."""
    rows = np.stack([blind.rank, blind.document, blind.start, blind.stop], axis=1)
    rows = gather_on_nodes(rows, cp, per_node)
    ways = [
        (option.total_us, option.across_tokens)
        for option in options(rows, blind.lengths, cp, real)
        if option.exchange is blind.exchange and option.overlap == blind.overlap
    ]
    if ways:
        return min(ways)  # in as many parts as suit it
    predicted = predict(blind, real).total_us  # a ring, which is not renumbered
    return predicted, measure(blind, per_node).across_tokens


def main():
    """Print one table, a line a trace."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cp", type=int, default=16)
    parser.add_argument("--ranks-per-node", type=int, default=8)
    parser.add_argument("--nic-gbps", type=float, default=50.0)
    parser.add_argument("--context", type=int, default=131072)
    parser.add_argument("--packs", type=int, default=200)
    parser.add_argument("--model", default="paper-h32")
    parser.add_argument("--effort", type=float, default=1.0)
    parser.add_argument("--traces", default=",".join(TRACES))
    given = parser.parse_args()
    cp, per_node = given.cp, given.ranks_per_node
    real, flat = settings(given.model, per_node, cp, given.nic_gbps)
    print(
        f"{cp} ranks on nodes of {per_node}, {given.nic_gbps:g} GB/s a GPU across, {given.model}, "
        f"windows of {given.context // 1024}k, effort {given.effort:g}\n\n"
        "| trace | packs | blind: tokens across | renumbered | auto | auto / blind | blind us "
        "| renumbered us | auto us | blind / auto | worst pack | auto's exchanges "
        "| plan ms p50 | p99 |\n" + "|---" * 14 + "|"
    )
    for trace in given.traces.split(","):
        packing = pack(load(trace), given.context, by="truncate", packs=given.packs)
        across, us, took, exchanges = [], [], [], Counter()
        for i in range(len(packing)):
            lengths = packing.document_lengths(i)
            blind = auto_plan(lengths, cp, flat, effort=given.effort, balance="time")
            for _ in range(2 if i == 0 else 1):  # the first compiles
                began = time.thread_time()
                auto = auto_plan(lengths, cp, real, effort=given.effort)
                seconds = time.thread_time() - began
            took.append(seconds * 1e3)
            exchanges[SHORT[auto.exchange]] += 1
            seated_us, seated_tokens = renumbered_us(blind, cp, per_node, real)
            sent = [measure(plan, per_node).across_tokens for plan in (blind, auto)]
            across.append([sent[0], seated_tokens, sent[1]])
            times = [predict(plan, real).total_us for plan in (blind, auto)]
            us.append([times[0], seated_us, times[1]])
        tokens, means = np.mean(across, axis=0), np.mean(us, axis=0)
        ratios = np.array(us)[:, 0] / np.array(us)[:, 2]
        p50, p99 = np.percentile(took, [50, 99])
        used = ", ".join(f"{name} {count}" for name, count in exchanges.most_common())
        print(
            f"| {trace} | {len(packing)} | {tokens[0]:.0f} | {tokens[1]:.0f} | {tokens[2]:.0f} "
            f"| {tokens[2] / tokens[0]:.3f} | {means[0]:.0f} | {means[1]:.0f} | {means[2]:.0f} "
            f"| {means[0] / means[2]:.3f} | {ratios.min():.3f} | {used} | {p50:.2f} | {p99:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()

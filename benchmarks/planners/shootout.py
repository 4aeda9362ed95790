"""All planners on the same packs through the same cost model; see RESULTS.md.

Other systems' placements run with whichever exchange and overlap suits them best, so that only the
placements differ; per-seq, per-doc and flashcp also as published. Run:
python benchmarks/planners/shootout.py --cp 8 --packs 200
"""

import argparse
import time

import numpy as np
from rules import block_partition, chunk_heap, hybrid, ptrr

from costmodel.model_shape import load_model
from costmodel.profile_file import load_profile
from flashcp.auto import auto_plan
from flashcp.bounds import lower_bound_us
from flashcp.exchange import needed_tokens
from flashcp.measures import padded_work
from flashcp.prediction import Setting, predict
from flashcp.search.evaluate import options
from flashcp.search.weights import BALANCES
from flashcp.strategies import STRATEGIES, shard
from flashcp.traffic_bound import least_traffic_tokens
from traces import load, pack

TRACES = ("wlb-llm", "code", "papers", "long-sft", "wiki", "books")
FIXED = ("ring", "zigzag", "per-seq", "per-doc", "flashcp")
TILE_PAIRS = 128 * 128
_WARM = 30  # packs after which hardly anything is left to compile


def adaptive(lengths, cp, setting):
    """WLB-LLM: per-seq or per-doc, whichever's attention is predicted shorter."""
    plans = [shard(lengths, cp, name) for name in ("per-seq", "per-doc")]
    predicted = [predict(plan, setting) for plan in plans]
    times = [p.forward_us + p.backward_us for p in predicted]
    return STRATEGIES[plans[int(np.argmin(times))].strategy].shards(lengths, cp)


def measures(rows, lengths, cp):
    """Return imbalance, saving and padded tiles over those of undivided documents."""
    rank, document, start, stop = np.ascontiguousarray(rows.T)
    sizes = (stop - start).astype(np.int64)
    work = np.bincount(rank, weights=(2.0 * start + sizes + 1) * sizes / 2, minlength=cp)
    sent, received = needed_tokens(document, rank, start, stop, cp)
    full = lengths.sum() * (cp - 1) / cp
    splits = np.searchsorted(rank, np.arange(cp + 1)).astype(np.int64)
    tiles = -(-lengths.astype(np.int64) // 128)
    floor = (tiles * (tiles + 1) // 2).sum() * TILE_PAIRS / cp
    return (
        work.max() / work.mean(),
        1 - max(sent.max(), received.max()) / full,
        padded_work(start, stop, splits).max() / floor,
    )


def main():
    """Print one table a trace."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cp", type=int, default=8)
    parser.add_argument("--packs", type=int, default=200)
    parser.add_argument("--traces", default=",".join(TRACES))
    parser.add_argument("--planners", default="")
    parser.add_argument("--effort", type=float, default=1.0)
    parser.add_argument("--balance", choices=BALANCES)
    given = parser.parse_args()
    cp = given.cp
    setting = Setting(profile=load_profile("h100-sxm"), model=load_model("paper-h32"))

    def rows_of(plan):
        return np.stack([plan.rank, plan.document, plan.start, plan.stop], axis=1)

    def best(rows, lengths):
        return min(option.total_us for option in options(rows, lengths, cp, setting))

    def fixed(name):
        def run(lengths):
            return rows_of(shard(lengths, cp, name))

        return run

    planners = {
        **{name: fixed(name) for name in FIXED},
        "WLB-LLM adaptive": lambda n: adaptive(n, cp, setting),
        "MagiAttention 2048": lambda n: chunk_heap(n, cp, 2048),
        "MagiAttention 512": lambda n: chunk_heap(n, cp, 512),
        "PyTorch PTRR": lambda n: ptrr(n, cp),
        "Megatron hybrid": lambda n: hybrid(n, cp),
        "blocks, DCP-like": lambda n: block_partition(n, cp),
        "auto": None,
    }
    chosen = given.planners.split(",") if given.planners else list(planners)
    for trace in given.traces.split(","):
        packing = pack(load(trace), 131072, by="truncate", packs=given.packs)
        packs = [packing.document_lengths(i) for i in range(len(packing))]
        bounds = np.array([lower_bound_us(n, cp, setting) for n in packs])
        full = 131072 * (cp - 1) / cp
        most = 1 - np.mean([least_traffic_tokens(n, cp, imbalance=1.005) for n in packs]) / full
        print(f"\n{trace}, CP {cp}, {len(packs)} packs; no saving above {most:.3f} (bound)")
        print(
            "| planner | us mean | over bound | as published us | imbalance | worst | saving "
            "| padded/floor | planning ms p50 | p99 |\n" + "|---" * 10 + "|"
        )
        for name in chosen:
            planner = planners[name]
            times, published, found, seconds = [], [], [], []
            for i, lengths in enumerate(packs):
                for _ in range(2 if i < _WARM else 1):  # the first ones compile
                    began = time.thread_time()
                    if planner is None:
                        plan = auto_plan(
                            lengths, cp, setting, effort=given.effort, balance=given.balance
                        )
                    else:
                        rows = planner(lengths)
                    took = time.thread_time() - began
                seconds.append(took)
                if planner is None:
                    rows = rows_of(plan)
                    times.append(predict(plan, setting).total_us)
                else:
                    times.append(best(rows, lengths))
                if name in FIXED:
                    published.append(predict(shard(lengths, cp, name), setting).total_us)
                found.append(measures(rows, lengths, cp))
            imbalance, saving, padded = np.array(found).T
            times = np.array(times)
            p50, p99 = np.percentile(np.array(seconds) * 1e3, [50, 99])
            own = f"{np.mean(published):.0f}" if published else ""
            print(
                f"| {name} | {np.mean(times):.0f} | {np.mean(times / bounds):.3f} | {own} "
                f"| {imbalance.mean():.4f} | {imbalance.max():.4f} | {saving.mean():.3f} "
                f"| {padded.mean():.4f} | {p50:.2f} | {p99:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()

"""Measures what each packer makes of each bundled trace: packs, fill, loss, balance and time.

Balance is the work (query-key pairs) of the most loaded pack over the mean, within each 8 packs in
order as a global batch of 8 would take them, averaged over the batches.

Run: python benchmarks/traces/packers.py
"""

import time

import numpy as np

from traces import Packing, bundled_names, load, pack
from traces.packers import PACKERS

CONTEXT_TOKENS = 131_072
BATCH = 8


def imbalance(packing: Packing) -> float:
    """Return the mean over global batches of the largest work over the mean work."""
    pieces = packing.lengths.astype(np.float64)
    work = np.add.reduceat(pieces * (pieces + 1) / 2, packing.splits[:-1])
    batches = work[: work.size // BATCH * BATCH].reshape(-1, BATCH)
    return float((batches.max(axis=1) / batches.mean(axis=1)).mean())


def main() -> None:
    """Print a Markdown table."""
    for by in PACKERS:
        pack([1, 2, 3], 2, by=by)  # compiled before anything is timed
    print("| trace | packer | packs | fill | tokens dropped | imbalance of 8 | ns a document |")
    print("|---|---|---|---|---|---|---|")
    for name in (*bundled_names(), "wlb-llm"):
        trace = load(name)
        for by in PACKERS:
            start = time.perf_counter()
            packing = pack(trace, CONTEXT_TOKENS, by=by)
            nanoseconds = (time.perf_counter() - start) / trace.documents * 1e9
            dropped = packing.dropped_tokens / trace.tokens
            print(
                f"| {name} | {by} | {len(packing)} | {packing.fill:.4f} | {dropped:.2%} | "
                f"{imbalance(packing):.3f} | {nanoseconds:,.0f} |"
            )


if __name__ == "__main__":
    main()

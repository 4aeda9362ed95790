"""Measures how balanced packing depends on its outlier queues, at 128k and 8 packs a batch.

Imbalance is the most loaded pack's work over its batch's mean, averaged over the batches. Delay
shows as the mean work of the first 200 packs over that of all: 1.0 without any.

Run: python benchmarks/traces/outlier_queues.py
"""

import numpy as np
from packers import CONTEXT_TOKENS, imbalance

from traces import bundled_names, load, pack

C = CONTEXT_TOKENS
THRESHOLDS = {
    "none": [C + 1],
    "C/2 alone": [C // 2],
    "C/4, C/2": [C // 4, C // 2],
    "C/16, C/8, C/4, C/2": [C // 16, C // 8, C // 4, C // 2],
    "eight from C/16, factor sqrt 2 (the default)": None,
    "sixteenths of C": [C * part // 16 for part in range(1, 16)],
}


def main() -> None:
    """Print a Markdown table."""
    names = (*bundled_names(), "wlb-llm")
    print("| thresholds | " + " | ".join(names) + " |")
    print("|---" * (len(names) + 1) + "|")
    traces = [load(name) for name in names]
    for label, thresholds in THRESHOLDS.items():
        cells = []
        for trace in traces:
            packing = pack(trace, C, by="balanced", outlier_tokens=thresholds)
            pieces = packing.lengths.astype(np.float64)
            work = np.add.reduceat(pieces * (pieces + 1) / 2, packing.splits[:-1])
            early = work[:200].mean() / work.mean()
            cells.append(f"{imbalance(packing):.3f} / {early:.2f}")
        print(f"| {label} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()

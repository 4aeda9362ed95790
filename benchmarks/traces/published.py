"""Compares the generated wlb-llm trace with a third party's draw from the same histogram.

Prints quantiles of both, and the two-sample Kolmogorov-Smirnov distance.

Run: python benchmarks/traces/published.py TRACE_FILE
"""

import sys

import numpy as np

from traces import describe, load


def main() -> None:
    """Print a Markdown table."""
    theirs = load(sys.argv[1])
    ours = load("wlb-llm", documents=theirs.documents)
    print("| share of documents | theirs | generated | difference |\n|---|---|---|---|")
    left, right = describe(theirs), describe(ours)
    for share, length in left.quantiles.items():
        other = right.quantiles[share]
        print(f"| {share:.1%} | {length:,} | {other:,} | {other / length - 1:+.1%} |")
    print(f"| mean | {left.mean:,.0f} | {right.mean:,.0f} | {right.mean / left.mean - 1:+.1%} |")
    every = np.sort(np.concatenate([theirs.lengths, ours.lengths]))
    shares = [
        np.searchsorted(np.sort(trace.lengths), every, side="right") / trace.documents
        for trace in (theirs, ours)
    ]
    bound = 1.358 * np.sqrt(2 / theirs.documents)
    print(f"\nKolmogorov-Smirnov distance {np.abs(shares[0] - shares[1]).max():.4f}; ", end="")
    print(f"two samples of one distribution exceed {bound:.4f} once in 20 times")
    print(f"\nTokens in documents above 32,768: theirs {long_share(theirs.lengths):.2%}, ", end="")
    print(f"generated {long_share(ours.lengths):.2%}")


def long_share(lengths: np.ndarray) -> float:
    """Return the share of tokens in documents above 32,768."""
    return float(lengths[lengths > 32_768].sum() / lengths.sum())


if __name__ == "__main__":
    main()

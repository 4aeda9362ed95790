"""Whether backward takes longer where segments differ in length: python empty_blocks.py FOLDER.

FOLDER is what run_all.sh saved. flash-attn 2's kernels, torch's among them, start a block for each
128 keys (backward) of the *longest* segment of a call, in every segment and head; those beyond a
segment's own keys find nothing to do. For every rank of `per-seq`, `per-doc` and `flashcp`, which
attend in one call, the time beyond the prediction is set beside the number of such blocks. Printed
are their correlation and the slope of a line through the origin: microseconds of a multiprocessor a
block. Blocks of queries, in forward, are counted likewise.
"""

import sys
from pathlib import Path

import numpy as np
from runs import runs_of

from costmodel import load_profile

TILE, MULTIPROCESSORS = 128, 132
ONE_CALL = ("per-seq", "per-doc", "flashcp")


def main(folder: Path) -> None:
    """Print both directions."""
    profile = load_profile(str(folder / "profile.json"))
    rows = []
    for _, plan, setting, ranks in runs_of(folder, profile):
        if plan.strategy not in ONE_CALL:
            continue
        for rank, one in enumerate(ranks):
            mine = plan.rank == rank
            rows.append(
                [
                    setting.model.q_heads * empty((plan.stop - plan.start)[mine]),
                    beyond(one, "forward"),
                    setting.model.q_heads * empty(plan.stop[mine]),
                    beyond(one, "backward"),
                ]
            )
    columns = np.array(rows).T
    for direction, blocks, us in (("forward", *columns[:2]), ("backward", *columns[2:])):
        slope = MULTIPROCESSORS * (blocks @ us) / (blocks @ blocks)
        print(
            f"{direction}: {blocks.size} ranks, up to {blocks.max():,.0f} empty blocks, "
            f"correlation {np.corrcoef(blocks, us)[0, 1]:.2f}, {slope:.2f} us a block"
        )


def empty(lengths) -> float:
    """Return the blocks of one head that start for nothing."""
    blocks = np.ceil(lengths / TILE)
    return float((blocks.max(initial=0) - blocks).sum())


def beyond(rank: dict, direction: str) -> float:
    """Return the microseconds that a rank's attention takes beyond its prediction."""
    return rank["measured_us"][direction] - rank["predicted_us"][direction]


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""One pack in the terminal: each rank's tokens as cells, documents as colours and letters.

A cell shows the document that holds most of its tokens; letters repeat the colours for terminals
(and readers) without them. Undivided documents are in lower case, cut ones in upper case: capitals
are what has to travel. To the right of each rank stand its work over the mean, as bar and number,
and where it was estimated its memory.
"""

from typing import TYPE_CHECKING

import numpy as np
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from flashcp.plans import Plan

COLOURS = ("red", "green", "yellow", "blue", "magenta", "cyan")
LETTERS = "abcdefghijklmnopqrstuvwxyz"
MOST_ROWS = 16
_LABEL, _BAR, _MEMORY = 9, 16, 9  # columns beside the cells


def pack_picture(plan: "Plan", width: int, rank_bytes: "Sequence[int] | None" = None) -> list[Text]:
    """Draw `plan`, at most 16 of its ranks, in lines of at most `width` columns.

    Args:
        plan: the plan.
        width: columns of the terminal.
        rank_bytes: memory of each rank, [cp], to write beside it.
    """
    cells = max(min(width, 120) - _LABEL - _BAR - 8 - (_MEMORY if rank_bytes else 0), 16)
    mean = plan.rank_work.mean()
    largest = max(float(plan.rank_work.max() / mean), 1.0)
    cut = np.bincount(plan.document, minlength=plan.lengths.size) > 1
    lines = []
    for rank in _shown(plan.cp):
        line = Text(f"rank {rank:<4}".ljust(_LABEL))
        line.append_text(_cells(plan, rank, cells, cut))
        share = float(plan.rank_work[rank] / mean)
        bar = "█" * round(share / largest * (_BAR - 2))
        memory = f"{rank_bytes[rank] / 1e9:6.2f} GB" if rank_bytes else ""
        line.append(f" {bar.ljust(_BAR - 2)} {share:.3f}{memory}")
        lines.append(line)
    if plan.cp > MOST_ROWS:
        lines.append(Text(f"{plan.cp - MOST_ROWS} more ranks not shown", style="dim"))
    whole = int((~cut).sum())
    lines.append(
        Text(
            f"{whole} documents whole (small letters), {plan.lengths.size - whole} cut (capitals); "
            "right: work over the mean" + (", memory" if rank_bytes else ""),
            style="dim",
        )
    )
    return lines


def _shown(cp: int) -> range:
    return range(min(cp, MOST_ROWS))


def _cells(plan: "Plan", rank: int, cells: int, cut: "NDArray[np.bool_]") -> Text:
    """Return the rank's local tokens as coloured letters, neighbours in different colours."""
    first, last = plan.rank_splits[rank], plan.rank_splits[rank + 1]
    sizes = (plan.stop - plan.start)[first:last]
    ends = np.cumsum(sizes)
    text = Text()
    if not sizes.size:
        return Text(" " * cells)
    middles = (np.arange(cells) + 0.5) * ends[-1] / cells
    for shard in np.searchsorted(ends, middles, side="right"):
        document = int(plan.document[first + shard])
        letter = LETTERS[document % len(LETTERS)]
        colour = COLOURS[document % len(COLOURS)]
        text.append(letter.upper() if cut[document] else letter, style=f"black on {colour}")
    return text

"""Where `auto` gains nothing: packs on which another strategy is within 1% of it.

A gain that is only the other's copies is a gain of layout, not of placement, so those are counted
apart. The usual reason is a pack that one document fills: cutting it evenly is all there is, and
every strategy that cuts evenly does it. Said of each pack, as means over packs hide it.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from flashcp.strategies import AUTO

if TYPE_CHECKING:
    from flashcp.comparison import Comparison
    from traces.packing import Packing

CLOSE = 1.01
BASELINES = ("per-doc", "per-seq")
_FILLS = 0.95  # of a pack's tokens in one document


@dataclass(frozen=True, kw_only=True)
class Ties:
    """On how many packs another strategy is within 1% of `auto`.

    Attributes:
        packs: as it runs.
        placed_packs: beyond those, if its copies were counted as `auto`'s are.
        one_document_packs: of all those, packs that one document fills.
    """

    packs: int
    placed_packs: int
    one_document_packs: int


def ties(comparison: "Comparison", packing: "Packing") -> dict[str, Ties]:
    """Count where `auto` gains less than 1%.

    Args:
        comparison: the strategies, `auto` among them or there is nothing to count.
        packing: the packs compared.

    Returns:
        By strategy: per-doc and per-seq where compared, and "other" for the best of all others.
    """
    others = {name: o for name, o in comparison.outcomes.items() if name != AUTO}
    if AUTO not in comparison.outcomes or not others:
        return {}
    auto = comparison.outcomes[AUTO]
    filled = _one_document(packing)

    def count(as_run: NDArray[np.float64], in_place: NDArray[np.float64]) -> Ties:
        tied = as_run <= CLOSE * auto.total_us
        placed = ~tied & (in_place <= CLOSE * auto.in_place_us)
        return Ties(
            packs=int(tied.sum()),
            placed_packs=int(placed.sum()),
            one_document_packs=int((filled & (tied | placed)).sum()),
        )

    found = {
        name: count(others[name].total_us, others[name].in_place_us)
        for name in BASELINES
        if name in others
    }
    found["other"] = count(
        np.min([o.total_us for o in others.values()], axis=0),
        np.min([o.in_place_us for o in others.values()], axis=0),
    )
    return found


def _one_document(packing: "Packing") -> NDArray[np.bool_]:
    packs = (packing.document_lengths(i) for i in range(len(packing)))
    return np.array([lengths.max() >= _FILLS * lengths.sum(dtype=np.int64) for lengths in packs])

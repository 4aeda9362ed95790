"""How far plans are from what is possible: from bounds on every pack, from the exact on small ones.

Traffic is the largest rank's, as a share of a full all-gather, and gaps of it are differences, as
the least is often 0. The bound is that of any plan which is as balanced as the one it is held
against. The exact least (`flashcp.exact`) takes about a second a pack and explodes beyond, so it is
sought on the first packs whose documents fit into few blocks: on the finest grid of a power of two
tokens that keeps within `MOST_CELLS`, or the next coarser one, at the first of `IMBALANCES` for
which the grid has a placement, for so many branches and no longer. All of that counts steps, not
seconds, so every machine gives the same. As its cuts are coarse and its tokens equal only to half a
block, a plan that cuts finely can move less than it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from flashcp.errors import PlanError
from flashcp.exact import exact_plan, require_solver
from flashcp.traffic_bound import least_traffic_tokens

if TYPE_CHECKING:
    from traces.packing import Packing

MOST_CELLS = 512  # blocks x ranks x ranks
MOST_PACKS = 8
IMBALANCES = (1.02, 1.05, 1.1, 1.2)
_BRANCHES = 200
_GRIDS = 2


@dataclass(frozen=True, kw_only=True)
class ExactTraffic:
    """The least that any placement of one pack on a grid moves, proven.

    Attributes:
        pack: its index.
        grid_tokens: cuts are at multiples of so many tokens.
        imbalance: largest rank's work over the mean, at most.
        share: the largest rank's sent or received tokens, over C·(N-1)/N.
    """

    pack: int
    grid_tokens: int
    imbalance: float
    share: float


@dataclass(frozen=True, kw_only=True)
class ExactSearch:
    """What was sought and found.

    Attributes:
        tried: packs that are small enough and were tried.
        small: packs that are small enough.
        found: those with a proven least.
    """

    tried: int
    small: int
    found: tuple[ExactTraffic, ...]


def traffic_bounds(
    packing: "Packing", cp: int, imbalance: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return what no plan with these imbalances can move less than, [packs].

    Args:
        packing: the packs.
        cp: CP degree.
        imbalance: largest rank's work over the mean of each pack's plan, [packs].

    Returns:
        The largest rank's tokens over C·(N-1)/N.

    Raises:
        PlanError: the CP degree is wrong.
    """
    shares = np.zeros(len(packing))
    for i in range(len(packing)):
        lengths = packing.document_lengths(i)
        if cp > 1:
            least = least_traffic_tokens(lengths, cp, imbalance=float(imbalance[i]))
            shares[i] = least / _full(lengths, cp)
    return shares


def exact_traffic(
    packing: "Packing",
    cp: int,
    *,
    most_packs: int = MOST_PACKS,
    progress: Callable[[int], None] = lambda _: None,
) -> ExactSearch:
    """Find the exact least traffic of the first packs that are small enough.

    Args:
        packing: the packs.
        cp: CP degree.
        most_packs: how many to try.
        progress: called with the number of packs done since the last call.

    Returns:
        What was found; empty where no pack is small enough or there is one rank.

    Raises:
        PlanError: the CP degree is wrong, or scipy is missing.
    """
    require_solver()
    small = [
        i
        for i in range(len(packing))
        if cp > 1 and packing.document_lengths(i).size * cp * cp <= MOST_CELLS
    ]
    found = []
    for i in small[:most_packs]:
        exact = _exact(i, packing.document_lengths(i), cp)
        if exact is not None:
            found.append(exact)
        progress(1)
    return ExactSearch(tried=min(len(small), most_packs), small=len(small), found=tuple(found))


def _exact(pack: int, lengths: NDArray[np.int32], cp: int) -> ExactTraffic | None:
    grid = 1
    while int((-(-lengths.astype(np.int64) // grid)).sum()) * cp * cp > MOST_CELLS:
        grid *= 2
    for grid_tokens in (grid * 2**step for step in range(_GRIDS)):
        for imbalance in IMBALANCES:
            try:
                found = exact_plan(
                    lengths,
                    cp,
                    grid_tokens=grid_tokens,
                    imbalance=imbalance,
                    spare_tokens=grid_tokens // 2,
                    time_limit_s=None,
                    node_limit=_BRANCHES,
                )
            except PlanError:
                continue  # no placement that balanced, or none met within the branches
            if found.proven:
                share = found.traffic_tokens / _full(lengths, cp)
                return ExactTraffic(
                    pack=pack, grid_tokens=grid_tokens, imbalance=imbalance, share=share
                )
            break  # more imbalance would prove no sooner
    return None


def _full(lengths: NDArray[np.int32], cp: int) -> float:
    """Return the tokens that a full all-gather delivers to each rank."""
    return float(lengths.sum(dtype=np.int64)) * (cp - 1) / cp

"""What one layer's attention takes on each rank, by the executor's estimate, which needs no torch.

The estimate follows every rank's rows through the exchange, about 0.2 ms a rank; hundreds of ranks
with tens of thousands of shards would take a minute a plan, so those are left out.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from costmodel.model_shape import ModelShape
    from flashcp.plans import Plan

_MOST_CELLS = 2**28  # ranks x ranks x shards, about a second


def rank_bytes(plan: "Plan", model: "ModelShape") -> "NDArray[np.int64] | None":
    """Return bytes of forward and backward of one layer's attention, [cp]; None if too many."""
    from executor.memory import memory_bytes

    if plan.cp**2 * plan.shards > _MOST_CELLS:
        return None
    return memory_bytes(plan, model)


def largest_bytes(plan: "Plan", *, model: "ModelShape") -> float:
    """Return the bytes of the rank that takes most; NaN where there are too many to follow."""
    found = rank_bytes(plan, model)
    return float("nan") if found is None else float(found.max())

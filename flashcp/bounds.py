"""Lower bounds on what any plan of a pack can take.

Whatever the placement, the ranks share the pack's query-key pairs and tokens; the slowest takes at
least the mean, and a rank's kernels cannot run faster than the profile's best rate. Exchange and
copies are bounded by 0: a pack whose documents fit the ranks whole needs neither. Holds for every
plan that attends in one or two kernel calls a direction, and for rings, whose N calls are one load
to the clock.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from costmodel.attention_kernel import lower_bound_us as kernel_bound_us

if TYPE_CHECKING:
    from flashcp.prediction import Setting

_CALLS_A_RANK = 2  # what is local and what waits for the exchange


def lower_bound_us(lengths: NDArray[np.int32], cp: int, setting: "Setting") -> float:
    """Return a time that no plan's prediction is below: forward + backward of one attention layer.

    Args:
        lengths: tokens of each packed document, [documents].
        cp: CP degree.
        setting: hardware and model shape.

    Returns:
        Microseconds.
    """
    tokens = np.asarray(lengths, dtype=np.int64)
    pairs = float((tokens * (tokens + 1) // 2).sum())
    busy = min(cp, int(tokens.sum()))
    return _CALLS_A_RANK * sum(
        kernel_bound_us(
            pairs,
            setting.attention_parameters(direction),
            float(tokens.sum()),
            _CALLS_A_RANK * cp,
            busy,
        )
        for direction in ("forward", "backward")
    )

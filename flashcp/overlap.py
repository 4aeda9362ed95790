"""What attention and an exchange take side by side: each slows the other while both run.

Alone they take a and x; beside the other f a and g x. The one that would end first, of f a and
g x, takes that; of the other what is left goes on alone, so it ends later by what it lost until
then: a + (1 - 1/f) g x, or x + (1 - 1/g) f a. An exchange is as slow as its slowest rank, the one
that attends longest. f and g are the profile's, measured by `flashcp calibrate`; bundled profiles
have f from a publication and g = 1, since nobody has measured it.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from costmodel.profile import Profile

    Clock = NDArray[np.float64]


def side_by_side(
    attention_us: "Clock", exchange_us: float, profile: "Profile"
) -> "tuple[Clock, Clock]":
    """Return how long attention and an exchange take that are begun together.

    Args:
        attention_us: each rank's attention alone, [..., ranks]; each row has its own exchange.
        exchange_us: the exchange alone.
        profile: whose factors count.

    Returns:
        Attention, [..., ranks], and the exchanges, [...].
    """
    factor = profile.overlap_factor.value
    longest = (attention_us * factor).max(axis=-1)
    exchanges = prolonged(exchange_us, longest, profile.exchange_overlap_factor.value)
    return slowed(attention_us, exchanges[..., None], factor), exchanges


def slowed(attention_us: Any, exchange_us: Any, factor: float) -> Any:
    """Return how long attention takes of which the first `exchange_us` run beside an exchange.

    Args:
        attention_us: alone; a number or an array.
        exchange_us: how long an exchange still runs, likewise.
        factor: how much longer attention takes beside one.
    """
    return np.minimum(attention_us * factor, attention_us + exchange_us * (1 - 1 / factor))


def prolonged(exchange_us: Any, attention_us: Any, factor: float) -> Any:
    """Return how long an exchange takes of which the first `attention_us` run beside attention.

    Args:
        exchange_us: alone; a number or an array.
        attention_us: how long attention runs, of the rank where it is longest; likewise.
        factor: how much longer an exchange takes beside it.
    """
    return np.minimum(exchange_us * factor, exchange_us + attention_us * (1 - 1 / factor))

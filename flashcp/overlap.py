"""What attention and an exchange take side by side: each slows the other while both run.

Alone they take a and x; beside the other f a and g x. The one that would end first, of f a and
g x, takes that; of the other what is left goes on alone, so it ends later by what it lost until
then: a + (1 - 1/f) g x, or x + (1 - 1/g) f a. An exchange is as slow as its slowest rank, the one
that attends longest. f and g are the profile's, measured by `flashcp calibrate`; bundled profiles
have f from a publication and g = 1, since nobody has measured it.
"""

from typing import TYPE_CHECKING

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
    exchange_factor = profile.exchange_overlap_factor.value
    beside = attention_us * profile.overlap_factor.value
    longest = np.full(beside.shape[:-1], exchange_us)
    if exchange_factor > 1:
        lost = (1 - 1 / exchange_factor) * beside.max(axis=-1)
        longest = np.minimum(exchange_us * exchange_factor, exchange_us + lost)
    return slowed(attention_us, longest[..., None], profile), longest


def slowed(attention_us: "Clock", exchange_us: "Clock", profile: "Profile") -> "Clock":
    """Return how long attention takes of which the first `exchange_us` run beside an exchange.

    Args:
        attention_us: alone, [..., ranks].
        exchange_us: how long an exchange still runs, likewise.
        profile: whose factor counts.
    """
    factor = profile.overlap_factor.value
    beside = attention_us * factor
    return np.where(beside <= exchange_us, beside, attention_us + exchange_us * (1 - 1 / factor))

"""What the exchanges of needed KV take, from tokens and a setting alone; see `flashcp.exchange`.

One level: every rank posts all its transfers together; on several nodes the busiest rank's whole
traffic inside its node runs beside what the busiest on the network sends across (`costmodel`'s
`topology`). Two levels follow one another: across nodes along the rails, then inside, from where
it landed; backward each rank adds up its node's gradients between the two, in float32. They pay
where one token is needed by several ranks of another node, as of documents cut over many; of a
document cut between two ranks one level sends as little and ends sooner. And the least that a
ring's transfers take, whatever it attends to beside them.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from costmodel.estimate import NOTHING, Estimate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flashcp.prediction import Direction, Setting


@dataclass(frozen=True)
class TwoLevels:
    """The steps of a two-level exchange, which follow one another.

    Attributes:
        across: between nodes, over the rails.
        passed_us: forward, of what each rank copies from one message into the next, [cp]; 0 but
            where they are bundled.
        summed_us: backward, of each rank's sums between the two, [cp].
        inside: within nodes.
    """

    across: Estimate
    passed_us: "NDArray[np.float64]"
    summed_us: "NDArray[np.float64]"
    inside: Estimate

    def whole(self, direction: "Direction") -> Estimate:
        """Return all of it: the slowest rank's copies or sums hold up the others."""
        between = self.passed_us if direction == "forward" else self.summed_us
        us = self.across.us + self.inside.us + float(between.max())
        return Estimate(us, max(self.across.source, self.inside.source))


def needed_exchange(
    largest_tokens: float, across_tokens: float, cp: int, setting: "Setting", chunks: int = 1
) -> Estimate:
    """Return the time of an exchange of needed KV in one level, one way, all parts together.

    Args:
        largest_tokens: the most that any rank sends or receives.
        across_tokens: the most of it that any rank sends to, or receives from, other nodes.
        cp: ranks.
        setting: hardware and model shape.
        chunks: parts that it travels in, one after another.
    """
    if largest_tokens == 0:
        return NOTHING
    kv_bytes = setting.model.kv_bytes_per_token / chunks
    part = setting.profile.all_to_all_v_us(
        float(largest_tokens * kv_bytes),
        cp,
        ranks_per_node=setting.ranks_per_node,
        across_bytes=float(across_tokens * kv_bytes),
    )
    return Estimate(chunks * part.us, part.source)


def two_level_exchange(
    tokens: "tuple[NDArray[np.int64], ...]",
    relayed: "tuple[NDArray[np.int64], ...]",
    cp: int,
    ranks_per_node: int,
    setting: "Setting",
    chunks: int = 1,
    *,
    bundled: bool = False,
) -> TwoLevels:
    """Return the times of an exchange of needed KV in two levels, one way, of one of its parts.

    Args:
        tokens: sent across, received across, sent inside, received inside; [cp] each.
        relayed: tokens passed on, and gradients that each rank adds up for other nodes; [cp] each.
        cp: ranks.
        ranks_per_node: ranks that share a node; divides `cp`.
        setting: hardware and model shape.
        chunks: parts that it travels in.
        bundled: whether what is passed on is copied into a message.
    """
    passed, summed = relayed
    across_sent, across_received, inside_sent, inside_received = tokens
    kv_bytes = setting.model.kv_bytes_per_token / chunks
    profile = setting.profile
    across = inside = NOTHING
    if most := float(max(across_sent.max(), across_received.max())):
        across = profile.all_to_all_v_us(most * kv_bytes, cp // ranks_per_node, ranks_per_node=1)
    if most := float(max(inside_sent.max(), inside_received.max())):
        inside = profile.all_to_all_v_us(
            most * kv_bytes, ranks_per_node, ranks_per_node=ranks_per_node
        )
    # Gradients are read, and their sum for each token that came is written. `us_array` counts a
    # byte read and written as one byte moved.
    copied = passed * bundled, (across_received + summed) / 2
    passed_us, summed_us = (
        profile.copies.us_array(tokens.astype(np.float64) * kv_bytes, np.zeros(cp), "in-place")
        for tokens in copied
    )
    return TwoLevels(across, passed_us, summed_us, inside)


def ring_transfers_us(largest_tokens: int, cp: int, setting: "Setting") -> float:
    """Return the time of a ring's N - 1 transfers each way, one after the other.

    Backward passes on KV and, in float32, dKV.

    Args:
        largest_tokens: the most that any rank holds.
        cp: ranks; one passes nothing on.
        setting: hardware and model shape.
    """
    kv_bytes = float(largest_tokens * setting.model.kv_bytes_per_token)
    steps_us = 0.0
    for share in (1.0, 1.0 + 4 / setting.model.dtype_bytes):
        step = setting.profile.collective_us(
            "send_recv", kv_bytes * share, cp, ranks_per_node=setting.ranks_per_node
        )
        steps_us += (cp - 1) * step.us
    return steps_us

"""The strategies, by the names that users type. A new one is a module and a line here.

Each is defined by three things: how it cuts a pack into shards, how it exchanges KV, and how its
published implementation copies data around the kernels (`copies`). `auto` has none of its own: it
takes the best predicted of the others, see `flashcp.auto`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flashcp.errors import PlanError
from flashcp.exchange import Exchange
from flashcp.plans import MOST_RANKS, Plan
from flashcp.strategies._shards import Rows, columns
from flashcp.strategies.flashcp import flashcp_shards
from flashcp.strategies.per_doc import contiguous_shards, zigzag_shards
from flashcp.strategies.per_seq import per_seq_shards


@dataclass(frozen=True)
class Strategy:
    """A rule that makes plans.

    Attributes:
        name: as the user types it.
        origin: whose rule it is.
        shards: cuts lengths, int32 [documents], over a number of ranks into canonical rows.
        exchange: how KV reaches the ranks that need it.
    """

    name: str
    origin: str
    shards: Callable[[NDArray[np.int32], int], Rows]
    exchange: Exchange


FLASHCP = "flashcp"
STRATEGIES = {
    strategy.name: strategy
    for strategy in (
        Strategy("ring", "Ring Attention", contiguous_shards, Exchange.RING),
        Strategy("zigzag", "Ring Attention, zigzag", zigzag_shards, Exchange.RING),
        Strategy("per-seq", "Llama 3", per_seq_shards, Exchange.ALL_GATHER),
        Strategy("per-doc", "WLB-LLM", zigzag_shards, Exchange.ALL_GATHER),
        Strategy(FLASHCP, "FlashCP", flashcp_shards, Exchange.ALL_GATHER_NON_LAST),
    )
}
AUTO = "auto"
NAMES = (*STRATEGIES, AUTO)


def shard(lengths: ArrayLike, cp: int, strategy: str) -> Plan:
    """Shard one pack by one of the fixed strategies.

    Args:
        lengths: tokens of each packed document, integers [documents], each at least 1.
        cp: CP degree, 1 to 1,024.
        strategy: a name in `STRATEGIES`.

    Returns:
        The plan; equal arguments give an equal plan on every machine.

    Raises:
        PlanError: a length, the CP degree or the name is wrong.
    """
    if strategy not in STRATEGIES:
        close = get_close_matches(strategy, NAMES, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(NAMES)}"
        raise PlanError(f"strategy {strategy!r} is unknown; {hint}")
    checked = check_lengths(lengths)
    check_cp(cp)
    rule = STRATEGIES[strategy]
    rank, document, start, stop = columns(rule.shards(checked, cp))
    return Plan(
        lengths=checked,
        cp=cp,
        document=document,
        rank=rank,
        start=start,
        stop=stop,
        exchange=rule.exchange,
        strategy=strategy,
    )


def check_cp(cp: Any) -> None:
    """Refuse a CP degree that is not a whole number from 1 to 1,024."""
    whole = isinstance(cp, int | np.integer) and not isinstance(cp, bool)
    if not (whole and int(cp) in range(1, MOST_RANKS + 1)):
        raise PlanError(f"CP degree {cp!r} is not a whole number in 1..{MOST_RANKS}")


def check_lengths(lengths: ArrayLike) -> NDArray[np.int32]:
    """Return a pack's lengths as read-only int32 of our own, or say which one is wrong.

    Raises:
        PlanError: no documents, or a length that is not a whole number from 1 to 2**31 - 1, or
            more than 2**31 - 1 tokens together.
    """
    given = np.asarray(lengths)
    if given.ndim != 1 or given.size == 0:
        raise PlanError(f"a pack is a list of document lengths; got shape {given.shape}")
    if given.dtype.kind not in "iu":
        raise PlanError(f"document lengths are whole numbers; got {given.dtype}")
    most = np.iinfo(np.int32).max
    if given.min() < 1 or given.max() > most:
        bad = np.flatnonzero((given < 1) | (given > most))
        raise PlanError(
            f"document {bad[0]} has length {given[bad[0]]}, which is not in 1..{2**31 - 1}"
        )
    if given.sum(dtype=np.int64) > most:
        raise PlanError(f"a pack of {given.sum(dtype=np.int64)} tokens is above {2**31 - 1}")
    lengths = np.array(given, dtype=np.int32)
    lengths.flags.writeable = False
    return lengths

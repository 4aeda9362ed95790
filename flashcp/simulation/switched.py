"""Plans under switched-off ideas: another exchange, overlap forced on or off.

A fixed strategy keeps its shards and runs them in the given way. `auto` chooses again: of every
placement it knows (its own search's and each fixed strategy's), run in each way that is left, it
takes the one predicted to take least. Rings have one way to run; they stay as they are.
"""

from dataclasses import replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from flashcp.auto import auto_plan
from flashcp.copied import LANDING
from flashcp.exchange import Exchange
from flashcp.parts import predict_parts
from flashcp.planning import plan
from flashcp.plans import MOST_CHUNKS, Plan
from flashcp.prediction import Setting
from flashcp.search.weights import Balance
from flashcp.simulation.what_if import WhatIf
from flashcp.strategies import AUTO, STRATEGIES

_EXCHANGES = {
    "all-gather": (Exchange.ALL_GATHER,),
    "non-last": (Exchange.ALL_GATHER_NON_LAST,),
    "needed": (Exchange.ALL_TO_ALL_NEEDED, Exchange.ALL_TO_ALL_TWO_LEVEL),
    "own": (  # what auto chooses from
        Exchange.ALL_TO_ALL_NEEDED,
        Exchange.ALL_TO_ALL_TWO_LEVEL,
        Exchange.ALL_GATHER_NON_LAST,
    ),
}
_CHUNKS = tuple(2**power for power in range(MOST_CHUNKS.bit_length()))  # parts by heads
_OVERLAPS = {"on": (True,), "off": (False,), "own": (False, True)}


def switched_plan(
    lengths: NDArray[np.int32],
    cp: int,
    strategy: str,
    setting: Setting,
    what_if: WhatIf,
    plan_effort: float = 1.0,
    balance: Balance | None = None,
) -> Plan:
    """Make a pack's plan and run it as `what_if` says; arguments as for `flashcp.plan`.

    `plan_effort` is the search steps of `auto`, in units of its default, `balance` what it evens
    out.
    """
    if strategy == AUTO:
        made = auto_plan(lengths, cp, setting, effort=plan_effort, balance=balance)
    else:
        made = plan(lengths, cp, strategy, setting)
    if not what_if.switches_plans:
        return made
    if strategy != AUTO:
        return _switch(made, what_if)
    placements = [made] + [
        plan(lengths, cp, name, setting)
        for name, rule in STRATEGIES.items()
        if rule.exchange is not Exchange.RING
    ]
    per_node = setting.profile.network.per_node(cp, setting.ranks_per_node)
    ways = [
        _run_by(
            replace(placement, strategy=AUTO), exchange, overlap, per_node, chunks, bundled=bundled
        )
        for placement in placements
        if placement.exchange is not Exchange.RING
        for exchange, overlap in product(_EXCHANGES[what_if.exchange], _OVERLAPS[what_if.overlap])
        if exchange is not Exchange.ALL_TO_ALL_TWO_LEVEL or 1 < per_node < cp
        for chunks in (_CHUNKS if overlap and exchange in LANDING else (1,))
        if setting.model.kv_heads % chunks == 0
        for bundled in ((False, True) if exchange in LANDING else (False,))
    ]
    return min(ways, key=lambda way: predict_parts(way, setting).total_us)


def _switch(made: Plan, what_if: WhatIf) -> Plan:
    if made.exchange is Exchange.RING:
        return made
    own = what_if.exchange == "own"
    exchange = made.exchange if own else _EXCHANGES[what_if.exchange][0]
    overlap = made.overlap if what_if.overlap == "own" else what_if.overlap == "on"
    return _run_by(made, exchange, overlap, made.ranks_per_node)


def _run_by(
    made: Plan,
    exchange: Exchange,
    overlap: bool,
    per_node: int | None = None,
    chunks: int = 1,
    *,
    bundled: bool = False,
) -> Plan:
    two_level = exchange is Exchange.ALL_TO_ALL_TWO_LEVEL
    return replace(
        made,
        exchange=exchange,
        overlap=overlap,
        ranks_per_node=per_node if two_level else None,
        head_chunks=chunks,
        bundled=bundled,
    )

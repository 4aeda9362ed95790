"""`auto`: of everything we know how to do, what is predicted to take least.

The search places the documents; the other strategies' shards are candidates as well. Each is
predicted with every all-gather and with the all-to-all of what is needed, in one level and across
nodes in two, in one kernel call and in two with the exchange between them; and the rings as they
are. Among candidates within 0.5% of the best it takes the one that sends least across nodes, then
one whose work is even, where that is asked for, then the one that moves least, since traffic costs
power and disturbs others even where it is hidden; but never one that is predicted slower than
another strategy as that one runs.

Even work and even time pull against each other: who waits, merges and copies more has to attend to
less. Even times took 1 to 4% less in prediction, of 128k packs at CP 8, and 4 to 18% less on two
nodes (docs/research/auto.md); even work depends on no profile.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from costmodel import attention_kernel as kernel
from costmodel.attention import DIRECTIONS
from flashcp.errors import PlanError
from flashcp.exchange import Exchange, across_uniform
from flashcp.exchange_times import ring_transfers_us
from flashcp.parts import predict_parts
from flashcp.plans import Plan
from flashcp.search.evaluate import TOLERANCE, Option, options
from flashcp.search.nodes import gather_on_nodes, pairwise_seats
from flashcp.search.placement import EVEN, find_placements, imbalance, settle_on_nodes
from flashcp.search.weights import (
    ACROSS_US,
    BALANCES,
    TILE,
    TILE_US,
    Balance,
    across_us,
    search_weights,
)
from flashcp.strategies import AUTO, FLASHCP, STRATEGIES, check_cp, check_lengths
from flashcp.strategies._shards import columns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike, NDArray

    from flashcp.prediction import Setting
    from flashcp.strategies import Strategy
    from flashcp.strategies._shards import Rows

DEFAULT_EFFORT = 1.0
MOST_EFFORT = 1e6
_MOST_RANKS_TWICE = 32  # up to which packs of ranks that share no node are searched twice


def auto_plan(
    lengths: "ArrayLike",
    cp: int,
    setting: "Setting",
    *,
    effort: float = DEFAULT_EFFORT,
    balance: Balance | None = None,
) -> Plan:
    """Make the plan of one pack that is predicted to take least.

    Args:
        lengths: tokens of each packed document, whole numbers [documents], each at least 1.
        cp: CP degree, 1 to 1,024.
        setting: hardware and model shape.
        effort: search steps, in units of the default; 0 only places greedily.
        balance: what is evened out between ranks, attention "work", whatever the profile says, or
            predicted "time", of which a plan then takes less; None for work on one node and time
            where ranks span several.

    Returns:
        The plan; equal arguments give an equal plan on every machine and in every process.

    Raises:
        PlanError: a length, the CP degree, the effort or the balance is wrong.
    """
    checked = check_lengths(lengths)
    check_cp(cp)
    if not 0 <= effort <= MOST_EFFORT:
        raise PlanError(f"plan effort {effort!r} is not in 0..{MOST_EFFORT:.0f}")
    check_balance(balance)
    per_node = setting.profile.network.per_node(cp, setting.ranks_per_node)
    evened: Balance = balance or ("time" if per_node < cp else "work")
    whole = STRATEGIES[FLASHCP].shards(checked, cp)  # where the search starts too; made once
    found: list[Option] = []
    searched_by = _weights(checked, cp, per_node, setting, evened)
    for weights in searched_by:
        # Where two are searched by, the plan as if ranks were on one node goes on.
        placements = find_placements(
            checked, cp, weights, effort, others=whole, again=weights is searched_by[-1]
        )
        for placement in placements:
            seatings = [*_seatings(placement, checked, cp, per_node, setting, weights, effort)]
            for seated in reversed(seatings):  # the last is mostly the best, and rules others out
                limit = TOLERANCE * min((o.total_us for o in found), default=np.inf)
                found.extend(options(seated, checked, cp, setting, limit_us=limit, gathers=False))
    pair_us = float(searched_by[0][TILE_US]) / TILE**2
    others_us = np.inf  # the fastest other strategy, run its own way
    for rule in STRATEGIES.values():
        limit = TOLERANCE * min(option.total_us for option in found)
        if rule.exchange is Exchange.RING:
            candidates = _ring(rule, checked, cp, setting, limit, pair_us)
        elif _fewest_us(rule, checked, cp, setting) <= limit:
            rows = whole if rule.name == FLASHCP else rule.shards(checked, cp)
            candidates = options(rows, checked, cp, setting, limit_us=limit)
        else:
            continue
        own = [o.total_us for o in candidates if o.exchange is rule.exchange and not o.overlap]
        others_us = min([others_us, *own])
        found.extend(candidates)
    limit = min(TOLERANCE * min(option.total_us for option in found), others_us)
    close = [option for option in found if option.total_us <= limit]
    placed = {id(option.rows): option.rows for option in close}
    uneven = {key: evened == "work" and imbalance(rows, cp) > EVEN for key, rows in placed.items()}
    best = min(
        close,
        key=lambda option: (
            option.across_tokens,
            uneven[id(option.rows)],
            option.moved_tokens,
            option.total_us,
        ),
    )
    return _plan(checked, cp, best, AUTO)


def check_balance(balance: str | None) -> None:
    """Refuse what cannot be evened out.

    Raises:
        PlanError: `balance` is unknown.
    """
    if balance is not None and balance not in BALANCES:
        raise PlanError(f"balance {balance!r} is unknown; there are: {', '.join(BALANCES)}")


def _weights(
    lengths: "NDArray[np.int32]", cp: int, per_node: int, setting: "Setting", balance: Balance
) -> "list[NDArray[np.float64]]":
    """Return what to search by: as if all ranks shared a node, as what crosses counts later.

    Where none shares one with another, everything crosses: by the network as it is and, of a few
    ranks, as if it were one node.
    """
    weights = []
    if per_node == 1 < cp:
        weights.append(search_weights(lengths, cp, setting, balance))
    if per_node > 1 or cp <= _MOST_RANKS_TWICE:
        one = replace(setting, ranks_per_node=cp)
        weights.append(search_weights(lengths, cp, one, balance))
    return weights


def _seatings(
    placement: "Rows",
    lengths: "NDArray[np.int32]",
    cp: int,
    per_node: int,
    setting: "Setting",
    weights: "NDArray[np.float64]",
    effort: float,
) -> "Iterator[Rows]":
    """Give a placement with its ranks on nodes in several ways, and what it becomes from there.

    What crosses in all may fall by renumbering and the busiest rank's share of it rise, so as it is
    as well.
    """
    yield placement
    if not 1 < per_node < cp:
        return
    seat = pairwise_seats(placement, cp, per_node)
    yield gather_on_nodes(placement, cp, per_node, seat=seat)
    seated = gather_on_nodes(placement, cp, per_node, two_level=True, seat=seat)
    yield seated
    crossing = weights.copy()
    crossing[ACROSS_US] = across_us(lengths, cp // per_node, setting)
    yield from settle_on_nodes(seated, lengths, cp, per_node, crossing, effort)


def _fewest_us(
    rule: "Strategy", lengths: "NDArray[np.int32]", cp: int, setting: "Setting"
) -> float:
    """Return a time that a strategy's plan is not below, before its shards are made.

    Per-Doc makes up to 2N shards a document, each at least a tile of queries and one of keys for
    every head: on thousands of short documents that alone rules it out, and making them would take
    longest.
    """
    if rule.name != "per-doc":
        return 0.0
    shards = float(np.minimum(lengths, 2 * cp).sum() - 1) / 2 / cp  # touching ones are joined
    tiles = 0.0
    for direction in DIRECTIONS:
        p = setting.attention_parameters(direction)
        walked_us = 0.0 if p[kernel.BLOCKED] else p[kernel.KV_TILE_US]
        tiles += float((p[kernel.QUERY_TILE_US] + walked_us) * p[kernel.HEADS] / p[kernel.SMS])
    return shards * tiles


def _ring(
    rule: "Strategy",
    lengths: "NDArray[np.int32]",
    cp: int,
    setting: "Setting",
    limit_us: float,
    pair_us: float,
) -> list[Option]:
    """Predict a ring strategy where it could be within `limit_us`.

    Its steps are one after another, each at least as long as its transfer. And some rank attends to
    all of its pairs, of which each takes at least `pair_us`.
    """
    tokens = int(lengths.sum(dtype=np.int64))
    moved = float(tokens) * (cp - 1) / cp
    largest = -(-tokens // cp)
    if ring_transfers_us(largest, cp, setting) > limit_us:
        return []
    rows = rule.shards(lengths, cp)
    option = Option(rows, Exchange.RING, False, np.inf, moved)
    plan = _plan(lengths, cp, option, rule.name)
    if float(plan.rank_work.max()) * pair_us > limit_us:
        return []
    total = predict_parts(plan, setting).total_us
    per_node = setting.profile.network.per_node(cp, setting.ranks_per_node)
    across, _ = across_uniform(Exchange.RING, largest, cp, per_node)
    return [Option(rows, Exchange.RING, False, total, moved, across)]


def _plan(lengths: "NDArray[np.int32]", cp: int, option: Option, strategy: str) -> Plan:
    rank, document, start, stop = columns(option.rows)
    return Plan(
        lengths=lengths,
        cp=cp,
        document=document,
        rank=rank,
        start=start,
        stop=stop,
        exchange=option.exchange,
        strategy=strategy,
        overlap=option.overlap,
        ranks_per_node=option.ranks_per_node,
        head_chunks=option.head_chunks,
        bundled=option.bundled,
    )

"""How good a placement is: one number to lower, from the loads of all ranks.

    energy  = traffic + time weight * time + balance weight * excess + piece weight * cuts
    traffic = 4-norm over ranks of max(sent, received) / full all-gather
    time    = power mean over ranks of predicted time / mean of undivided documents, exponent 8
    excess  = 2-norm over ranks of what pairs or tiles exceed their slack by

A rank's time is its attention, its copies, and what of the exchange the attention to own keys,
which waits for nothing, is too short to hide, forward and backward. High norms lean towards the
worst rank, which is what counts in the end, and still see progress on the others; the worst alone
would leave most moves without any effect to judge them by. Tokens that a rank has too many or too
few would have to travel as heads of documents, received back by the one and sent by the other: they
count as traffic, those beyond a tile `token_weight` times more.
"""

import numpy as np

from flashcp.search.loads import Floats
from flashcp.search.weights import (
    ACROSS,
    ACROSS_US,
    BACKWARD,
    BALANCE_WEIGHT,
    COPY_US,
    EXCHANGE_TOKEN_US,
    EXCHANGE_US,
    LOCAL,
    MEAN_TOKENS,
    PAIRS,
    PAIRS_SLACK,
    PER_PAIR,
    PER_TILE,
    PER_TIME,
    PER_TRAFFIC,
    PIECE_WEIGHT,
    RECEIVED,
    RETURN_US,
    SENT,
    TILES,
    TILES_SLACK,
    TIME,
    TIME_WEIGHT,
    TOKENS,
    TOKENS_SLACK,
)
from groundwork.jit import jit_lean


@jit_lean
def rank_excess(pairs: float, tiles: float, weights: Floats) -> float:
    """Return by how much a rank's work exceeds its slack, as a share of the mean; at least 0."""
    excess = max(
        pairs * weights[PER_PAIR] - weights[PAIRS_SLACK],
        tiles * weights[PER_TILE] - weights[TILES_SLACK],
    )
    return float(max(excess, 0.0))


@jit_lean
def rank_traffic(
    sent: float, received: float, tokens: float, token_weight: float, weights: Floats
) -> float:
    """Return what a rank sends or receives, whichever is more, as a share of a full all-gather."""
    surplus = tokens - weights[MEAN_TOKENS]
    if surplus > 0.0:
        received += surplus + token_weight * max(surplus - weights[TOKENS_SLACK], 0.0)
    else:
        sent -= surplus + token_weight * min(surplus + weights[TOKENS_SLACK], 0.0)
    return float(max(sent, received) * weights[PER_TRAFFIC])


@jit_lean
def sum_of_squares(values: Floats) -> float:
    """Return the sum of squares, added up in order."""
    total = 0.0
    for value in values:
        total += value * value
    return float(total)


@jit_lean
def balance_energy(excess: Floats, weights: Floats) -> float:
    """Return the energy of each rank's excess, [N]."""
    return float(weights[BALANCE_WEIGHT] * np.sqrt(sum_of_squares(excess)))


@jit_lean
def traffic_energy(traffic: Floats) -> float:
    """Return the energy of each rank's traffic, [N]."""
    total = 0.0
    for value in traffic:
        square = value * value
        total += square * square
    return float(np.sqrt(np.sqrt(total)))


@jit_lean
def exchange_time(moved: float, weights: Floats) -> float:
    """Return an exchange's time, from the sum of what each rank moves to the eighth power."""
    if moved <= 0.0:
        return 0.0
    return float(weights[EXCHANGE_US] + weights[EXCHANGE_TOKEN_US] * eighth_root(moved))


@jit_lean
def across_time(loads: Floats, weights: Floats) -> float:
    """Return how much longer an exchange takes that crosses nodes; loads are [N, LOADS]."""
    if weights[ACROSS_US] == 0.0:
        return 0.0
    moved = 0.0
    for rank in range(loads.shape[0]):
        moved += eighth_power(loads[rank, ACROSS])
    return float(weights[ACROSS_US] * eighth_root(moved))


@jit_lean
def busy_us(loads: Floats, rank: int, weights: Floats) -> float:
    """Return a rank's attention and copies, in microseconds."""
    copies = weights[RETURN_US] * loads[rank, SENT] - weights[COPY_US] * loads[rank, RECEIVED]
    return float(loads[rank, TIME] + copies)


@jit_lean
def rank_time(loads: Floats, rank: int, exchange_us: float, weights: Floats) -> float:
    """Return a rank's time, over the mean of undivided documents, to the eighth power."""
    local = loads[rank, LOCAL]
    exposed = max(exchange_us - local, 0.0) + max(exchange_us - weights[BACKWARD] * local, 0.0)
    return float(eighth_power((busy_us(loads, rank, weights) + exposed) * weights[PER_TIME]))


@jit_lean
def time_energy(loads: Floats, weights: Floats) -> float:
    """Return the energy of the ranks' times; loads are [N, LOADS]."""
    ranks = loads.shape[0]
    moved = 0.0
    for rank in range(ranks):
        moved += eighth_power(max(loads[rank, SENT], loads[rank, RECEIVED]))
    exchange_us = exchange_time(moved, weights) + across_time(loads, weights)
    total = 0.0
    for rank in range(ranks):
        total += rank_time(loads, rank, exchange_us, weights)
    return float(weights[TIME_WEIGHT] * eighth_root(total / ranks))


@jit_lean
def eighth_power(value: float) -> float:
    """Return value^8."""
    value *= value
    value *= value
    return value * value


@jit_lean
def eighth_root(value: float) -> float:
    """Return the root of value^8, by square roots alone, which every machine rounds alike."""
    return float(np.sqrt(np.sqrt(np.sqrt(value))))


@jit_lean
def strain(
    loads: Floats, token_weight: float, weights: Floats, traffic: Floats, excess: Floats
) -> int:
    """Fill each rank's traffic and excess, [N] each; returns the rank where most comes together."""
    worst = 0
    most = -1.0
    for rank in range(loads.shape[0]):
        traffic[rank] = rank_traffic(
            loads[rank, SENT], loads[rank, RECEIVED], loads[rank, TOKENS], token_weight, weights
        )
        excess[rank] = rank_excess(loads[rank, PAIRS], loads[rank, TILES], weights)
        both = traffic[rank] + weights[BALANCE_WEIGHT] * excess[rank]
        if both > most:
            most = both
            worst = rank
    return worst


@jit_lean
def least_energy(
    loads: Floats, one: int, other: int, pairs: float, tokens: int, others: float,
    token_weight: float, weights: Floats,
) -> float:  # fmt: skip
    """Return an energy that a move cannot lead below, pieces left out.

    Args:
        loads: before the move, [N, LOADS].
        one: the rank that gives.
        other: the rank that gets.
        pairs: how many, gives less gets.
        tokens: how many, gives less gets.
        others: sum over the remaining ranks of their excess squared.
        token_weight: as for `strain`.
        weights: of the pack.
    """
    uneven = max(
        abs(loads[one, TOKENS] - tokens - weights[MEAN_TOKENS]),
        abs(loads[other, TOKENS] + tokens - weights[MEAN_TOKENS]),
    )
    traffic = token_weight * max(uneven - weights[TOKENS_SLACK], 0.0)
    # Tiles may exceed by more than pairs; times are no better than undivided documents'.
    first = max((loads[one, PAIRS] - pairs) * weights[PER_PAIR] - weights[PAIRS_SLACK], 0.0)
    second = max((loads[other, PAIRS] + pairs) * weights[PER_PAIR] - weights[PAIRS_SLACK], 0.0)
    balance = np.sqrt(others + first * first + second * second)
    return float(
        traffic * weights[PER_TRAFFIC] + weights[BALANCE_WEIGHT] * balance + weights[TIME_WEIGHT]
    )


@jit_lean
def energy(loads: Floats, cuts: int, weights: Floats, traffic: Floats, excess: Floats) -> float:
    """Return the energy of a placement with these loads and cuts, once `strain` filled the rest."""
    return float(
        traffic_energy(traffic)
        + time_energy(loads, weights)
        + balance_energy(excess, weights)
        + weights[PIECE_WEIGHT] * cuts
    )

"""What a placement costs: positions in the small arrays that the compiled search reads.

The search does not evaluate the attention model itself at every step. It adds up, rank by rank,
what the model is nearly linear in: tiles walked, rows of query tiles, and key tiles (a backward
kernel visits each key tile of a segment once, the prefix included). On 128-token tiles those are
whole numbers and cost a few additions a piece; the finished placements are then evaluated exactly.
"""

from typing import TYPE_CHECKING, Literal

import numpy as np

from costmodel import attention_kernel as kernel
from flashcp.plan_costs import merged_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flashcp.prediction import Setting

# What is made even between ranks: attention work, query-key pairs, or predicted time.
Balance = Literal["work", "time"]
BALANCES: tuple[Balance, ...] = ("work", "time")

TILE = 128

# Columns of the loads, float64 [ranks, LOADS].
# ACROSS is tokens sent to other nodes, once to each.
TOKENS, PAIRS, TILES, TIME, LOCAL, SENT, RECEIVED, ACROSS = range(8)
LOADS = 8

# Positions in the weights, float64 [WEIGHTS].
TILE_US = 0  # of walking one 128x128 tile with all heads, forward and backward
ROW_US = 1  # of one row of query tiles
KEY_TILE_US = 2  # of one key tile of a segment
MEAN_TOKENS = 3  # of a rank
MEAN_PAIRS = 4
MEAN_TILES = 5  # of undivided documents
MEAN_TIME = 6  # of undivided documents
PAIRS_SLACK = 7  # a rank's pairs over the mean up to which balance costs nothing
TILES_SLACK = 8
TIME_WEIGHT = 9  # energy of a time of the mean of undivided documents
PER_PAIR = 10  # 1 / MEAN_PAIRS, and so on: dividing takes longer
PER_TILE = 11
PER_TIME = 12
PER_TRAFFIC = 13  # 1 / tokens of a full all-gather, C (N - 1) / N
BALANCE_WEIGHT = 14  # energy of an excess of 1 over the slack
PIECE_WEIGHT = 15  # energy of one more piece
TOKENS_SLACK = 16  # tokens over or under the mean that weigh no more than their traffic
LOCAL_TILE_US = 17  # the forward's part of TILE_US
LOCAL_ROW_US = 18
BACKWARD = 19  # how many times as long the backward takes
COPY_US = 20  # of a token placed, and its gradient summed
EXCHANGE_US = 21  # of an exchange, one way: what it takes anyway
EXCHANGE_TOKEN_US = 22  # and for each token of the busiest rank
MERGE_US = 23  # of a token that waits, both ways
RETURN_US = 24  # of adding up the gradient of a token sent
EVENS_TIME = 25  # 1 where ranks' times are evened out at the end, 0 where their work is
ACROSS_US = 26  # of a token of the rank that sends most to other nodes, one way
WEIGHTS = 27

_PAIRS_SLACK, _TILES_SLACK = 1.003, 1.007
_TIME_WEIGHTS = {"work": 6.0, "time": 20.0}
_BALANCE_WEIGHT = 3.0
_PIECE_WEIGHT = 3e-4
_EXCHANGED = (0.02, 0.2)  # shares of the pack between which the exchange's time is linear
_CROSSED = (0.002, 0.02)  # likewise of what crosses nodes


def search_weights(
    lengths: "NDArray[np.int32]", cp: int, setting: "Setting", balance: Balance = "work"
) -> "NDArray[np.float64]":
    """Return the weights for one pack.

    Args:
        lengths: tokens of each packed document, [documents].
        cp: CP degree.
        setting: hardware and model shape.
        balance: what is to be even.
    """
    weights = np.zeros(WEIGHTS)
    for direction in ("forward", "backward"):
        p = setting.attention_parameters(direction)
        rows = p[kernel.Q_HEADS] * TILE / p[kernel.TILE_Q] / p[kernel.SMS]
        weights[TILE_US] += p[kernel.KV_TILE_US] * rows * TILE / p[kernel.TILE_K]
        if p[kernel.KEY_OUTER]:
            weights[KEY_TILE_US] += (
                p[kernel.QUERY_TILE_US]
                * p[kernel.Q_HEADS]
                * TILE
                / p[kernel.TILE_K]
                / p[kernel.SMS]
            )
        else:
            weights[ROW_US] += p[kernel.QUERY_TILE_US] * rows
            weights[LOCAL_TILE_US], weights[LOCAL_ROW_US] = weights[TILE_US], weights[ROW_US]
    weights[BACKWARD] = weights[TILE_US] / weights[LOCAL_TILE_US] - 1
    tokens = lengths.astype(np.int64)
    tiles = -(-tokens // TILE)
    walked = float((tiles * (tiles + 1) // 2).sum())
    weights[MEAN_TOKENS] = tokens.sum() / cp
    weights[MEAN_PAIRS] = float((tokens * (tokens + 1) // 2).sum()) / cp
    weights[MEAN_TILES] = walked / cp
    weights[MEAN_TIME] = (
        weights[TILE_US] * walked + (weights[ROW_US] + weights[KEY_TILE_US]) * float(tiles.sum())
    ) / cp
    kv_bytes = setting.model.kv_bytes_per_token
    memory = setting.profile.copies.memory_bytes_per_us
    weights[COPY_US] = 4 * kv_bytes / memory
    weights[RETURN_US] = 2 * kv_bytes / memory
    one = np.ones(1, dtype=np.int64)
    weights[MERGE_US] = 2 * sum(moved.item() for moved in merged_bytes(one, setting)) / memory
    if cp > 1:
        weights[EXCHANGE_US], weights[EXCHANGE_TOKEN_US] = _line(
            lengths, _EXCHANGED, cp, setting.ranks_per_node, setting
        )
    weights[PAIRS_SLACK] = _PAIRS_SLACK
    weights[TILES_SLACK] = _TILES_SLACK
    weights[TIME_WEIGHT] = _TIME_WEIGHTS[balance]
    weights[EVENS_TIME] = balance == "time"
    weights[PER_PAIR] = 1.0 / weights[MEAN_PAIRS]
    weights[PER_TILE] = 1.0 / weights[MEAN_TILES]
    weights[PER_TIME] = 1.0 / weights[MEAN_TIME]
    weights[PER_TRAFFIC] = 1.0 / max(tokens.sum() * (cp - 1) / cp, 1.0)
    weights[TOKENS_SLACK] = TILE
    weights[BALANCE_WEIGHT] = _BALANCE_WEIGHT
    weights[PIECE_WEIGHT] = _PIECE_WEIGHT
    return weights


def across_us(lengths: "NDArray[np.int32]", nodes: int, setting: "Setting") -> float:
    """Return what a token takes that is sent to another node, one way.

    Args:
        lengths: tokens of each packed document, [documents].
        nodes: how many exchange.
        setting: hardware and model shape.
    """
    return _line(lengths, _CROSSED, nodes, 1, setting)[1]


def _line(
    lengths: "NDArray[np.int32]",
    shares: tuple[float, float],
    ranks: int,
    ranks_per_node: int | None,
    setting: "Setting",
) -> tuple[float, float]:
    """Return what an exchange takes anyway, and for each token of the busiest rank, one way."""
    tokens, kv_bytes = float(lengths.sum(dtype=np.int64)), setting.model.kv_bytes_per_token
    few, many = (max(share * tokens, 1.0) for share in shares)
    first, second = (
        setting.profile.all_to_all_v_us(moved * kv_bytes, ranks, ranks_per_node=ranks_per_node).us
        for moved in (few, many)
    )
    token_us = max(second - first, 0.0) / max(many - few, 1.0)
    return max(first - few * token_us, 0.0), token_us

"""Draws the moves of the search: two ranks, a piece of each, and which ends of them move.

Seven kinds of move:

    swap    a piece changes places with a piece of another rank
    move    it goes to another rank
    slide   one end of it goes to the rank that holds the neighbouring piece of its document
    split   one end of it goes to another rank
    trade   the smaller of it and a piece of another rank goes over whole, and as many tokens of the
            larger come back
    level   ends of it and of a piece of another rank change places, of as many tokens as make the
            two ranks' work equal
    bridge  a slide that is paid for: as many tokens come back, as a whole piece or by a second
            slide, so that work changes and tokens do not, and nothing new is cut

Half of the moves start from or lead to the rank that is worst off. A level takes from the rank with
more work the deepest of half as many pieces as it holds, drawn, and a split does so where its giver
has more: among a hundred short documents the one piece whose place matters is not found otherwise.
Cuts fall on multiples of the grid, a power of two.
"""

from flashcp.search.loads import Floats
from flashcp.search.state import NEXT, PREVIOUS, RANK, SIZE, START, STOP, Ints
from flashcp.search.weights import PAIRS
from groundwork.jit import jit_lean

# Columns of a move, int64 [2, MOVE]: each piece, where it is cut (-1: it moves whole), whether the
# part before the cut moves (0 or 1), the rank it is on and the other goes to, the new piece; and
# the tokens that move, which whoever weighs the move fills in.
PIECE, CUT, HEAD, SIDE, PART, LOWER, UPPER = range(7)
MOVE = 7

# Of 256 draws, below which each kind of move is taken.
_SWAP, _MOVE, _SLIDE, _SPLIT, _TRADE, _LEVEL = 40, 55, 85, 100, 140, 200
_MOST_DRAWN = 16  # pieces, besides one, of which a level or a split takes the deepest
_FACTOR, _ADDEND = 25_173, 13_849  # of a congruential generator that has all of 16 bits
_TRIES = 8  # pieces looked at for one that has a neighbour
_UNIT = 0xFFFF  # 16 random bits


@jit_lean
def draw_move(
    pool: Ints, lists: Ints, ranks: Ints, loads: Floats, worst: int, grid: int,
    who: int, how: int, move: Ints,
) -> int:  # fmt: skip
    """Draw a move.

    Args:
        pool: the placement's.
        lists: the placement's.
        ranks: the placement's.
        loads: of all ranks.
        worst: the rank that is worst off.
        grid: cuts are at multiples of so many tokens.
        who: 64 random bits that choose ranks and pieces.
        how: 64 random bits that choose the move.
        move: gets the move, [2, MOVE].

    Returns:
        How many pieces move; 0 if the draw is no possible move.
    """
    cp = ranks.shape[0]
    one = worst if how & 1 else ((who & _UNIT) * cp) >> 16
    other = (((who >> 16) & _UNIT) * (cp - 1)) >> 16
    if other >= one:
        other += 1
    if how & 2:
        one, other = other, one
    if ranks[one, SIZE] == 0 or ranks[other, SIZE] == 0:
        return 0
    kind = (how >> 8) & 0xFF
    chance = (how >> 16) & _UNIT
    move[0, HEAD] = (how >> 2) & 1
    move[1, HEAD] = (how >> 3) & 1
    move[0, SIDE], move[1, SIDE] = one, other
    move[0, CUT] = move[1, CUT] = -1
    move[0, PIECE] = lists[one, (((who >> 32) & _UNIT) * ranks[one, SIZE]) >> 16]
    move[1, PIECE] = lists[other, (((who >> 48) & _UNIT) * ranks[other, SIZE]) >> 16]
    if kind < _SWAP:
        return 2
    if kind < _MOVE:
        return 1
    if kind < _SLIDE or kind >= _LEVEL:
        return _slide(pool, lists, ranks, grid, kind >= _LEVEL, who >> 48, how >> 4, chance, move)
    if kind < _SPLIT:
        if loads[one, PAIRS] > loads[other, PAIRS]:
            move[0, PIECE] = _deepest(pool, lists[one], ranks[one, SIZE], who >> 32)
        piece = move[0, PIECE]
        move[0, CUT] = _cut(
            pool, piece, _amount(pool, piece, how >> 4, chance), move[0, HEAD], grid
        )
        return 1 if move[0, CUT] >= 0 else 0
    if kind < _TRADE:
        return _trade(pool, move, grid)
    surplus = 0.5 * (loads[one, PAIRS] - loads[other, PAIRS])
    if surplus > 0.0:
        move[0, PIECE] = _deepest(pool, lists[one], ranks[one, SIZE], who >> 32)
    else:
        move[1, PIECE] = _deepest(pool, lists[other], ranks[other, SIZE], who >> 48)
    return _level(pool, move, surplus, grid)


@jit_lean
def _slide(
    pool: Ints, lists: Ints, ranks: Ints, grid: int, paid: bool,
    back: int, scale: int, chance: int, move: Ints,
) -> int:  # fmt: skip
    """Slide a cut of the first rank's, and if `paid` bring as many tokens back; see `draw_move`."""
    one = move[0, SIDE]
    beside = NEXT if move[0, HEAD] == 0 else PREVIOUS
    piece = move[0, PIECE]
    slot = 0
    while pool[piece, beside] < 0:
        if slot == min(_TRIES, ranks[one, SIZE]):
            return 0
        piece = lists[one, slot]
        slot += 1
    move[0, PIECE] = piece
    neighbour = pool[piece, beside]
    other = pool[neighbour, RANK]
    move[1, SIDE] = other
    tokens = _amount(pool, piece, scale, chance)
    if not paid:
        move[0, CUT] = _cut(pool, piece, tokens, move[0, HEAD], grid)
        return 1
    giver = lists[other, ((back & _UNIT) * ranks[other, SIZE]) >> 16]
    if giver == neighbour:
        return 0
    move[1, PIECE] = giver
    size = pool[giver, STOP] - pool[giver, START]
    facing = pool[giver, NEXT if move[1, HEAD] == 0 else PREVIOUS]
    if facing >= 0 and facing != piece and pool[facing, RANK] == one and tokens < size:
        move[1, CUT] = _cut(pool, giver, tokens, move[1, HEAD], grid)
        if move[1, CUT] >= 0:
            head = move[1, CUT] - pool[giver, START]
            size = head if move[1, HEAD] else size - head
    move[0, CUT] = _cut(pool, piece, size, move[0, HEAD], grid)
    return 2 if move[0, CUT] >= 0 else 0


@jit_lean
def _trade(pool: Ints, move: Ints, grid: int) -> int:
    """Cut the larger of two pieces so that about equal tokens change places."""
    size = pool[move[0, PIECE], STOP] - pool[move[0, PIECE], START]
    other = pool[move[1, PIECE], STOP] - pool[move[1, PIECE], START]
    larger = 0 if size > other else 1
    move[larger, CUT] = _cut(pool, move[larger, PIECE], min(size, other), move[larger, HEAD], grid)
    return 2


@jit_lean
def _deepest(pool: Ints, listed: Ints, size: int, bits: int) -> int:
    """Return the piece that ends deepest of half as many draws as a rank has pieces."""
    best = -1
    for _ in range(1 + min(size >> 1, _MOST_DRAWN)):
        piece = listed[((bits & _UNIT) * size) >> 16]
        if best < 0 or pool[piece, STOP] > pool[best, STOP]:
            best = piece
        bits = _FACTOR * (bits & _UNIT) + _ADDEND
    return best


@jit_lean
def _level(pool: Ints, move: Ints, surplus: float, grid: int) -> int:
    """Cut both pieces so that their ends' places make up for the first rank's surplus of pairs."""
    first, second = move[0, PIECE], move[1, PIECE]
    wanted = 0.0
    for turn in range(4):
        # The other end of the second piece, then of the first, until the places make up for it.
        if turn > 0:
            move[1, HEAD] = 1 - move[1, HEAD]
        if turn == 2:
            move[0, HEAD] = 1 - move[0, HEAD]
        here = pool[first, START if move[0, HEAD] else STOP]
        there = pool[second, START if move[1, HEAD] else STOP]
        if here != there:
            wanted = surplus / (here - there)
        if wanted >= 0.5 * grid:
            break
    if wanted < 0.5 * grid:
        return 0
    size = min(
        pool[first, STOP] - pool[first, START],
        pool[second, STOP] - pool[second, START],
    )
    tokens = size if wanted >= size else int(wanted)
    for i in range(2):
        move[i, CUT] = _cut(pool, move[i, PIECE], tokens, move[i, HEAD], grid)
    return 2


@jit_lean
def _amount(pool: Ints, piece: int, scale: int, chance: int) -> int:
    """Return up to all of a piece's tokens, or up to a quarter, a 16th or a 64th, as often."""
    size = pool[piece, STOP] - pool[piece, START]
    return int(((chance + 1) * size) >> (16 + 2 * (scale & 3)))


@jit_lean
def _cut(pool: Ints, piece: int, tokens: int, head: int, grid: int) -> int:
    """Return where to cut a piece so that its head or tail has about `tokens`, at least one grid.

    Returns:
        The token, or -1 if all of the piece is about that much.
    """
    start = pool[piece, START]
    stop = pool[piece, STOP]
    tokens = max(tokens, grid)
    at = start + tokens if head else stop - tokens
    at = (at + (grid >> 1)) & -grid
    return int(at) if start < at < stop else -1

"""Cuts a length into equal chunks, spreading what is left over one token at a time.

Chunk ids run from 0 to K-1. The first leftover token of a length goes to the chunk id where the
previous length's leftovers ended, so over a whole pack every chunk id gets the same number of
tokens, give or take one. With K = 2N chunks and rank r taking ids r and 2N-1-r, any window of
consecutive ids also leaves the ranks within one token of each other: WLB-LLM's rule, exact for
every length and every N.
"""

from groundwork.jit import jit_as


@jit_as("i8(i8, i8, i8, i8)", lean=True)
def chunk_start(length: int, chunks: int, carry: int, chunk: int) -> int:
    """Return where `chunk` starts; `chunk_start(..., chunks)` is `length`.

    Args:
        length: tokens to cut.
        chunks: K, how many chunks to cut them in.
        carry: the chunk id that gets the first leftover token, 0 to K-1.
        chunk: the chunk's id, 0 to K.

    Returns:
        The first token of the chunk.
    """
    base = length // chunks
    leftover = length - base * chunks
    wrapped = max(carry + leftover - chunks, 0)  # leftovers that went round to id 0 and on
    extras = min(chunk, wrapped) + min(max(chunk - carry, 0), leftover - wrapped)
    return base * chunk + extras

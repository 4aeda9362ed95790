"""A trace: the lengths of a corpus's documents, in order, and nothing else of them."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from traces.errors import TraceError
from traces.validation import checked_lengths


def fingerprint_of(lengths: NDArray[np.int32]) -> str:
    """Return the SHA-256 of [documents] `lengths` as little-endian int32, in hexadecimal."""
    return hashlib.sha256(lengths.astype("<i4", copy=False).data).hexdigest()


@dataclass(frozen=True, eq=False)
class Trace:
    """An ordered list of documents, each a length in tokens.

    Attributes:
        name: what to call it in tables and messages.
        lengths: [documents] int32, read-only, every one at least 1. Any integral sequence is
            accepted and checked; an array that is already int32 and read-only is not copied.
        note: what a reader must know of the lengths, such as that they are estimates.

    Raises:
        TraceError: there is no document, or a length is not a whole number of 1 to 2**31 - 1
            tokens.
    """

    name: str
    lengths: NDArray[np.int32]
    note: str = ""

    def __post_init__(self) -> None:
        lengths: NDArray[Any] = np.asarray(self.lengths)
        if lengths is not self.lengths or lengths.base is not None or lengths.flags.writeable:
            # A copy, because the owner of the memory could still change what we promise not to.
            lengths = np.array(lengths)
        if lengths.ndim != 1:
            raise TraceError(
                f"{self.name}: lengths have {lengths.ndim} dimensions; give a flat list"
            )
        if lengths.size == 0:
            raise TraceError(f"{self.name} has no documents; give a trace with at least one")
        lengths = checked_lengths(lengths, self.name)
        lengths.flags.writeable = False
        object.__setattr__(self, "lengths", lengths)

    @property
    def documents(self) -> int:
        """The number of documents."""
        return int(self.lengths.size)

    @cached_property
    def tokens(self) -> int:
        """The tokens of all documents together."""
        return int(self.lengths.sum(dtype=np.int64))

    @cached_property
    def fingerprint(self) -> str:
        """The SHA-256 of the lengths as little-endian int32: equal lengths, equal fingerprint."""
        return fingerprint_of(self.lengths)

    def __len__(self) -> int:
        return self.documents

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Trace) and np.array_equal(self.lengths, other.lengths)

    def __hash__(self) -> int:
        return hash(self.fingerprint)
